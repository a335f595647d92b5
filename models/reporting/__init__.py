"""The parts of a run report; `models.report` puts them together."""
