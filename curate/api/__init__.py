"""Lets a person call the pipeline from Python: `curate.run`, `curate.open` and the `Run` that both return.

In reading order:

    begin.py    curate.run: records, in memory or in files, to a run
    records.py  records in memory, one by one
    opened.py   a run folder as an object: its tables, its kept records, further selections
    bars.py     where progress is shown

Beside `cli` it is the second door to the pipeline; it shows the bars that the first one shows.
"""

from curate.api.begin import run
from curate.api.opened import Run, SelectSettings, open

__all__ = ["Run", "SelectSettings", "open", "run"]
