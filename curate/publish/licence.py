"""Reads the licence that the source of the records states, for the data card of the kept ones."""

from __future__ import annotations

import codecs
import logging
from pathlib import Path

import yaml

from curate.read.files import Source, load_hub

logger = logging.getLogger(__name__)

Licence = dict[str, str | list[str]]

_KEYS = ("license", "license_name", "license_link")
_LONGEST_CARD = 1_000_000  # bytes of a README.md that are read
_LONGEST_HEAD = 20_000  # characters of front matter; 100,000 characters of YAML take about a second to read


def licence_of(source: Source) -> Licence:
    """Return `license`, and `license_name` and `license_link` if they are given, as the source states them.

    For a folder they come from the front matter of its README.md, for a hub data set from the hub. A list of licences
    stays a list. If no licence is stated, the result is {"license": "unknown"}. A README.md that cannot be read is
    skipped with a warning.
    """
    facts: Licence = {}
    if source.kind == "hub":
        stated = load_hub(source).info.license
        facts = {"license": stated} if stated else {}
    elif source.kind == "folder" and (card := Path(source.path) / "README.md").is_file():
        facts = _of_card(card)
    return facts if "license" in facts else {"license": "unknown"}


def _of_card(card: Path) -> Licence:
    """Return what the front matter of a README.md states; nothing if it has none or cannot be read."""
    with card.open("rb") as file:
        data = file.read(_LONGEST_CARD)
    try:
        # An incremental decoder, since the cut after _LONGEST_CARD bytes may split a character.
        head = _front_matter(codecs.getincrementaldecoder("utf-8-sig")().decode(data))
        # Nodes, not objects: YAML would make a date or a number of some names, and expand references without end.
        root = yaml.compose(head, Loader=yaml.SafeLoader) if head else None
    except (UnicodeDecodeError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        logger.warning("%s names no licence that can be read (%s); the data card says unknown", card.name, reason)
        return {}
    if not isinstance(root, yaml.MappingNode):
        return {}
    pairs = [(key.value, _words(value)) for key, value in root.value if key.value in _KEYS]
    return {key: words for key, words in pairs if words}


def _front_matter(text: str) -> str:
    """Return the lines between a first line `---` and the next such line; "" without them."""
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].rstrip() != "---":
        return ""
    end = next((i for i, line in enumerate(lines[1:], start=1) if line.rstrip() == "---"), 0)
    head = "".join(lines[1:end])
    if len(head) > _LONGEST_HEAD:
        raise ValueError(f"front matter of more than {_LONGEST_HEAD:,} characters")
    return head


def _words(node: yaml.Node) -> str | list[str] | None:
    """Return the text or the list of texts of a node; None for anything else."""
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag.endswith(":null") else str(node.value)
    if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return [str(item.value) for item in node.value]
    return None
