"""Fingerprints of blocks of rows: what shuffled reading checks, at the speed of memory.

A row's own checksum (BLAKE2b) tells which row is damaged, at less than 1 GB/s. A block's fingerprint takes its bytes
as 64-bit words ``w_i`` and sums ``w_i * m_i`` modulo 2^64 with odd, random-looking ``m_i``: a change within one word
always changes the sum, other damage escapes with a chance of about 2^-64 (flips of nothing but the highest bits of an
even number of words cancel; `wsrl verify` sees these too). Where it differs, the rows' checksums name the row.
"""

from collections.abc import Iterable

import numpy as np

CHUNK_BYTES = 1 << 18
_MODULUS = 1 << 64
_CARRY = 0x9E3779B97F4A7C15  # odd: what earlier chunks contribute is never lost


def _multipliers() -> np.ndarray:
    """The ``m_i``: SplitMix64, made odd. Part of the format; never change them."""
    z = np.arange(1, CHUNK_BYTES // 8 + 1, dtype="<u8") * np.uint64(_CARRY)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z ^ (z >> np.uint64(31)) | np.uint64(1)


_MULTIPLIERS = _multipliers()


def fingerprint(columns: Iterable[np.ndarray]) -> int:
    """Fingerprint, 64 bits, of the bytes of arrays in the order given."""
    value = 0
    for column in columns:
        data = np.ascontiguousarray(column).reshape(-1).view(np.uint8)
        for start in range(0, len(data), CHUNK_BYTES):
            chunk = data[start : start + CHUNK_BYTES]
            words, left = divmod(len(chunk), 8)
            total = int(np.dot(chunk[: 8 * words].view("<u8"), _MULTIPLIERS[:words]))
            if left:
                total += int.from_bytes(chunk[8 * words :].tobytes(), "little") * int(_MULTIPLIERS[words])
            value = (value * _CARRY + len(chunk) + total) % _MODULUS
    return value
