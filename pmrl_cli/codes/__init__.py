"""Smaller vectors without training: the channels worth keeping, and codes from a codebook."""
