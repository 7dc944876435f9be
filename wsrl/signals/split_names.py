"""One name for each usual split, however a data set spells it: ``Training``, ``valid`` and ``TEST`` are ours too."""

import re

SPLITS = ("train", "val", "test")
_SPELLINGS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "devel", "development"),
    "test": ("test", "testing", "tst"),
}
_OURS = {spelling: ours for ours, spellings in _SPELLINGS.items() for spelling in spellings}
_TAIL = re.compile(r"[\s_-]*(set|split)$")


def known_split(text: str) -> str | None:
    """``train``, ``val`` or ``test`` where a text is one of their spellings, whatever its case; None for others."""
    plain = text.strip().casefold()
    return _OURS.get(plain) or _OURS.get(_TAIL.sub("", plain))


def split_name(text: str) -> str:
    """Our name of a split; one that is no spelling of the usual three keeps its own, without spaces around it."""
    return known_split(text) or text.strip()
