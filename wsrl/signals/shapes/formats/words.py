"""The words of mesh files that are text, whoever wrote them."""

from collections.abc import Iterable

from wsrl.errors import SignalError, printable

BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", ""), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def plain(data: bytes) -> bytes:
    """The text of a file in an encoding that extends ASCII, without a byte order mark."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            rest = data[len(mark) :]
            return rest.decode(encoding, "replace").encode() if encoding else rest
    return data


def numbers(words: Iterable[bytes], what: str) -> tuple[float, ...]:
    """Words as numbers; ``what`` they are stands in the message.

    Raises:
        SignalError: One is no number.
    """
    words = tuple(words)
    try:
        return tuple(map(float, words))
    except ValueError:
        raise SignalError(f"damaged: {what}: {not_number(words)} is no number") from None


def not_number(words: Iterable[bytes]) -> str:
    """The first of the words that is no number, as it may be printed."""
    for word in words:
        try:
            float(word)
        except ValueError:
            return repr(printable(word[:40]))
    return "one"
