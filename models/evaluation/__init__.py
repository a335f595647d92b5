"""Scores of splits and their measurement: metrics, intervals, slices, yardsticks, importance."""
