"""The parts of the audit, each from the written shards or the log alone."""
