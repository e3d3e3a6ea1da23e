"""A whole fit: from a data set to the members of a space, and the record of how they came about."""
