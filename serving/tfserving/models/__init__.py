"""Models on disk: versions loaded, swapped and dropped, as a config file names them."""
