"""Several interests of one user: extraction, experts, aggregation, consistency."""
