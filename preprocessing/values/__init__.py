"""Values of logs and settings: one spelling and one fingerprint for each, and limits."""
