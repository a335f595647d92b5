"""The trainable model, its construction, and the run directory."""
