"""The statistics of a diagnosis, by what they are about: importing this package declares them all, in this order."""

from __future__ import annotations

from importlib import import_module

__all__: list[str] = []

for _name in (
    "alignment",
    "pairing",
    "probe",
    "dependence",
    "gap",
    "row_order",
    "retrieval",
    "hubness",
    "agreement",
    "row_runs",
    "modality",
    "training",
):
    import_module(f"{__name__}.{_name}")
