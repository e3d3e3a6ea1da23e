"""MCCA (SUMCOR), linear, chosen alike."""

SETTINGS: dict[str, object] = {"objective": "mcca", "adapter": "linear"}
