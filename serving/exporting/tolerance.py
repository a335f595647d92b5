"""How far scores of the same request may be apart; read by flags, without TensorFlow."""

TOLERANCE = 1e-6
"""Largest difference between two probabilities that count as equal."""
