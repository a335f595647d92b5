"""Apache Beam jobs, the end-to-end run and experiment tables."""

from preprocessing import require_neighbours

require_neighbours("models", "serving")
