"""Layers, models, self-supervision, training, evaluation and reports."""
