"""What generated logs are drawn from."""
