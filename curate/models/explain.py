"""Turns errors of the model libraries into messages that say what to do."""

from __future__ import annotations

import struct

import torch
from huggingface_hub.errors import EntryNotFoundError, StrictDataclassError
from safetensors import SafetensorError

from curate.models.hub import unreachable
from curate.models.locate import locate
from curate.types import CurateError

# What transformers, tokenizers and sentence-transformers raise for files that they cannot read. They use the contents
# unchecked, so a wrong file can raise nearly any of Python's errors.
LIBRARY_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    ImportError,
    RuntimeError,
    EntryNotFoundError,
    StrictDataclassError,
    SafetensorError,
    struct.error,
)


def explain(name: str, error: Exception, *, file: str = "") -> CurateError:
    """Return the error to raise in place of a library's: what was expected, what was got, what to do.

    Args:
        name: the model, as the person wrote it.
        error: what the library raised.
        file: the file that the library was reading, where that is known.
    """
    text = str(error)
    if isinstance(error, CurateError):
        return error
    if isinstance(error, SafetensorError):
        return CurateError(f"the weights of {name} are damaged ({first_line(text)}): download or copy them again")
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        return CurateError(
            f"{name} does not fit into memory: try quantization=4bit, device_map=auto or a smaller model"
        )
    if "trust_remote_code" in text:
        return CurateError(f"{name} brings its own Python code, which is not run: read it, then trust_remote_code=true")
    if "Unrecognized configuration class" in text:
        return CurateError(f"{name} is not a causal language model, or not one that transformers knows")
    if isinstance(error, OSError) and locate(name).folder is None:
        return unreachable(name, first_line(text))
    if "Couldn't instantiate the backend tokenizer" in text:
        return CurateError(f"{name} has no tokenizer that can be read: expected tokenizer.json in it")
    where = f"{name} ({file})" if file else name
    if isinstance(error, StrictDataclassError):  # the field is named in its first line, the reason in its second
        return CurateError(f"cannot load {where}: {' '.join(text.split())[:300].rstrip(' .')}")
    # A KeyError or an AssertionError says little without its kind.
    says_all = isinstance(error, (OSError, ValueError, ImportError)) or type(error) is Exception
    return CurateError(f"cannot load {where}: {'' if says_all else f'{type(error).__name__}: '}{first_line(text)}")


def first_line(text: str) -> str:
    """Return the first line of a library's message, shortened, without its closing mark."""
    return text.strip().split("\n")[0].rstrip(" .:")[:300]
