"""The pages that are written from the code: python tests/pages.py brings them up to date.

The map in CONTRIBUTING.md comes from the docstrings of the packages, recipes/SETTINGS.md from the settings themselves.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from curate.config.reference import as_markdown

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "recipes" / "SETTINGS.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
LINE = re.compile(r"^ {4}(\w+)\.py +(.+)$", re.MULTILINE)
MAP = re.compile(r"(?<=<!-- map -->\n).*?(?=<!-- /map -->)", re.DOTALL)


def package_docstrings() -> dict[str, str]:
    """Return the docstring of every package below curate/, by name."""
    files = sorted((ROOT / "curate").glob("*/__init__.py"))
    return {path.parent.name: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in files}


def file_map() -> str:
    """Return the map: every package with its first line, every module of it with what the package says of it."""
    lines = []
    for name, docstring in package_docstrings().items():
        lines += ["", f"**curate/{name}/** {docstring.partition(chr(10))[0]}", ""]
        lines += [f"* `{module}.py` {text}" for module, text in LINE.findall(docstring)]
    return "\n".join(lines).lstrip("\n") + "\n"


def write_pages() -> None:
    """Write both pages anew."""
    SETTINGS.write_text(as_markdown(), encoding="utf-8")
    text = CONTRIBUTING.read_text(encoding="utf-8")
    CONTRIBUTING.write_text(MAP.sub(lambda _: file_map(), text), encoding="utf-8")


if __name__ == "__main__":
    write_pages()
