"""Buffers and tables (accessors) of glTF 2.0 as arrays: strided, sparse, normalized.

Source: Khronos, glTF 2.0 specification, section 3.6.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from urllib.parse import unquote_to_bytes

import numpy as np

from wsrl.errors import SignalError, printable
from wsrl.signals.shapes.mesh_headers import COMPONENTS

KINDS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
PACKED = ("EXT_meshopt_compression", "KHR_meshopt_compression", "MESHOPT_compression")


class Tables:
    """The tables of a description.

    Args:
        described: The description.
        binary: The binary part of a GLB file; None where there is none.
        resolve: Gives the bytes of a file by name; None where there are none.
    """

    def __init__(self, described: Mapping, binary: bytes | None, resolve: Callable[[str], bytes] | None):
        self._described, self._binary, self._resolve = described, binary, resolve
        self._buffers: dict[int, bytes] = {}

    def __getitem__(self, number: int) -> np.ndarray:
        """One table ``(count, components)``: float64 where it is normalized, else of its own type.

        Args:
            number: Number of the accessor.

        Raises:
            SignalError: It is damaged, or in a form that is not read.
        """
        accessor = self._entry("accessors", number)
        kind, width, count = np.dtype(KINDS[accessor["componentType"]]), COMPONENTS[accessor["type"]], accessor["count"]
        # its rows, or zeros
        if "bufferView" in accessor:
            values = self._view(accessor["bufferView"], accessor.get("byteOffset", 0), kind, count, width)
        else:
            self._refuse_unknown(accessor, "a table")
            values = np.zeros((count, width), kind)
        # rows that are given apart, then numbers of a range as fractions of it
        if "sparse" in accessor:
            values = self._replaced(values, accessor["sparse"])
        if accessor.get("normalized") and kind.kind in "iu":
            values = np.maximum(values.astype(np.float64) / np.iinfo(kind).max, -1)
        return values

    def count(self, number: int) -> int:
        """Number of rows of a table."""
        return self._entry("accessors", number)["count"]

    def restart(self, number: int) -> int:
        """The index that begins a new strip or fan (EXT_mesh_primitive_restart): the largest of the table's type."""
        return int(np.iinfo(KINDS[self._entry("accessors", number)["componentType"]]).max)

    def is_filled(self, number: int) -> bool:
        """Whether a table has bytes of its own, without those of an extension."""
        accessor = self._entry("accessors", number)
        return "bufferView" in accessor or "sparse" in accessor

    def _entry(self, name: str, number: int) -> Mapping:
        entries = self._described.get(name, [])
        if not (isinstance(number, int) and 0 <= number < len(entries)):
            raise SignalError(f"damaged: it refers to number {number!r} of its {len(entries)} {name}")
        return entries[number]

    def _replaced(self, values: np.ndarray, sparse: Mapping) -> np.ndarray:
        """The table with some of its rows replaced."""
        count, indices, rows = sparse["count"], sparse["indices"], sparse["values"]
        index = self._view(
            indices["bufferView"], indices.get("byteOffset", 0), np.dtype(KINDS[indices["componentType"]]), count, 1
        )[:, 0].astype(np.int64)
        if count and index.max() >= len(values):
            raise SignalError(f"damaged: a sparse table replaces row {index.max()} of {len(values)}")
        values = values.copy()
        values[index] = self._view(rows["bufferView"], rows.get("byteOffset", 0), values.dtype, count, values.shape[1])
        return values

    def _view(self, number: int, offset: int, kind: np.dtype, count: int, width: int) -> np.ndarray:
        """Rows ``(count, width)`` in a part of a buffer."""
        view = self._entry("bufferViews", number)
        packed = [name for name in view.get("extensions", {}) if "meshopt" in name.lower()]
        buffer = self._entry("buffers", view["buffer"])
        required = self._described.get("extensionsRequired", [])
        if packed and (packed[0] in required or packed[0] in buffer.get("extensions", {})):
            raise SignalError(f"its meshes are packed by {packed[0]}", do="export it without compression of meshes")
        data = self._buffer(view["buffer"], buffer)
        begin, length, stride = view.get("byteOffset", 0), view["byteLength"], view.get("byteStride", 0)
        row = kind.itemsize * width
        stride = stride or row
        needed = offset + stride * (count - 1) + row if count else 0
        if min(begin, offset, length, stride) < 0 or needed > length or begin + length > len(data):
            raise SignalError(f"damaged: a table of {count} rows lies beyond the end of its buffer")
        return np.ndarray((count, width), kind, data, begin + offset, (stride, kind.itemsize))

    def _buffer(self, number: int, buffer: Mapping) -> bytes:
        """The bytes of a buffer."""
        if number not in self._buffers:
            uri = buffer.get("uri")
            self._refuse_unknown(buffer, "a buffer")
            if uri is None:
                if self._binary is None or number != 0:
                    raise SignalError(f"damaged: its buffer {number} has no bytes")
                self._buffers[number] = self._binary
            elif uri.startswith("data:"):
                self._buffers[number] = from_data_uri(uri)
            elif self._resolve is None:
                raise SignalError(f"it refers to {uri!r}, which is not there")
            else:
                self._buffers[number] = self._resolve(uri)
            there, said = len(self._buffers[number]), buffer.get("byteLength", 0)
            if there < said:
                raise SignalError(f"damaged: a buffer of {said:,} bytes, of which {there:,} are there")
        return self._buffers[number]

    @staticmethod
    def _refuse_unknown(entry: Mapping, what: str) -> None:
        """Refuse what only an extension fills with bytes."""
        names = [name for name in entry.get("extensions", {}) if name not in PACKED]
        if names and not ("uri" in entry or "sparse" in entry):
            raise SignalError(f"{what} is given by {printable(names[0])}, which is not read", do="export it without")


def from_data_uri(uri: str) -> bytes:
    """The bytes of a ``data:`` address, in base64 or with percent signs."""
    form, _, text = uri.partition(",")
    raw = unquote_to_bytes(text)
    if not form.endswith(";base64"):
        return raw
    try:
        return base64.b64decode(raw + b"=" * (-len(raw) % 4))
    except binascii.Error as error:
        raise SignalError(f"damaged: a buffer that is no base64 ({error})") from error
