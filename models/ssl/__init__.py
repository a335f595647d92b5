"""Self-supervised losses that can be combined with any model."""
