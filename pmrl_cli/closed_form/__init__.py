"""Closed forms: features to components, the moments of those, and the maps they give without training."""
