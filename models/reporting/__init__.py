"""The parts of a run report; `models.report` assembles them."""
