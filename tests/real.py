"""Real data and models from the folder `shared` beside a checkout, where there is one; how many tests used them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

USED: set[str] = set()
"""Names of the tests that read something real."""


def real(name: str) -> Path:
    """A file or folder of `shared`; the test is skipped, with the reason, where it is not there."""
    path = Path(__file__).parents[1].parent / "shared" / name
    if not path.exists():
        pytest.skip(f"shared/{name} is not beside this checkout")
    USED.add(os.environ["PYTEST_CURRENT_TEST"].split(" ")[0])
    return path
