"""Imports Apache Beam without its warning that clients of Google Cloud are absent: none is used."""

import logging

logging.disable(logging.WARNING)
try:
    import apache_beam as beam
finally:
    logging.disable(logging.NOTSET)

__all__ = ["beam"]
