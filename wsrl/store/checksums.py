"""Two checks of what is stored: a checksum of each row, and a fingerprint of each block of rows.

A row's checksum (BLAKE2b) tells which row is damaged, at less than 1 GB/s. A block's fingerprint is what shuffled
reading checks, at the speed of memory: it takes its bytes as 64-bit words ``w_i`` and sums ``w_i * m_i`` modulo 2^64
with odd, random-looking ``m_i``. A change within one word always changes the sum, other damage escapes with a chance of
about 2^-64 (flips of nothing but the highest bits of an even number of words cancel; `wsrl verify` sees these too).
Where it differs, the rows' checksums name the row.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from wsrl.store import native

CHECKSUM_BYTES = 16
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


def row_digests(fixed: list[np.ndarray], texts: list[np.ndarray]) -> np.ndarray:
    """BLAKE2b of each row: its fixed-width columns as they lie on disk, then each text after its length."""
    count = len(fixed[0])  # n rows
    digests = np.zeros((count, CHECKSUM_BYTES), dtype=np.uint8)
    if count == 0:
        return digests
    row_bytes = [np.ascontiguousarray(column).reshape(count, -1).view(np.uint8) for column in fixed]  # (n, bytes) each
    joined = np.concatenate(row_bytes, axis=1)  # (n, all bytes of fixed width)
    for row, strings in enumerate(zip(*(column.tolist() for column in texts))):
        digest = hashlib.blake2b(joined[row], digest_size=CHECKSUM_BYTES)
        digest.update(b"".join(len(text).to_bytes(4, "little") + text for text in strings))
        digests[row] = np.frombuffer(digest.digest(), dtype=np.uint8)
    return digests


def fingerprint(columns: Iterable[np.ndarray]) -> int:
    """Fingerprint, 64 bits, of the bytes of arrays in the order given."""
    arrays = [np.ascontiguousarray(column).reshape(-1).view(np.uint8) for column in columns]
    addresses = np.array([array.ctypes.data for array in arrays], dtype=np.uint64)
    value = fingerprint_at(addresses, np.array([len(array) for array in arrays], dtype=np.int64))
    return _by_numpy(arrays) if value is None else value


def fingerprint_at(addresses: np.ndarray, sizes: np.ndarray) -> int | None:
    """The same of memory at some addresses, which stays there meanwhile; None where this machine has no kernel for it.

    Args:
        addresses: Where each array begins, in uint64.
        sizes: Bytes of each, in int64.
    """
    kernel = native.load()[0]
    if kernel is None:
        return None
    places = addresses.ctypes.data, sizes.ctypes.data
    return kernel.wsrl_fingerprint(*places, len(addresses), _MULTIPLIERS.ctypes.data, CHUNK_BYTES)


def _by_numpy(arrays: list[np.ndarray]) -> int:
    value = 0
    for data in arrays:
        for start in range(0, len(data), CHUNK_BYTES):
            chunk = data[start : start + CHUNK_BYTES]
            # sum_i w_i m_i over whole words; the bytes that are left are one shorter word.
            words, left = divmod(len(chunk), 8)
            total = int(np.dot(chunk[: 8 * words].view("<u8"), _MULTIPLIERS[:words]))
            if left:
                total += int.from_bytes(chunk[8 * words :].tobytes(), "little") * int(_MULTIPLIERS[words])
            # Chunks are chained by an odd factor, so their order counts.
            value = (value * _CARRY + len(chunk) + total) % _MODULUS
    return value
