"""The licence that a source states: it goes on with every record that is kept."""

from __future__ import annotations

import codecs
import logging
from pathlib import Path

import yaml

from curate.read.files import Source, load_hub

logger = logging.getLogger(__name__)

Licence = dict[str, str | list[str]]

_KEYS = ("license", "license_name", "license_link")
_LONGEST_CARD = 1_000_000  # bytes of a README.md that are looked at
_LONGEST_HEAD = 20_000  # characters of front matter; reading YAML takes about a second for a hundred thousand


def licence_of(source: Source) -> Licence:
    """Return `license`, and `license_name` and `license_link` where they stand, as the source's data card says.

    A list of licences stays a list. {"license": "unknown"} where neither a source folder's README.md nor the hub
    names one. A card that cannot be read is passed over with a warning.
    """
    facts: Licence = {}
    if source.kind == "hub":
        stated = load_hub(source).info.license
        facts = {"license": stated} if stated else {}
    elif source.kind == "folder" and (card := Path(source.path) / "README.md").is_file():
        facts = _of_card(card)
    return facts if "license" in facts else {"license": "unknown"}


def _of_card(card: Path) -> Licence:
    with card.open("rb") as file:
        data = file.read(_LONGEST_CARD)
    try:
        head = _front_matter(codecs.getincrementaldecoder("utf-8-sig")().decode(data))  # the cut may split a letter
        # Nodes, not objects: no reference in them is followed, and no date or number is made of a word.
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
    """Give the lines between the first line, if that is ---, and the next such line."""
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].rstrip() != "---":
        return ""
    end = next((i for i, line in enumerate(lines[1:], start=1) if line.rstrip() == "---"), 0)
    head = "".join(lines[1:end])
    if len(head) > _LONGEST_HEAD:
        raise ValueError(f"front matter of more than {_LONGEST_HEAD:,} characters")
    return head


def _words(node: yaml.Node) -> str | list[str] | None:
    """Give a text or a list of texts; None for anything else."""
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag.endswith(":null") else str(node.value)
    if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return [str(item.value) for item in node.value]
    return None
