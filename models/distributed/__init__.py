"""How processes and devices share a training."""
