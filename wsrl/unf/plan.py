"""What an equivariant layer has to do: which means of which tensors meet, and where their products go.

All means with one key (the permutations of the axes that they keep) are mapped to all places with that key by one
matrix, so every mean is computed once and a layer costs as much as it has weights, however many pairs of tensors there
are.
"""

from dataclasses import dataclass

from wsrl.symmetry.spec.axes import Within
from wsrl.unf.basis import Key, Pattern, patterns
from wsrl.unf.folding import Bundle


@dataclass(frozen=True)
class End:
    """One end of some terms: a tensor and the pattern by which it is pooled or filled.

    Attributes:
        tensor: Name of the tensor, or of the bundle.
        pattern: How its axes are pooled or filled.
        factor: Channels that the tensor's inner entries hold, per channel of the layer.
    """

    tensor: str
    pattern: Pattern
    factor: int


@dataclass(frozen=True)
class Meeting:
    """All ends with one key.

    Attributes:
        key: What the means keep.
        sources: Ends that are pooled.
        targets: Ends that are filled.
    """

    key: Key
    sources: tuple[End, ...]
    targets: tuple[End, ...]

    @property
    def is_large(self) -> bool:
        """Whether two axes or more are kept: such features are never copied side by side."""
        return len(self.key) > 1


def meetings(tensors: dict[str, Bundle], within: Within) -> list[Meeting]:
    """All terms between all tensors, by key, from those that keep nothing to those that keep most."""
    sources: dict[Key, list[End]] = {}
    targets: dict[Key, list[End]] = {}
    for name, tensor in tensors.items():
        for pattern in patterns(tensor.axes, within, orders=True):
            sources.setdefault(pattern.key, []).append(End(name, pattern, tensor.factor))
        for pattern in patterns(tensor.axes, within):
            targets.setdefault(pattern.key, []).append(End(name, pattern, tensor.factor))
    joined = [Meeting(key, tuple(sources[key]), tuple(ends)) for key, ends in targets.items()]
    return sorted(joined, key=lambda meeting: len(meeting.key))
