"""Statistics of a data set, and the defects that they reveal."""
