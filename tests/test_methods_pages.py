"""The README's table of objectives and the list in docs/methods.md are those of the registry, whole.

They are written from it: ``python -m tests.test_methods_pages``.
"""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from pmrl_cli.methods import REGISTRY, method_class

ROOT = Path(__file__).parents[1]
NEEDS = {
    "labels": "classes of the instances: `--target COLUMN` of `--labels FILE`",
    "base_model": "a model to go on from: `--continue-from MODEL`",
    "unpaired": "no pairs: instances with a single modality train too",
}


def objectives_table():
    """The table of the README."""
    lines = ["| `--objective` | minimises | paper |", "|---|---|---|"]
    for name, entry in REGISTRY.items():
        default = " (default)" if name == "pmrl" else ""
        lines.append(f"| `{name}`{default} | {entry.summary} | {method_class(name).paper} |")
    return "\n".join(lines)


def methods_section():
    """A section for each method: what it is, where from, what it needs, what ``--set`` can change."""
    sections = []
    for name, entry in REGISTRY.items():
        cls = method_class(name)
        about = re.sub(r"``([^`]*)``", r"`\1`", inspect.cleandoc(cls.__doc__))
        about = about.partition("\nArgs:")[0].partition("\nSource:")[0].strip()
        lines = [f"### `{name}`", "", f"{entry.summary[0].upper()}{entry.summary[1:]}.", "", about, ""]
        lines += [f"Paper: {cls.paper}.", ""] if cls.paper else []
        lines += [f"Needs {NEEDS[need]}.\n" for need in sorted(cls.needs)]
        if not cls.closed_form_stands_in:
            lines += ["It is one member, and never the closed form that it starts from.", ""]
        if fields(cls.Settings):
            lines += ["| `--set` | default | what it is | range |", "|---|---|---|---|"]
        for field in fields(cls.Settings):
            low, high = field.metadata["low"], field.metadata["high"]
            bounds = [f"{word} {bound:g}" for word, bound in (("from", low), ("to", high)) if bound is not None]
            lines.append(f"| `{field.name}` | {field.default} | {field.metadata['help']} | {' '.join(bounds)} |")
        sections.append("\n".join(lines).strip())
    return "\n\n".join(sections)


PAGES = {"README.md": ("objectives", objectives_table), "docs/methods.md": ("methods", methods_section)}


def between(mark):
    return re.compile(rf"(?<=<!-- {mark} -->\n\n).*?(?=\n\n<!-- end of {mark} -->)", re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_the_page_lists_the_methods_of_the_registry(page):
    mark, written = PAGES[page]
    found = between(mark).search((ROOT / page).read_text(encoding="utf-8"))
    assert found is not None
    assert found[0] == written(), "run: python -m tests.test_methods_pages"


if __name__ == "__main__":
    for page, (mark, written) in PAGES.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        (ROOT / page).write_text(between(mark).sub(lambda _, of=written: of(), text), encoding="utf-8")
