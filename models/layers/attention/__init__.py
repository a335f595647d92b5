"""Attention of candidates to events and interests, and positions from the most recent event."""
