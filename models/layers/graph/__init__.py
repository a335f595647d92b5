"""Graphs on the items of a history (DemiNet, arXiv 2109.12512, eqs 1-11)."""
