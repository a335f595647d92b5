"""Requests of several callers, computed together."""
