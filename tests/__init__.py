"""Tests of all rooms: the tree mirrors theirs."""
