"""What stands beside a LoRA adapter, so that somebody else can use it as it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curate.config import Train
from curate.models.names import published_name
from curate.publish.texts import environment
from curate.tokens.prompts import alpaca, plain
from curate.types import Example, Template, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ASK = "{instruction}"
"""Stands for the question while the prompt is written."""


def write_adapter_files(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    base: str,
    template: Template,
    settings: Train,
    system: str | None = None,
) -> None:
    """Write the tokenizer, its chat template and README.md into the folder of an adapter.

    README.md has the prompt format as a few lines of code that run. A base from the hub is found by PEFT itself; for a
    local one those lines say where to put its path.

    Args:
        folder: of the adapter, as `train_adapter` leaves it.
        tokenizer: of the model that was trained.
        base: the model that was trained, as the person named it.
        template: in which it was trained.
        settings: with which it was trained.
        system: prompt.system, if it was set.
    """
    base = published_name(base)
    tokenizer.save_pretrained(folder)
    readme = (
        environment()
        .get_template("adapter.md.jinja")
        .render(
            base=base,
            name=Path(base).name,
            is_local=base.startswith("."),
            settings=settings,
            template=template,
            system=system,
            prompt=_prompt(template, system),
        )
    )
    (folder / "README.md").write_text(readme, encoding="utf-8")


def _prompt(template: Template, system: str | None) -> tuple[str, str] | None:
    """The text before a question and the text between it and a response; None under chat: the tokenizer writes them."""
    if template == "chat":
        return None
    turns = (Turn("user", _ASK), Turn("assistant", ""))
    rendered = (alpaca if template == "alpaca" else plain)(Example(0, "", turns), system=system)
    assert rendered is not None, "no tools in it"
    before, _, after = rendered.text.rpartition(_ASK)  # the last: prompt.system may hold these letters too
    return before, after
