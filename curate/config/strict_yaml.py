"""Reads and writes YAML strictly, as recipes need it: no key twice, keys are text, no objects and no references.

Numbers are decimal, and dates are text. PyYAML itself follows YAML 1.1, in which 010 is 8, 1:30 is 90, and 2026-05-01
is a date.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from curate.types import CurateError


class _StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses references, duplicate keys, and keys that are not text.

    With references to references, a few lines can stand for a billion values. No recipe needs them.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node as PyYAML does, but refuse a reference (`*name`) before it is followed."""
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]  # of PyYAML
            line = event.start_mark.line + 1
            raise CurateError(f"recipe line {line}: a reference (*{event.anchor}): write the value itself")
        return super().compose_node(parent, index)


def _mapping(loader: _StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    """Return a mapping; raise if a key is duplicate (PyYAML takes the last one) or is not text."""
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise CurateError(f"recipe line {key_node.start_mark.line + 1}: keys are words, got {key!r}")
        if key in seen:
            raise CurateError(f"recipe line {key_node.start_mark.line + 1}: the key {key!r} stands twice")
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


def _number(loader: _StrictLoader, node: yaml.ScalarNode) -> int | float:
    text = node.value.lower()
    return int(text) if text.lstrip("+-").isdecimal() else float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _joined(loader: _StrictLoader, node: yaml.ScalarNode) -> str:
    """Return a text in which two halves of a UTF-16 pair are one character: JSON escapes an emoji as two halves."""
    text: str = node.value
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_REPLACED = {_INT, _FLOAT, "tag:yaml.org,2002:timestamp"}
# PyYAML finds the type of a bare word by patterns, which it looks up by the first character of the word. Here those of
# numbers and dates are taken out, and decimal ones are put in for numbers.
_StrictLoader.yaml_implicit_resolvers = {
    first: kept
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    if (kept := [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED])
}
_StrictLoader.add_implicit_resolver(_INT, re.compile(r"[-+]?[0-9]+\Z"), list("-+0123456789"))
_StrictLoader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"),
    list("-+0123456789."),
)
for _tag in (_INT, _FLOAT):
    _StrictLoader.add_constructor(_tag, _number)
_StrictLoader.add_constructor("tag:yaml.org,2002:str", _joined)
_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


class _Dumper(yaml.SafeDumper):
    """A SafeDumper that quotes and escapes control characters and odd line ends, some of which PyYAML would lose."""


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)


def parse(text: str, what: str) -> Any:
    """Return the value of a YAML text; `what` names the text in messages.

    Raises:
        CurateError: it is not YAML, or has objects of a programming language or references; a key is duplicate or
            not text.
    """
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        # PyYAML raises any of these for text that looks like a date or a number and is none.
        raise CurateError(f"{what} is not valid YAML: {' '.join(str(error).split())}") from None


def scalar(text: str) -> Any:
    """Return the value of a bare word (without quotes) in YAML: a number, a boolean, null, or text.

    >>> scalar("010"), scalar("yes"), scalar("2026-05-01")
    (10, True, '2026-05-01')
    """
    loader = _StrictLoader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # of PyYAML
    try:
        return loader.construct_object(yaml.ScalarNode(tag, text))
    except (ValueError, yaml.YAMLError):
        return text


def dump(tree: Any) -> str:
    """Return a value as YAML, which `parse` reads back to an equal value."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
