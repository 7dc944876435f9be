"""Which files of a folder were not read, by their endings, and how that is told."""

from collections.abc import Mapping
from pathlib import PurePath

LINKED = "folders that are links"
_NONE = "no ending"
_PACKED = (".gz", ".bz2", ".xz", ".zst")
_MOST_LISTED = 8


def ending(name: str) -> str:
    """What a file's name ends in, as it is spelled; both endings of a packed file."""
    suffixes = PurePath(name).suffixes
    suffix = "".join(suffixes[-2:] if suffixes and suffixes[-1].lower() in _PACKED else suffixes[-1:])
    return suffix.encode("utf-8", "backslashreplace").decode() or _NONE


def describe_passed_over(counts: Mapping[str, int]) -> str:
    """One line such as ``2 other files were passed over: .PT, .ckpt``; empty where there were none."""
    files = {name: number for name, number in counts.items() if name != LINKED}
    number, parts = sum(files.values()), []
    if number:
        endings = sorted(files, key=lambda name: (-files[name], name))
        more = f" and {len(endings) - _MOST_LISTED} other endings" if len(endings) > _MOST_LISTED else ""
        one = "other file was" if number == 1 else "other files were"
        parts.append(f"{number} {one} passed over: {', '.join(endings[:_MOST_LISTED])}{more}")
    if linked := counts.get(LINKED):
        parts.append(f"{linked} {'folder that is a link was' if linked == 1 else f'{LINKED} were'} not entered")
    return "; ".join(parts)
