"""The command line: verbs, help, progress, error lines, exit codes. The only module that prints.

Exit 0 done; 2 a person's mistake or a limit of the machine (one or two lines on stderr); 1 a fault of ours (with
traceback); 130 interrupted, with the command that resumes.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curate.types import CurateError

if TYPE_CHECKING:
    from curate.config import Recipe
    from curate.pipeline import Verb

app = typer.Typer(
    help="Picks, from an instruction-tuning data set, the tenth that is worth training on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE.yaml] [section.key=value ...]", help="A recipe, and settings that change it."),
]
_OVERRIDE = re.compile(r"[a-z_]+\.[A-Za-z_.]+=")


@app.command()
def run(words: _Words = None) -> None:
    """Score, embed, select and train; a second call does nothing twice."""
    _perform("run", _recipe(words))


@app.command()
def score(words: _Words = None) -> None:
    """Learning complexity of every record: scores.parquet."""
    _perform("score", _recipe(words))


@app.command()
def embed(words: _Words = None) -> None:
    """Embed and cluster the records: embeddings.npy, clusters.parquet."""
    _perform("embed", _recipe(words))


@app.command()
def select(words: _Words = None) -> None:
    """Choose records from finished scores, in moments: selections/NAME."""
    _perform("select", _recipe(words))


@app.command()
def train(words: _Words = None) -> None:
    """Train a LoRA adapter on a selection: selections/NAME/adapter."""
    _perform("train", _recipe(words))


@app.command()
def demo(words: _Words = None) -> None:
    """Everything, on the embedded model and data; settings may be changed as for run."""
    from curate.demo.report import demo_recipe, flaw_lines

    with _outcome():
        recipe = demo_recipe(words or [])
    _perform("run", recipe)
    for line in flaw_lines(Path(recipe.run.dir), recipe.select.name):
        print(line)


@app.command()
def doctor(words: _Words = None) -> None:
    """Prove that model.name=M is scored correctly on this machine."""
    from curate.models.load import load_model
    from curate.scoring.exits import exit_layers
    from curate.scoring.parts import find_parts
    from curate.scoring.selftest import prefix_check, run_checks

    recipe = _recipe(words)
    with _outcome():
        model = load_model(**recipe.model.model_dump(exclude={"allow_tokens"}))
        parts = find_parts(model)
        tail = ", ".join(type(module).__name__ for module in parts.tail) or "nothing"
        print(f"{type(parts.model).__name__}, {model.num_parameters():,} parameters, {model.dtype}, {parts.device}")
        layers = exit_layers(recipe.score.exits, parts.num_layers)
        print(f"{parts.num_layers} layers, then {tail}, then the LM head; exits {list(layers)}")
        checks = run_checks(parts, layers)
        for check in checks:
            verdict = "ok" if check.passed else "FAILED"
            print(f"{verdict:>6}  {check.name}: {check.error:.2g} nats, allowed {check.tolerance:g}")
        if not all(check.passed for check in checks):
            raise CurateError(f"{recipe.model.name} would be scored wrongly")
        prefixes = prefix_check(parts)
        verdict, unless = ("ok", "") if prefixes.passed else ("no", "; so every record is computed whole")
        print(f"{verdict:>6}  {prefixes.name}: {prefixes.error:.2g} nats, allowed {prefixes.tolerance:g}{unless}")


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A recipe to print.")] = None) -> None:
    """List the shipped recipes, or print one to start from."""
    folder = Path(__file__).parent / "recipes"
    shipped = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yaml"))}
    with _outcome():
        if name is None:
            for stem, text in shipped.items():
                print(f"{stem:<16} {text.partition(chr(10))[0].lstrip('# ')}")
        elif name in shipped:
            print(shipped[name], end="")
        else:
            raise CurateError(f"expected one of {', '.join(shipped)}, got {name!r}")


def main(words: Sequence[str]) -> int:
    """Run the command line on `words`; returns the exit code."""
    try:
        return int(app(list(words), prog_name="curate", standalone_mode=True) or 0)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


def _recipe(words: Sequence[str] | None) -> Recipe:
    """The recipe that the words name: a file first, or else the run folder's own if no data is named."""
    from curate.config import load_recipe

    with _outcome():
        words = list(words or [])
        path = words.pop(0) if words and not _OVERRIDE.match(words[0]) else None
        recipe = load_recipe(path, words)
        own = Path(recipe.run.dir) / "recipe.yaml"
        if path is None and not recipe.data.path and not recipe.model.name and own.exists():
            recipe = load_recipe(own, words)
        return recipe
    raise AssertionError


def _perform(verb: Verb, recipe: Recipe) -> None:
    with _outcome(), _progress() as progress:
        from curate.pipeline import perform

        perform(verb, recipe, progress=progress)


@contextmanager
def _outcome() -> Iterator[None]:
    """Turn the ways a command can end into lines and exit codes."""
    from curate.run.atomic import DISK_FULL

    _log_to_terminal()
    try:
        yield
    except CurateError as error:
        _fail(str(error), 2)
    except TimeoutError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        command = shlex.join(["curate", *sys.argv[1:]])
        launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
        how = " the same accelerate launch, or on one process" if launched else ""
        _fail(f"interrupted; what is finished is kept. Continue with{how}:\n  {command}", 130)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        what = f"{DISK_FULL[error.errno]} ({error.filename or error})"
        _fail(f"{what}; what is finished is kept. Make room, and the same command continues", 2)


def _fail(message: str, code: int) -> None:
    rank = os.environ.get("RANK", "0")
    who = "" if rank == "0" else f" (process {rank})"
    print(f"curate{who}: {_printable(message)}", file=sys.stderr)
    raise typer.Exit(code)


def _printable(text: str) -> str:
    """Text without terminal escapes: control characters become visible, line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class _Lines(logging.Handler):
    """Stage lines to stdout, warnings to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        warning = record.levelno >= logging.WARNING
        text = _printable(record.getMessage())
        print(f"warning: {text}" if warning else text, file=sys.stderr if warning else sys.stdout, flush=True)


def _log_to_terminal() -> None:
    # It warns, when anything imports it, of optional kernels that are not installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    logger = logging.getLogger("curate")
    if not logger.handlers:
        logger.addHandler(_Lines())
        logger.setLevel(logging.INFO)
        logger.propagate = False


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int | None, str], None]]:
    """One bar per stage, on stderr, if that is a terminal and this the main process."""
    if not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        yield lambda stage, done, total, unit: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} {task.fields[unit]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def show(stage: str, done: int, total: int | None, unit: str) -> None:
            if stage not in tasks:
                for task in tasks.values():
                    bars.remove_task(task)
                tasks.clear()
                tasks[stage] = bars.add_task(stage, total=total, unit=unit)
            bars.update(tasks[stage], completed=done, total=total)

        yield show
