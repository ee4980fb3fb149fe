"""Lets a person call the pipeline from a shell. The only room that prints.

In reading order:

    recipes.py   finds the recipe that the words of a command name; lists the shipped ones
    sections.py  says which sections of a recipe a verb reads
    terminal.py  prints lines, warnings, progress bars and error messages; turns errors into exit codes
    rates.py     progress in words: how far, how fast, how long
    notebook.py  shows progress in the cell of a notebook
    tables.py    prints the table of a comparison
    pages.py     prints previews and differences, as text, JSON or pages
    estimates.py prints estimates and what the doctor finds

The verbs and their help stand below.
"""

from __future__ import annotations

from collections.abc import Sequence
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curate.cli import terminal
from curate.cli.sections import epilog
from curate.cli.terminal import say

if TYPE_CHECKING:
    from curate.config import Recipe
    from curate.pipeline import Verb

app = typer.Typer(
    help="Picks, from an instruction-tuning data set, the tenth that is worth training on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE.yaml] [section.key=value ...]", help="A recipe, and settings that change it."),
]
_Json = Annotated[bool, typer.Option("--json", help="For programs.")]
_Page = Annotated[
    Path | None,
    typer.Option("--html", help="Write a page to this file.", parser=lambda text: Path(expanduser(text))),
]
_ANY_WORD = {"ignore_unknown_options": True}  # --data.path=x is answered with how a setting is written


@app.callback(invoke_without_command=True)
def _curate(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        import curate

        say(f"curate {curate.__version__}")
        raise typer.Exit


@app.command(epilog=epilog("run"), context_settings=_ANY_WORD)
def run(words: _Words = None) -> None:
    """Score, embed, select and train. Finished stages are skipped."""
    recipe = _recipe(words)
    _perform("run", recipe)
    with terminal.outcome():
        from curate.cli.tables import show_worth

        show_worth(recipe)


@app.command(epilog=epilog("score"), context_settings=_ANY_WORD)
def score(words: _Words = None) -> None:
    """Score the learning complexity of every record: scores.parquet."""
    _perform("score", _recipe(words))


@app.command(epilog=epilog("embed"), context_settings=_ANY_WORD)
def embed(words: _Words = None) -> None:
    """Embed and cluster the records: embeddings.npy, clusters.parquet."""
    _perform("embed", _recipe(words))


@app.command(epilog=epilog("select"), context_settings=_ANY_WORD)
def select(words: _Words = None) -> None:
    """Choose records from finished scores, in moments: selections/NAME."""
    _perform("select", _recipe(words))


@app.command(epilog=epilog("train"), context_settings=_ANY_WORD)
def train(words: _Words = None) -> None:
    """Train a LoRA adapter on a selection: selections/NAME/adapter."""
    _perform("train", _recipe(words))


@app.command(epilog=epilog("evaluate"), context_settings=_ANY_WORD)
def evaluate(words: _Words = None) -> None:
    """Measure response loss and tasks, untuned and with the adapter: selections/NAME/evaluation.json."""
    _perform("evaluate", _recipe(words))


@app.command(epilog=epilog("compare"), context_settings=_ANY_WORD)
def compare(words: _Words = None) -> None:
    """Compare selectors by training on what each keeps: comparison.json. Finished cells are skipped."""
    recipe = _recipe(words)
    _perform("compare", recipe)
    with terminal.outcome():
        from curate.cli.tables import show_comparison

        show_comparison(Path(recipe.run.dir))


@app.command(epilog=epilog("report"), context_settings=_ANY_WORD)
def report(words: _Words = None) -> None:
    """Write a page about a run that opens from disk: report.html."""
    recipe = _recipe(words)
    with terminal.outcome():
        from curate.pipeline import open_job
        from curate.pipeline.pages import write_report

        with open_job("report", recipe, begin=False) as job:
            say(f"report: {write_report(job)}")


@app.command(epilog=epilog("preview"), context_settings=_ANY_WORD)
def preview(
    words: _Words = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Records to show.")] = 3,
    row: Annotated[list[int] | None, typer.Option("--row", min=0, help="A row to show instead; may repeat.")] = None,
    as_json: _Json = False,
    html: _Page = None,
) -> None:
    """Show exactly which tokens are scored, before anything is paid."""
    recipe = _recipe(words)
    with terminal.outcome():
        from curate.cli.pages import show_preview

        show_preview(recipe, count=n, rows=row or [], as_json=as_json, html=html)


@app.command()
def diff(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    name_a: Annotated[str, typer.Argument(metavar="A", help="A selection.")],
    name_b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    html: _Page = None,
) -> None:
    """Show how two selections of a run differ, with texts."""
    recipe = _recipe([f"run.dir={run_dir}"])
    with terminal.outcome():
        from curate.cli.pages import show_diff

        show_diff(recipe, name_a, name_b, html=html)


@app.command(context_settings=_ANY_WORD)
def demo(words: _Words = None) -> None:
    """Do everything on the embedded model and data; settings may be changed as for run."""
    from curate.demo.report import demo_recipe, flaw_lines

    with terminal.outcome():
        recipe = demo_recipe(words or [])
    _perform("run", recipe)
    for line in flaw_lines(Path(recipe.run.dir), recipe.select.name):
        say(line)


@app.command(epilog=epilog("estimate"), context_settings=_ANY_WORD)
def estimate(words: _Words = None, as_json: _Json = False) -> None:
    """Say what a run will take, from a probe of seconds: records, tokens, time, memory. Beside the truth if it ran."""
    recipe = _recipe(words)
    with terminal.outcome():
        from curate.cli.estimates import show_estimate

        show_estimate(recipe, as_json=as_json)


@app.command(epilog=epilog("doctor"), context_settings=_ANY_WORD)
def doctor(words: _Words = None) -> None:
    """Prove that model.name=M is scored correctly on this machine: a pass, fail or note a line; exit 2 if one fails."""
    recipe = _recipe(words)
    with terminal.outcome():
        from curate.cli.estimates import show_examination

        show_examination(recipe)


@app.command()
def settings(
    section: Annotated[str | None, typer.Argument(metavar="[SECTION]", help="run, data, ...; all if left out.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a page.")] = False,
) -> None:
    """List every setting, its default and what it does."""
    from curate.config import reference

    with terminal.outcome():
        if markdown:
            say(reference.as_markdown(), end="")
            return
        for setting in reference.settings(section):
            say(f"{setting.key} = {setting.default}")
            say(f"    {setting.description} ({setting.values})")


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A recipe to print.")] = None) -> None:
    """List the shipped recipes, or print one to start from."""
    from curate.cli.recipes import shipped_recipe, shipped_recipes

    with terminal.outcome():
        if name is not None:
            say(shipped_recipe(name), end="")
            return
        for stem, text in shipped_recipes().items():
            say(f"{stem:<16} {text.partition(chr(10))[0].lstrip('# ')}")


def main(words: Sequence[str]) -> int:
    """Run the command line on `words`; returns the exit code."""
    try:
        if words and (words[0].endswith(".yaml") or "." in words[0].partition("=")[0]):
            terminal.fail(f"expected what to do before {words[0]!r}, such as curate run {words[0].lstrip('-')}", 2)
        return int(app(list(words), prog_name="curate", standalone_mode=True) or 0)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except typer.Exit as stop:
        return stop.exit_code


def _recipe(words: Sequence[str] | None) -> Recipe:
    with terminal.outcome():
        from curate.cli.recipes import recipe_of

        return recipe_of(words or [])
    raise AssertionError


def _perform(verb: Verb, recipe: Recipe) -> None:
    with terminal.outcome(), terminal.progress() as progress:
        from curate.pipeline import perform

        perform(verb, recipe, progress=progress)


__all__ = ["app", "main"]
