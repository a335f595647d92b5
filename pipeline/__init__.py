"""Apache Beam jobs, the end-to-end run and experiment tables."""
