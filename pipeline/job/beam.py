"""Imports Apache Beam, as this job needs it.

Its warning that clients of Google Cloud are absent is left out: none is used. The garbage collector
rests meanwhile, as it would look through a quarter of a million new objects again and again, and
later collections leave these objects out: they stay as long as the process.
"""

import gc
import logging

_collects = gc.isenabled()
gc.disable()
logging.disable(logging.WARNING)
try:
    import apache_beam as beam
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
finally:
    logging.disable(logging.NOTSET)
    gc.freeze()
    if _collects:
        gc.enable()

__all__ = ["FnApiRunner", "beam"]
