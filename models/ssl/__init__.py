"""Self-supervised losses that plug into any model."""
