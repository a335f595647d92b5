"""The configuration of a run: dataclasses, JSON, `--set`."""
