"""Encoders of values to ids or floats and back, with NumPy and Arrow: what they do, learn, save."""
