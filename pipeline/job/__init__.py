"""The Beam job: its pipelines, how they run, what they write."""
