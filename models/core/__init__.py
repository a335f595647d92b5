"""The model that is trained, how it is made, and the directory that a run leaves behind."""
