"""The statistics of a diagnosis, by what they are about."""
