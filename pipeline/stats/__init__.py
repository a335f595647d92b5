"""What a data set says of itself in numbers, and what these say against it."""
