"""Ridge MAXVAR GCCA, linear: every ridge, power, dimension and way to tame features, in closed form."""

SETTINGS: dict[str, object] = {"objective": "gcca", "adapter": "linear"}
