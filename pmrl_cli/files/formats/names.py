"""Names of arrays and columns: which are features, which are ids."""

from __future__ import annotations

import re

__all__ = ["FEATURE_NAMES", "ID_NAMES", "SPLIT_NAMES", "base_name", "natural_key", "never_features", "plain_name"]

FEATURE_NAMES = (
    *("embedding", "embeddings", "emb", "features", "feature", "feats", "feat", "vectors", "vector"),
    *("representation", "representations", "X", "data"),
)
ID_NAMES = (
    *("id", "ids", "_id", "uid", "uuid", "key", "keys", "sample_id", "sample_ids", "item_id", "image_id", "video_id"),
    *("cell_id", "barcode", "obs_names", "_index", "filename", "filenames", "path", "url"),
)
SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "dev", "test")
"""What a part of a data set is called that holds all of its modalities for some of its instances."""

_NEVER = re.compile(
    r"(x_)?(coords?|coordinates|box(es)?|bbox(es)?|labels?|targets?|umap|tsne|distances?|(.*_)?index)", re.IGNORECASE
)


_SUFFIX = re.compile(
    r"[-_.](train|val|valid|validation|dev|test|features?|feats?|embs?|embeddings?|vectors?|vecs?|representations?)$",
    re.IGNORECASE,
)


def plain_name(stem: str) -> str:
    """Return a name without the words at its end that every set of features has."""
    while (match := _SUFFIX.search(stem)) is not None and match.start() > 0:
        stem = stem[: match.start()]
    return stem


def natural_key(text: str) -> tuple[tuple[str, int], ...]:
    """Return a sort key under which ``part-10`` follows ``part-9``."""
    return tuple((word, int(number or 0)) for word, number in re.findall(r"(\D*)(\d*)", text))


def base_name(name: str) -> str:
    """Return the last part of a dataset path; for a run of columns what their names share."""
    last = name.rsplit("/", 1)[-1]
    return re.sub(r"[-_.]?\d+\.\.\S*$", "", last)


def never_features(name: str) -> bool:
    """Return whether an array of this name is taken as features only if the user names it."""
    return _NEVER.fullmatch(base_name(name)) is not None
