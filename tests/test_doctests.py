"""Every example in a docstring of the package is run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import curate


def test_every_example_of_every_docstring_is_true() -> None:
    names = [m.name for m in pkgutil.walk_packages(curate.__path__, "curate.") if not m.name.endswith("__main__")]
    results = {name: doctest.testmod(importlib.import_module(name)) for name in names}
    assert not [name for name, result in results.items() if result.failed]
    assert len(names) > 70
    assert sum(result.attempted for result in results.values()) >= 15
