"""Scores of splits, and what they are worth: metrics, intervals, slices, yardsticks."""
