"""FILES as typed, expanded to the single files and folders that are read as one."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from pmrl_cli.errors import DataError, Place, PmrlError, printable
from pmrl_cli.files.formats import registry
from pmrl_cli.files.formats.contents import FLOATS, Contents
from pmrl_cli.files.formats.layout import FEW, FRAMES, MANY
from pmrl_cli.files.formats.names import SPLIT_NAMES, natural_key, never_features, plain_name
from pmrl_cli.files.formats.probe import probe
from pmrl_cli.files.formats.store import EXPORT, STORE, check_unread, folder_format, space_of
from pmrl_cli.files.join.beside import names_ids
from pmrl_cli.files.join.items import Item, parse_spec
from pmrl_cli.files.join.naming import unsharded

__all__ = ["Report", "expand"]

Report = Callable[[PmrlError], None]
"""Takes an error: raises it, or keeps it so that the others are found too."""


_MOST_WORDS = 8
"""More words at the end of file names than this are no modalities."""


def expand(files: Sequence[str], report: Report, pool: str | None = None) -> tuple[list[Item], list[str]]:
    """Return the files and folders that FILES mean, and notes on what a folder held besides.

    A folder of a known format, a STORE for example, stays whole, and so does one with a file for each instance. Any
    other gives its direct files; an export gives the files of its modalities.

    Args:
        files: as typed.
        report: takes the errors of folders that hold nothing.
        pool: as in ``ReadOptions``: files that could be parts of one array are one for each instance if it is given.
    """
    items: list[Item] = []
    notes: list[str] = []
    for text in files:
        try:
            item = parse_spec(text)
            items += _folder(item, notes, pool) if item.path.is_dir() else [item]
        except PmrlError as error:
            report(error)
    return _gathered(list(dict.fromkeys(items)), notes, pool), notes


def _gathered(items: Sequence[Item], notes: list[str], pool: str | None) -> list[Item]:
    """Put files together that are one for each instance, as a shell lists them for ``image/*.npy``."""
    by_folder: dict[tuple[Path, str], list[Item]] = {}
    for item in items:
        if item.form is None and item.dataset is None and not item.path.is_dir():
            by_folder.setdefault((item.path.parent, item.path.suffix.lower()), []).append(item)
    gathered: dict[Item, Item | None] = {}
    for (folder, _), group in by_folder.items():
        files = [item.path for item in group]
        names = {item.name for item in group}
        if len(names) == 1 and _one_per_instance(files, pool):
            members = tuple(path.name for path in files)
            notes.append(_said(folder, len(files)))
            gathered |= dict.fromkeys(group, None)
            gathered[group[0]] = Item(folder, names.pop(), None, registry.PER_INSTANCE, members)
    return [found for item in items if (found := gathered.get(item, item)) is not None]


def _said(folder: Path, count: int) -> str:
    return printable(f"{folder.name or folder}: {count} files of one instance each, whose names are the ids.")


def _folder(item: Item, notes: list[str], pool: str | None) -> list[Item]:
    kind = folder_format(item.path)
    if kind not in (None, EXPORT, STORE):
        raise DataError(
            what="folder holds no features",
            at=Place(str(item.path)),
            found=f"a {kind} folder",
            expected="feature files, a store or an export",
            next_step="Name the features, not the model.",
        )
    if kind != EXPORT and registry.find(item.path) is not None:
        return [item]
    known = registry.suffixes(in_folders=True)
    direct = _files(item.path)
    features = [file for file in direct if file.suffix.lower() in known]
    if kind is None and item.dataset is None and _one_per_instance(features, pool):
        notes.append(_said(item.path, len(features)))
        return [Item(item.path, item.name, None, registry.PER_INSTANCE, tuple(file.name for file in features))]
    if kind is None and item.name is None and item.dataset is None and (words := _by_word(features)):
        notes += [_said(item.path / word, len(group)) for word, group in words.items()]
        return [
            Item(item.path, word, None, registry.PER_INSTANCE, tuple(file.name for file in group))
            for word, group in words.items()
        ]
    found = [Item(file, item.name, item.dataset) for file in features]
    inner = sorted(path for path in item.path.iterdir() if path.is_dir() and not path.name.startswith("."))
    if kind == EXPORT:
        found = _exported(item.path, direct, inner, known)
        check_unread(item.path, {entry.path for entry in found})
    elif (
        item.name is None and item.dataset is None and {one.path.stem for one in found} <= {one.name for one in inner}
    ):
        # Nothing, or a table beside each folder, as img2dataset writes them.
        return [*found, *_inner(item.path, inner, notes, pool)]
    else:
        whole = [path for path in inner if path.suffix.lower() in known and registry.find(path) is not None]
        found += [Item(path, item.name, item.dataset) for path in whole]
        inner = [path for path in inner if path not in whole]
        skipped = [file.name for file in direct if file.suffix.lower() not in known and not names_ids(file)]
        skipped += [f"{path.name}/" for path in inner]
        if skipped:
            shown = ", ".join(skipped[:5]) + (", …" if len(skipped) > 5 else "")
            notes.append(printable(f"skipped in {item.path}: {shown}."))
    if not found:
        raise _nothing(item.path)
    return found


def _exported(export: Path, direct: Sequence[Path], inner: Sequence[Path], known: Collection[str]) -> list[Item]:
    """Return the modalities of an export: what is fused from them, and what one has besides, are none themselves."""
    names = space_of(export)
    alone = [
        Item(file, None, "d*" if file.suffix == ".csv" else None) for file in direct if unsharded(file.stem) in names
    ]
    parts = [Item(file, folder.name) for folder in inner if folder.name in names for file in _files(folder)]
    wide = [path for path in (*direct, *inner) if unsharded(path.stem) == "aligned" and "aligned" not in names]
    columns = [Item(path, name, name) for path in wide for name in names]
    return [item for item in (*alone, *parts, *columns) if item.path.suffix.lower() in known]


def _inner(folder: Path, inner: Sequence[Path], notes: list[str], pool: str | None) -> list[Item]:
    """Return what the folders in one without files of its own give: as if they had been typed."""
    known = registry.suffixes(in_folders=True)
    filled = [
        path
        for path in inner
        if registry.find(path) is not None or any(file.suffix.lower() in known for file in _files(path))
    ]
    if not filled:
        deeper = [path for one in inner for path in sorted(one.iterdir()) if path.is_dir()]
        filled = [path for path in deeper if any(file.suffix.lower() in known for file in _files(path))]
    if not filled:
        raise _nothing(folder)
    made = [path for path in filled if folder_format(path) is not None]  # by pmrl, perhaps of what lies beside it
    if len(made) < len(filled):
        filled = [path for path in filled if path not in made]
        notes += [printable(f"skipped in {folder}: {path.name}/, which pmrl wrote.") for path in made]
    if by_name := _by_file_name(filled):
        notes += [_said(folder / name, len(group)) for name, group in by_name.items()]
        return [
            Item(folder, plain_name(Path(name).stem), None, registry.PER_INSTANCE, tuple(group))
            for name, group in by_name.items()
        ]
    if classed := _in_classes(filled):
        notes.append(_said(folder, len(classed)))
        return [Item(folder, None, None, registry.PER_INSTANCE, tuple(classed))]
    notes.append(printable(f"read in {folder.name}: {', '.join(f'{path.name}/' for path in filled[:8])}."))
    return [entry for path in filled for entry in _folder(Item(path), notes, pool)]


def _by_word(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return files of one instance and one modality each, as ``v1_rgb`` and ``v1_flow``, by the modality.

    Empty if they are not: if some have no such word, or if a word has too few files.
    """
    groups: dict[str, list[Path]] = {}
    for file in files:
        match = re.fullmatch(r".+[-_.]([A-Za-z]\w*)", file.stem)
        if match is None or len(groups) > _MOST_WORDS:
            return {}
        groups.setdefault(match[1], []).append(file)
    alike = len(groups) > 1 and all(_one_per_instance(group) for group in groups.values())
    return groups if alike and len(groups) <= _MOST_WORDS else {}


def _by_file_name(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Return the files of folders of one instance each, in which few names come back, by these names."""
    if len(folders) < FEW:
        return {}
    groups: dict[str, list[str]] = {}
    known = registry.suffixes(in_folders=True)
    for folder in folders:
        for file in _files(folder):
            if file.suffix.lower() in known:
                groups.setdefault(file.name, []).append(f"{folder.name}/{file.name}")
    top = folders[0].parent
    few = len(groups) <= min(_MOST_WORDS, len(folders) - 1)
    return groups if few and all(_one_per_instance([top / one for one in of]) for of in groups.values()) else {}


def _in_classes(folders: Sequence[Path]) -> list[str]:
    """Return the files of folders of one modality that hold other instances each, such as one for each class.

    Empty if they are not: if a folder is one of a split, or if names come back, as those of modalities do.
    """
    known = registry.suffixes(in_folders=True)
    files = [file for folder in folders for file in _files(folder) if file.suffix.lower() in known]
    stems = {file.stem for file in files}
    if len(folders) < 2 or len(stems) < len(files) or {one.name.lower() for one in folders} & set(SPLIT_NAMES):
        return []
    counted = all(file.stem.isdigit() for file in files)  # shards 0, 1 of one folder and 2, 3 of another
    alike = not counted and all(len(_files(one)) > 1 for one in folders) and _one_per_instance(files)
    return [str(file.relative_to(folders[0].parent)) for file in files] if alike else []


def _nothing(folder: Path) -> DataError:
    return DataError(
        what="folder holds no feature file",
        at=Place(str(folder)),
        found="no file of a known kind directly in it",
        expected=f"one of {', '.join(registry.suffixes())}",
        next_step="Name a folder of feature files.",
    )


def _files(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if not path.is_dir() and not path.name.startswith(".")]
    return sorted(files, key=lambda path: natural_key(path.name))


def _one_per_instance(files: Sequence[Path], pool: str | None = None) -> bool:
    """Return whether files are one for each instance, by what some of them hold.

    They are if all are of one suffix and one width, hold a single array of floats and no ids, and either that array
    is of one row, or there are more than a dozen that do not count up as shards do.
    """
    if len(files) < FEW or len({file.suffix.lower() for file in files}) > 1:
        return False
    files = sorted(files, key=lambda file: natural_key(str(file)))
    looked_at = {0, len(files) // 4, len(files) // 2, 3 * len(files) // 4, len(files) - 1}
    sizes = set()
    for index in sorted(looked_at):
        try:
            sizes.add(_instance_in(probe(files[index])))
        except (PmrlError, OSError):
            return False
    if None in sizes or len({size[1] for size in sizes if size}) > 1:
        return False
    lengths = {size[0] for size in sizes if size}
    frames = pool is not None and len(lengths) == 1 and max(lengths) <= FRAMES
    return lengths == {1} or (len(files) > MANY and (frames or not _counts_up(files, lengths)))


def _counts_up(files: Sequence[Path], lengths: set[int]) -> bool:
    matches = [re.fullmatch(r"(.*?)(\d+)", unsharded(file.stem)) for file in files]
    if any("-of-" in file.stem for file in files):
        return True
    if None in matches or len({match[1] for match in matches if match}) > 1 or len(lengths) > 2:
        return False
    numbers = sorted(int(match[2]) for match in matches if match)
    return numbers[0] <= 1 and numbers[-1] - numbers[0] == len(numbers) - 1


def _instance_in(contents: Contents) -> tuple[int, int] | None:
    """Return (t, d) of the one array of floats of a file without ids, None if it holds something else."""
    arrays = [one for one in contents.vectors if one.dtype in FLOATS and not never_features(one.name or "")]
    if any(one.nameable for one in contents.columns) or contents.unpooled or any(one.ids for one in arrays):
        return None
    if len(arrays) == 1:
        return arrays[0].rows, arrays[0].dim
    flat = [one for one in contents.columns if not never_features(one.name)]
    return (1, flat[0].rows) if not arrays and len(flat) == 1 and flat[0].rows > 1 else None
