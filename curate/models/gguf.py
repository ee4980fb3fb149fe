"""Reads the header of a GGUF file, without its weights and without a library.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (little-endian, versions 2 and 3).
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from curate.types import CurateError

Value = int | float | bool | str | None

_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
# For every type of tensor, by its number: weights in a block, and bytes of a block (GGML_QUANT_SIZES of gguf-py).
BLOCKS = {
    **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)},
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292)},
    **{16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82)},
    **{23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2)},
    **{34: (256, 54), 35: (256, 66), 39: (32, 17)},
}


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says about itself.

    values  metadata by key; arrays (the vocabulary) are skipped and given as None
    shapes  shape of every tensor by name, dimensions in torch's order
    length  bytes of the header
    """

    values: Mapping[str, Value]
    shapes: Mapping[str, tuple[int, ...]]
    length: int

    def number(self, key: str) -> int | None:
        """Return an integer of the file's architecture, e.g. llama.block_count for "block_count"; None without one."""
        value = self.values.get(f"{self.values.get('general.architecture')}.{key}")
        return value if isinstance(value, int) else None


def read_gguf_header(path: Path) -> GgufHeader:
    """Return the metadata and the tensor shapes of a GGUF file.

    Raises:
        CurateError: the file cannot be read, is no GGUF file, or ends too early.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] != b"GGUF":
                raise CurateError(f"{path} is no GGUF file: download it again")
            return _parse(data, path)
    except OSError as error:
        raise CurateError(f"cannot read {path}: {error.strerror}") from error
    except (struct.error, ValueError, KeyError, ArithmeticError, MemoryError) as error:  # ValueError: an empty file too
        raise CurateError(f"{path} is damaged or incomplete: download or copy it again") from error


def _parse(data: mmap.mmap, path: Path) -> GgufHeader:
    """Return the header: 24 bytes of counts, the metadata, then name, shape, type and place of every tensor."""
    version, num_tensors, num_values = struct.unpack_from("<IQQ", data, 4)
    if version not in (2, 3):
        raise CurateError(f"{path} is GGUF version {version}: expected 2 or 3; convert the model again")
    position, values = 24, dict[str, Value]()
    for _ in range(num_values):
        key, position = _text(data, position)
        (kind,) = struct.unpack_from("<I", data, position)
        values[key], position = _value(data, position + 4, kind)
    shapes, ends = dict[str, tuple[int, ...]](), [0]
    for _ in range(num_tensors):
        name, position = _text(data, position)
        (dimensions,) = struct.unpack_from("<I", data, position)
        shape = struct.unpack_from(f"<{dimensions}Q", data, position + 4)
        form, offset = struct.unpack_from("<IQ", data, position + 4 + 8 * dimensions)
        weights, num_bytes = BLOCKS.get(form, (1, 0))  # unknown, newer types: only the start of the tensor is checked
        shapes[name] = shape[::-1]  # GGUF gives the fastest dimension first
        ends.append(offset + math.prod(shape) // weights * num_bytes)
        position += 16 + 8 * dimensions
    alignment = values.get("general.alignment", 32)
    # The header of a download that was cut off is whole: only the ends of the tensors show what is missing.
    if not isinstance(alignment, int) or -(-position // alignment) * alignment + max(ends) > len(data):
        raise ValueError(path)
    return GgufHeader(values, shapes, position)


def _text(data: mmap.mmap, position: int) -> tuple[str, int]:
    """Return a string, and the position behind it."""
    (length,) = struct.unpack_from("<Q", data, position)
    end = position + 8 + length
    if end > len(data):
        raise ValueError(length)
    return data[position + 8 : end].decode("utf-8"), end


def _value(data: mmap.mmap, position: int, kind: int) -> tuple[Value, int]:
    """Return a value of the metadata, and the position behind it; arrays are skipped and returned as None."""
    if kind == _STRING:
        return _text(data, position)
    if kind != _ARRAY:
        form = _FORMATS[kind]
        (value,) = struct.unpack_from(form, data, position)
        return value, position + struct.calcsize(form)
    of, count = struct.unpack_from("<IQ", data, position)
    position += 12
    if of in _FORMATS:
        return None, position + count * struct.calcsize(_FORMATS[of])
    for _ in range(count):  # strings, or arrays in an array
        _, position = _value(data, position, of)
    return None, position
