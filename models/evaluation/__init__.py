"""Scores of splits and their measurement: metrics, confidence intervals, slices, yardsticks."""
