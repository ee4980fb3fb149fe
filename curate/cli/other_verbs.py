"""The other verbs: to look at a run, to look ahead, to try the package, to look up settings.

The docstring of a verb is its help.
"""

from __future__ import annotations

from pathlib import Path

from curate.cli import terminal
from curate.cli.options import (
    Count,
    Json,
    Markdown,
    NameA,
    NameB,
    Page,
    RecipeName,
    Rows,
    RunDir,
    Section,
    Words,
    recipe_from,
)
from curate.cli.stage_verbs import perform_stages
from curate.cli.terminal import say


def report(words: Words = None) -> None:
    """Write a page about a run that opens from disk: report.html."""
    recipe = recipe_from(words)
    with terminal.outcome():
        from curate.pipeline import open_job
        from curate.pipeline.pages import write_report

        with open_job("report", recipe, begin=False) as job:
            say(f"report: {write_report(job)}")


def preview(words: Words = None, n: Count = 3, row: Rows = None, as_json: Json = False, html: Page = None) -> None:
    """Show exactly which tokens are scored, before anything is paid."""
    recipe = recipe_from(words)
    with terminal.outcome():
        from curate.cli.pages import show_preview

        show_preview(recipe, count=n, rows=row or [], as_json=as_json, html=html)


def diff(run_dir: RunDir, name_a: NameA, name_b: NameB, html: Page = None) -> None:
    """Show how two selections of a run differ, with texts."""
    recipe = recipe_from([f"run.dir={run_dir}"])  # the recipe.yaml of that folder
    with terminal.outcome():
        from curate.cli.pages import show_diff

        show_diff(recipe, name_a, name_b, html=html)


def demo(words: Words = None) -> None:
    """Do everything on the embedded model and data; settings may be changed as for run."""
    # Imports stand inside the functions, so that `curate --help` is answered without loading torch.
    from curate.demo.report import demo_recipe, flaw_lines

    with terminal.outcome():
        recipe = demo_recipe(words or [])
    perform_stages("run", recipe)
    for line in flaw_lines(Path(recipe.run.dir), recipe.select.name):
        say(line)


def estimate(words: Words = None, as_json: Json = False) -> None:
    """Say what a run will take, from a probe of seconds: records, tokens, time, memory. Beside the truth if it ran."""
    recipe = recipe_from(words)
    with terminal.outcome():
        from curate.cli.estimates import show_estimate

        show_estimate(recipe, as_json=as_json)


def doctor(words: Words = None) -> None:
    """Prove that model.name=M is scored correctly on this machine: a pass, fail or note a line; exit 2 if one fails."""
    recipe = recipe_from(words)
    with terminal.outcome():
        from curate.cli.estimates import show_examination

        show_examination(recipe)


def settings(section: Section = None, markdown: Markdown = False) -> None:
    """List every setting, its default and what it does."""
    from curate.config import reference

    with terminal.outcome():
        if markdown:
            say(reference.as_markdown(), end="")
            return
        for setting in reference.settings(section):
            say(f"{setting.key} = {setting.default}")
            say(f"    {setting.description} ({setting.values})")


def recipes(name: RecipeName = None) -> None:
    """List the shipped recipes, or print one to start from."""
    from curate.cli.recipes import shipped_recipe, shipped_recipes

    with terminal.outcome():
        if name is not None:
            say(shipped_recipe(name), end="")
            return
        for stem, text in shipped_recipes().items():
            say(f"{stem:<16} {text.partition(chr(10))[0].lstrip('# ')}")
