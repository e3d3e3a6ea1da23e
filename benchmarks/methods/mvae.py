"""Variational autoencoder of all modalities, its posterior refined (docs/systems.md)."""

SETTINGS = {"objective": "mvae"}
