"""Runs the pipeline from Python: `curate.run`, `curate.open`, and the `Run` that both return.

Only this package and `cli` call the pipeline; both show the same progress bars. In reading order:

    begin.py    curate.run: makes a run from records in memory or in files
    records.py  yields records in memory one by one
    opened.py   curate.open and Run: tables of a run, its kept records, further selections
    bars.py     chooses where progress is shown
"""

from curate.api.begin import run
from curate.api.opened import Run, SelectSettings, open

__all__ = ["Run", "SelectSettings", "open", "run"]
