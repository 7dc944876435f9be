"""Names of sources, and what a name or a path opens."""

import difflib
from pathlib import Path

from wsrl.errors import UserError
from wsrl.signals.options import SourceOptions
from wsrl.signals.source import Source
from wsrl.signals.sources import array, digits, fashion_mnist, folder, noto_emoji

SOURCES: dict[str, tuple[type[Source], type[SourceOptions], str]] = {
    "digits": (
        digits.Digits,
        digits.DigitsOptions,
        "1,797 grey 8x8 handwritten digits in 10 classes; ships inside scikit-learn",
    ),
    "fashion-mnist": (
        fashion_mnist.FashionMnist,
        fashion_mnist.FashionMnistOptions,
        "60,000 + 10,000 grey 28x28 clothes in 10 classes; Debian package dataset-fashion-mnist",
    ),
    "noto-emoji": (
        noto_emoji.NotoEmoji,
        noto_emoji.NotoEmojiOptions,
        "3,655 colour emoji in 9 groups; Debian packages fonts-noto-color-emoji and unicode-data",
    ),
}


def source_names() -> dict[str, str]:
    """Each named source with a description in one line."""
    return {name: line for name, (_, _, line) in SOURCES.items()}


def open_source(data: str | Path, **options) -> Source:
    """Open a named source, a folder of pictures, or a NumPy file.

    A name goes before a folder of the same name; write ``./digits`` for the folder.

    Args:
        data: A name from ``source_names()``, or a path.
        **options: Options of that source; all have ``limit``, ``split``, ``size`` and ``mode``.

    Returns:
        The source; its signals are read when they are asked for.

    Raises:
        UserError: There is no such source, path or option.
    """
    text = str(data)
    if text in SOURCES:
        source, source_options, _ = SOURCES[text]
        return source(source_options.from_given(options, text))
    path = Path(text)
    if path.is_dir():
        return folder.Folder(path, folder.FolderOptions.from_given(options, text))
    if path.is_file() and path.suffix.lower() in array.EXTENSIONS:
        return array.ArraySource(path, array.ArrayOptions.from_given(options, text))
    raise unknown(text, path)


def unknown(text: str, path: Path) -> UserError:
    """The error for data that is neither a name nor a usable path.

    Args:
        text: What the user gave.
        path: The same as a path.
    """
    allowed = f"{', '.join(SOURCES)}, a folder of pictures, or a {' or '.join(array.EXTENSIONS)} file"
    if path.is_file():
        return UserError(f"{text} is a single file of another kind", allowed=allowed, do="give the folder it is in")
    close = difflib.get_close_matches(text.lower().replace("_", "-"), SOURCES, n=1)
    do = f"did you mean {close[0]}?" if close else "check the spelling, or the path"
    return UserError(f"there is no source and no folder called {text!r}", allowed=allowed, do=do)
