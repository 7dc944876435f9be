"""The options that every source takes, checked when they are given."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from wsrl.errors import UserError
from wsrl.signals.split_names import split_name


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Which signals of a source are taken.

    Attributes:
        limit: Keep the first so many signals of the stable order in each split; or a mapping from split to number,
            which keeps only the splits it names. None keeps all.
        split: Keep only this split, however it is spelled (``valid`` for ``val``). None keeps all.
    """

    limit: int | Mapping[str, int] | None = None
    split: str | None = None

    def __post_init__(self):
        limits = list(self.limit.values()) if isinstance(self.limit, Mapping) else [self.limit]
        if self.limit is not None and not (limits and all(is_whole(number) and number >= 1 for number in limits)):
            raise UserError(f"limit is {self.limit!r}", allowed="a whole number from 1, or {split: number}")
        if self.split is not None and not isinstance(self.split, str):
            raise UserError(f"split is {self.split!r}", allowed="the name of a split, such as train")
        if self.split is not None:
            object.__setattr__(self, "split", split_name(self.split))
        if isinstance(self.limit, Mapping):
            named = {split_name(str(split)): number for split, number in self.limit.items()}
            if len(named) < len(self.limit):
                raise UserError(f"limit is {self.limit!r}: it names a split twice", allowed="one number for each split")
            object.__setattr__(self, "limit", named)

    @classmethod
    def from_mapping(cls, options: Mapping[str, object], source: str) -> "SourceOptions":
        """Build the options, refusing those the source does not have."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise UserError(f"the source {source} has no option {', '.join(unknown)}", allowed=", ".join(known))
        return cls(**options)

    def to_dict(self) -> dict:
        """The options as plain JSON; paths are left out, since they differ from machine to machine."""
        plain = {key: value for key, value in asdict(self).items() if key not in self.path_options()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    def portable(self) -> dict:
        """All options, with paths that mean the same in any process of this machine."""
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        paths = {key: str(Path(options[key]).resolve()) for key in self.path_options() if options[key] is not None}
        return options | paths

    @classmethod
    def path_options(cls) -> tuple[str, ...]:
        """Names of the options that are paths of this machine."""
        return ()


def is_whole(number: object) -> bool:
    """Whether this is an int and not a bool."""
    return isinstance(number, int) and not isinstance(number, bool)
