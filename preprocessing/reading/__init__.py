"""What the reader of data sets is made of: parsed, held in memory, shared by readers and cores."""
