"""Writes the tokenizer and README.md of a LoRA adapter, so that others can use it as it was trained."""

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
"""Placeholder of the question in the prompt."""


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

    README.md shows the prompt format in a few lines of Python that run. PEFT finds a base model on the hub by itself;
    for a local base model, the lines say where to put its path.

    Args:
        folder: folder of the adapter, as `train_adapter` leaves it.
        tokenizer: tokenizer of the base model.
        base: the base model, as the person named it.
        template: the prompt template of the training.
        settings: the settings of the training.
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
    """Return the text before a question and the text after it; None under chat, where the tokenizer writes both."""
    if template == "chat":
        return None
    turns = (Turn("user", _ASK), Turn("assistant", ""))
    rendered = (alpaca if template == "alpaca" else plain)(Example(0, "", turns), system=system)
    assert rendered is not None, "no tools in it"
    before, _, after = rendered.text.rpartition(_ASK)  # the last one: prompt.system may hold {instruction} too
    return before, after
