"""The batch model as a graph: read, checked, normalised, and looked at."""
