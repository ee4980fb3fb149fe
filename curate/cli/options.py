"""What verbs take on the command line: words, options, and the recipe that the words name."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curate.cli import terminal

if TYPE_CHECKING:
    from curate.config import Recipe

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE.yaml] [section.key=value ...]", help="A recipe, and settings that change it."),
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
# A shell does not expand ~ in --html=~/page.html, so it is done here.
Page = Annotated[
    Path | None,
    typer.Option("--html", help="Write a page to this file.", parser=lambda text: Path(expanduser(text))),
]
Count = Annotated[int, typer.Option("--n", min=1, help="Records to show.")]
Rows = Annotated[list[int] | None, typer.Option("--row", min=0, help="A row to show instead; may repeat.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]
NameA = Annotated[str, typer.Argument(metavar="A", help="A selection.")]
NameB = Annotated[str, typer.Argument(metavar="B", help="Another one.")]
Section = Annotated[str | None, typer.Argument(metavar="[SECTION]", help="run, data, ...; all if left out.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="As a page.")]
RecipeName = Annotated[str | None, typer.Argument(metavar="[NAME]", help="A recipe to print.")]


def recipe_from(words: Sequence[str] | None, *own: str) -> Recipe:
    """Return the recipe that the words of a command name; end the command with a message if they are wrong.

    `own` are the files of a run folder in which its recipe is looked for, if the words name no other.
    """
    with terminal.outcome():
        from curate.cli.recipes import recipe_of  # loads pydantic, which `curate --help` does without

        return recipe_of(words or [], own=own or ("recipe.yaml",))
    raise AssertionError
