"""Batching: requests of several callers are computed together."""
