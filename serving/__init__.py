"""Export, signatures, parity, the embedded server and its client."""
