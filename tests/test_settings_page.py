"""The pages written from the code are up to date, and the README leads to them."""

from __future__ import annotations

from pages import CONTRIBUTING, LINE, MAP, ROOT, SETTINGS, file_map, package_docstrings

from curate.config.reference import as_markdown, settings

STALE = "run: python tests/pages.py"


def test_the_settings_page_is_what_the_command_prints() -> None:
    assert SETTINGS.read_text(encoding="utf-8") == as_markdown(), STALE
    assert len(settings()) > 70
    assert "recipes/SETTINGS.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_package_docstring_names_every_module_once() -> None:
    swept = 0
    for package, docstring in package_docstrings().items():
        named = [module for module, _ in LINE.findall(docstring)]
        there = {path.stem for path in (ROOT / "curate" / package).glob("*.py")} - {"__init__"}
        assert sorted(named) == sorted(there), f"curate/{package}/__init__.py names other modules than there are"
        swept += len(named)
    assert swept > 100


def test_the_map_of_contributing_is_that_of_the_docstrings() -> None:
    found = MAP.findall(CONTRIBUTING.read_text(encoding="utf-8"))
    assert found == [file_map()], STALE
