"""The REST contract as cases: what is sent, what must come back, from any server that claims it."""
