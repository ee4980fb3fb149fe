"""The README: its Python runs as it stands, its pictures are there and small, its links lead to something."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import curate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
PNG = b"\x89PNG\r\n\x1a\n"


def code(title: str) -> str:
    """The lines of code below a heading."""
    section = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return dedent("\n".join(line for line in section.splitlines() if line.startswith("    ") or not line)).strip()


def test_its_python_runs_as_it_stands(workplace: Path) -> None:
    """On small models that stand in folders of the names that it says."""
    for name, folder in {"Qwen/Qwen2.5-0.5B": "llama", "sentence-transformers/all-MiniLM-L6-v2": "embedder"}.items():
        shutil.copytree(folder, name)
    names: dict[str, Any] = {}
    text = code("From Python")
    assert text.count("\n") >= 10
    exec(text, names)
    assert len(names["scores"]) == 80
    assert len(names["kept"]) == 8
    assert len(names["five"]) == 4
    assert names["run"].path == Path("runs/memory")
    assert len(names["run"].kept()) == 3
    assert curate.open("runs/python").selections() == ["five", "main"]


def test_its_pictures_are_there_small_and_described() -> None:
    pictures = PICTURE.findall(README)
    assert sorted(path for _, path in pictures) == ["notebooks/images/preview.png", "notebooks/images/report.png"]
    for text, path in pictures:
        assert len(text.split()) > 8, path
        picture = (ROOT / path).read_bytes()
        assert picture.startswith(PNG), path
        assert len(picture) < 200_000, path


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_to_something(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+?)\)", (ROOT / page).read_text(encoding="utf-8"))
    inside = [link for link in links if "://" not in link]
    assert inside or page != "README.md"
    assert [link for link in inside if not (ROOT / link).exists()] == []
