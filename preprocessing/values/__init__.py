"""One spelling and one fingerprint for each value."""
