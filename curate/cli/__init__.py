"""Lets a person call the pipeline from a shell. The only room that prints.

The verbs are functions, and the lists at the end of this file say which there are. In reading order:

    stage_verbs.py  the verbs that run stages: run, score, embed, select, train, evaluate, compare
    other_verbs.py  the other verbs: report, preview, diff, demo, estimate, doctor, settings, recipes
    options.py   what verbs take on the command line
    recipes.py   finds the recipe that the words of a command name; lists the shipped ones
    sections.py  says which sections of a recipe a verb reads
    terminal.py  prints lines, warnings, progress bars and error messages; turns errors into exit codes
    rates.py     says how far a stage is, how fast it is, and how long it will take
    bars.py      shows progress in a terminal as one line, elsewhere as a line now and then
    notebook.py  shows progress in the cell of a notebook
    tables.py    prints the table of a comparison
    pages.py     prints previews and differences, as text, JSON or pages
    estimates.py prints estimates and what the doctor finds
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from curate.cli import other_verbs, stage_verbs, terminal
from curate.cli.sections import READS, epilog
from curate.cli.terminal import say

app = typer.Typer(
    help="Picks, from an instruction-tuning data set, the tenth that is worth training on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _curate(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        say(f"curate {version_of('lc-curate')}")
        raise typer.Exit


def main(words: Sequence[str]) -> int:
    """Run the command line on `words`, and return the exit code."""
    try:
        # A recipe or a setting in the place of the verb: typer would only say that there is no such command.
        if words and (words[0].endswith(".yaml") or "." in words[0].partition("=")[0]):
            terminal.fail(f"expected what to do before {words[0]!r}, such as curate run {words[0].lstrip('-')}", 2)
        return int(app(list(words), prog_name="curate", standalone_mode=True) or 0)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except typer.Exit as stop:
        return stop.exit_code


# In the order of `curate --help`. A new verb is a function in one of these two modules and a name here.
_VERBS = (
    stage_verbs.run,
    stage_verbs.score,
    stage_verbs.embed,
    stage_verbs.select,
    stage_verbs.train,
    stage_verbs.evaluate,
    stage_verbs.compare,
    other_verbs.report,
    other_verbs.preview,
    other_verbs.diff,
    other_verbs.demo,
    other_verbs.estimate,
    other_verbs.doctor,
    other_verbs.settings,
    other_verbs.recipes,
)
_WITHOUT_SETTINGS = {"diff", "settings", "recipes"}

for _verb in _VERBS:
    _name = _verb.__name__
    app.command(
        epilog=epilog(_name) if _name in READS else None,
        # An unknown option such as --data.path=x is passed on, and answered with how a setting is written.
        context_settings=None if _name in _WITHOUT_SETTINGS else {"ignore_unknown_options": True},
    )(_verb)

__all__ = ["app", "main"]
