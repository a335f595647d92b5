"""Distribution of training over processes and devices."""
