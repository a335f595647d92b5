"""The log as it comes: formats, dialects, types, and the judgement of every row."""
