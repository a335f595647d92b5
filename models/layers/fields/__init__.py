"""Interactions of the fields of a request: products, attention and graphs."""
