"""Shows progress in a terminal: one bar, one line, whatever the width; else a line every 30 seconds."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from curate.cli.rates import Rates

_LONGEST_BAR, _SHORTEST_BAR = 40, 8
_SECONDS_BETWEEN_LINES = 30.0


class _Line(ProgressColumn):
    """The stage, a bar where there is room for one, and facts: what there is no room for is left out, the ETA last."""

    def __init__(self, console: Console, rates: Rates) -> None:
        self._console = console
        self._rates = rates
        super().__init__()

    def render(self, task: Task) -> Table:
        """Return the line for the terminal as wide as it is now; called several times a second."""
        width = self._console.width - 1  # a terminal that gets narrower wraps a full line, and a part of it stays
        total = task.fields["of"]
        facts = self._rates.facts(total, task.fields["unit"])
        stage = Text(task.description, no_wrap=True)
        while len(facts) > 1 and min(len(stage), width // 2) + 1 + len(", ".join(facts)) > width:
            facts.pop(-2)  # the last is the time
        text = ", ".join(facts)
        stage.truncate(max(width - len(text) - 1, 0), overflow="ellipsis")
        line = Table.grid(padding=(0, 1, 0, 0))
        cells: list[Text | ProgressBar] = [stage]
        room = min(width - len(stage) - len(text) - 2, _LONGEST_BAR)
        if room >= _SHORTEST_BAR:
            cells.append(ProgressBar(total or None, task.completed, width=room, pulse=not total))
        line.add_row(*cells, Text(text, no_wrap=True))
        return line


@contextmanager
def bar() -> Iterator[Callable[[str, int, int | None, str], None]]:
    """Give a function that shows progress as one line at the end of the terminal, gone when all is done."""
    rates, console = Rates(), Console(stderr=True)
    # rich prints above the bar what goes to stdout; of a stdout that is a file it would take the lines away.
    shared = sys.stdout.isatty()
    with Progress(_Line(console, rates), console=console, transient=True, redirect_stdout=shared) as bars:
        task = bars.add_task("starting", unit="", of=None)

        def show(stage: str, done: int, total: int | None, unit: str) -> None:
            rates.update(stage, done)
            # The total is a field of ours: rich takes None for "as before", so a stage would show that of the last one.
            bars.update(task, description=stage, completed=done, unit=unit, of=total)

        show("starting", 0, None, "")
        yield show


@contextmanager
def lines(say: Callable[[str], None]) -> Iterator[Callable[[str, int, int | None, str], None]]:
    """Give a function that takes progress in; every 30 seconds `say` is called with a line, also in a silent stage."""
    rates, over = Rates(), threading.Event()
    now: tuple[int | None, str] = (None, "")
    rates.update("starting", 0)

    def show(stage: str, done: int, total: int | None, unit: str) -> None:
        nonlocal now
        rates.update(stage, done)
        now = (total, unit)

    def tell() -> None:
        while not over.wait(_SECONDS_BETWEEN_LINES):
            say(rates.line(*now))

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield show
    finally:
        over.set()
        thread.join()
