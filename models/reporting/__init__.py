"""The parts of a run report; `run_report` assembles them."""
