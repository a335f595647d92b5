"""The distribution that generated logs are drawn from."""
