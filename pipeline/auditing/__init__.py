"""The parts of the audit, each of which reads only the written shards or the log."""
