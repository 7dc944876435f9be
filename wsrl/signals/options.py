"""The options that every source takes, checked when they are given."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from wsrl.errors import UserError

MODES = ("L", "RGB")
SMALLEST_SIDE = 2


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Which signals of a source are taken, and in which form.

    Attributes:
        limit: Keep the first so many signals of the stable order in each split; or a mapping from split to number,
            which keeps only the splits it names. None keeps all.
        split: Keep only this split. None keeps all.
        size: Side of the square picture, or (height, width), in pixels; None is the source's own size.
        mode: ``L`` for one grey channel, ``RGB`` for three; None is the source's own.
    """

    limit: int | Mapping[str, int] | None = None
    split: str | None = None
    size: int | tuple[int, int] | None = None
    mode: str | None = None

    def __post_init__(self):
        limits = list(self.limit.values()) if isinstance(self.limit, Mapping) else [self.limit]
        if self.limit is not None and not (limits and all(is_whole(number) and number >= 1 for number in limits)):
            raise UserError(f"limit is {self.limit!r}", allowed="a whole number from 1, or {split: number}")
        if self.split is not None and not isinstance(self.split, str):
            raise UserError(f"split is {self.split!r}", allowed="the name of a split, such as train")
        if self.mode is not None and self.mode not in MODES:
            raise UserError(f"mode is {self.mode!r}", allowed=", ".join(MODES))
        if self.size is not None:
            object.__setattr__(self, "size", checked_size(self.size))

    @classmethod
    def from_given(cls, given: Mapping[str, object], source: str) -> "SourceOptions":
        """Build the options, refusing those the source does not have.

        Args:
            given: Options by name.
            source: Name of the source, for the message.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise UserError(f"the source {source} has no option {', '.join(unknown)}", allowed=", ".join(known))
        return cls(**given)

    def to_dict(self) -> dict:
        """The options as plain JSON; paths are left out, since they differ from machine to machine."""
        plain = {key: value for key, value in asdict(self).items() if key not in self.path_options()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    def portable(self) -> dict:
        """All options, with paths that mean the same in any process of this machine."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        paths = {key: str(Path(given[key]).resolve()) for key in self.path_options() if given[key] is not None}
        return given | paths

    @classmethod
    def path_options(cls) -> tuple[str, ...]:
        """Names of the options that are paths of this machine."""
        return ()


def is_whole(number: object) -> bool:
    """Whether this is an int and not a bool."""
    return isinstance(number, int) and not isinstance(number, bool)


def checked_size(size: object) -> tuple[int, int]:
    """The size as (height, width).

    Args:
        size: One side of a square, or a pair.

    Raises:
        UserError: It is neither, or a side is too small to be a picture.
    """
    sides = (size, size) if is_whole(size) else size
    pair = isinstance(sides, Sequence) and not isinstance(sides, str) and len(sides) == 2
    if not (pair and all(is_whole(side) and side >= SMALLEST_SIDE for side in sides)):
        raise UserError(f"size is {size!r}", allowed=f"one side, or height and width, each from {SMALLEST_SIDE} pixels")
    return tuple(sides)
