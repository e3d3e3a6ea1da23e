"""Statistics of unit vectors that training watches and diagnosis reports."""
