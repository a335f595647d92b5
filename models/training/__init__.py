"""The life of a training run, part by part."""
