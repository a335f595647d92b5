"""The distributions that generated logs are drawn from."""
