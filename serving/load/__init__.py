"""Load on a model server, timed."""
