"""The REST interface: HTTP, paths, JSON to tensors and back."""
