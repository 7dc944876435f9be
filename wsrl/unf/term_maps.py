"""The matrices of an equivariant layer: from all means with one key to all places with it.

Letters: B networks, C channels in, D channels out, K kept axes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsrl.unf.plan import End, Meeting
from wsrl.unf.pooling import PooledTensor

MEAN_SHARE = 0.5
"""Variance that all means together bring to an entry at the start, over what the entry itself brings."""

HUB = 8
"""Where many tensors meet in means alone, these pass through so many times the channels of the layer: the cost is then
linear in the number of tensors."""

Parts = dict[str, list[tuple[End, Tensor]]]
Products = dict[str, list[tuple[PooledTensor | Tensor, Tensor]]]


@dataclass(frozen=True)
class Start:
    """The start of a layer's matrices: an entry's own variance is kept at any size, and the means add a share.

    Attributes:
        gain: Variance that the nonlinearity after the layer takes away.
        channels: Channels of the features.
        counts: Terms that end in each tensor.
        generator: Randomness; None takes torch's own.
    """

    gain: float
    channels: int
    counts: Mapping[str, int]
    generator: torch.Generator | None

    def matrix(self, source: End, target: End, num_whole: int, out_channels: int) -> Tensor:
        """The matrix of one term.

        Args:
            source: The end that is pooled.
            target: The end that is filled.
            num_whole: Sources that bring whole features to this target.
            out_channels: Channels of the result.
        """
        fan_in, fan_out = source.factor * self.channels, target.factor * out_channels
        if source.pattern.is_whole and target.pattern.is_whole:
            variance = self.gain / (fan_in * num_whole)
        else:
            variance = self.gain * MEAN_SHARE / (fan_in * self.counts[target.tensor])
        return self.normal(fan_in, fan_out, variance)

    def normal(self, fan_in: int, fan_out: int, variance: float) -> Tensor:
        """A matrix of independent normal numbers."""
        return torch.randn(fan_in, fan_out, generator=self.generator) * math.sqrt(variance)


def _num_whole(meeting: Meeting) -> int:
    return max(1, sum(end.pattern.is_whole for end in meeting.sources))


def _product(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return values @ weight if bias is None else torch.addmm(bias, values, weight)


class MeansMap(nn.Module):
    """A map from the means of all tensors, side by side, to all places.

    Args:
        meeting: The ends of its terms.
        in_channels: Channels of the features.
        out_channels: Channels of the result.
    """

    def __init__(self, meeting: Meeting, in_channels: int, out_channels: int):
        super().__init__()
        self.meeting = meeting
        self.widths = [end.factor * in_channels for end in meeting.sources]
        self.sizes = [end.factor * out_channels for end in meeting.targets]

    def means(self, features: Mapping[str, PooledTensor]) -> Tensor:
        """All means of the key in one array ``(B, *K, channels of all sources)``."""
        return torch.cat([features[end.tensor].pool(end.pattern) for end in self.meeting.sources], dim=-1)

    def hand_out(self, mapped: Tensor, parts: Parts) -> None:
        """Add to ``parts`` what every target gets of ``mapped (B, *K, channels of all targets)``."""
        for end, values in zip(self.meeting.targets, mapped.split_with_sizes(self.sizes, dim=-1)):
            parts[end.tensor].append((end, values))


class JointMap(MeansMap):
    """One matrix for all terms: for keys that keep one axis or none."""

    def __init__(self, meeting: Meeting, start: Start, in_channels: int, out_channels: int):
        super().__init__(meeting, in_channels, out_channels)
        rows = [
            torch.cat([start.matrix(source, end, _num_whole(meeting), out_channels) for end in meeting.targets], dim=1)
            for source in meeting.sources
        ]
        self.weight = nn.Parameter(torch.cat(rows))

    def matrix(self) -> Tensor:
        """The matrix of all terms, sources by targets."""
        return self.weight

    def forward(
        self, features: Mapping[str, PooledTensor], parts: Parts, products: Products, bias: Tensor | None = None
    ) -> None:
        """Add what every tensor gets to ``parts``; a bias stands for all targets, side by side."""
        self.hand_out(_product(self.means(features), self.weight, bias), parts)


class HubMap(MeansMap):
    """As the joint map, but pairs of tensors share two matrices; from each tensor to itself there is one of its own."""

    def __init__(self, meeting: Meeting, start: Start, in_channels: int, out_channels: int):
        super().__init__(meeting, in_channels, out_channels)
        total, hub = sum(self.widths), HUB * out_channels
        # all pairs share a matrix into the hub and one out of it
        self.gather = nn.Parameter(start.normal(total, hub, 1 / total))
        spread = [
            start.normal(hub, size, start.gain * MEAN_SHARE / (hub * start.counts[end.tensor] / len(meeting.sources)))
            for end, size in zip(meeting.targets, self.sizes)
        ]
        self.spread = nn.Parameter(torch.cat(spread, dim=1))
        # each tensor has a matrix of its own to itself
        self.own = nn.ParameterList()
        self._own = []
        for source_index, source in enumerate(meeting.sources):
            for target_index, end in enumerate(meeting.targets):
                if source.tensor == end.tensor and source.pattern == end.pattern:
                    self._own.append((source_index, target_index))
                    self.own.append(nn.Parameter(start.matrix(source, end, 1, out_channels)))

    def matrix(self) -> Tensor:
        """The matrix of all terms, sources by targets."""
        whole = (self.gather @ self.spread).detach().clone()
        blocks = [row.split(self.sizes, dim=1) for row in whole.split(self.widths, dim=0)]
        for (source, target_index), own in zip(self._own, self.own):
            blocks[source][target_index].add_(own.detach())
        return whole

    def forward(
        self, features: Mapping[str, PooledTensor], parts: Parts, products: Products, bias: Tensor | None = None
    ) -> None:
        """Add what every tensor gets to ``parts``; a bias stands for all targets, side by side."""
        self.hand_out(_product(self.means(features) @ self.gather, self.spread, bias), parts)  # through the hub
        for (source_index, target_index), weight in zip(self._own, self.own):
            source, end = self.meeting.sources[source_index], self.meeting.targets[target_index]
            parts[end.tensor].append((end, features[source.tensor].pool(source.pattern) @ weight))


class PairMaps(nn.Module):
    """A matrix for each pair of tensors: for keys that keep two axes or more, which few tensors have in common."""

    def __init__(self, meeting: Meeting, start: Start, in_channels: int, out_channels: int):
        super().__init__()
        self.meeting = meeting
        self._pairs = [(source, end) for end in meeting.targets for source in meeting.sources]
        num_whole = _num_whole(meeting)
        self.weight = nn.ParameterList(
            nn.Parameter(start.matrix(source, end, num_whole, out_channels)) for source, end in self._pairs
        )

    def forward(self, features: Mapping[str, PooledTensor], parts: Parts, products: Products) -> None:
        """Add means to ``parts``, and the factors of whole features to ``products``, where they are multiplied last."""
        for (source, end), weight in zip(self._pairs, self.weight):
            # Means are added after the product; whole features are multiplied last, in one pass over all entries.
            if not end.pattern.is_whole:
                parts[end.tensor].append((end, features[source.tensor].pool(source.pattern) @ weight))
            elif source.pattern.is_whole and source.tensor == end.tensor and source.pattern.kept == end.pattern.kept:
                products[end.tensor].append(features[end.tensor].factors(weight))
            else:
                pooled = end.pattern.broadcastable(features[source.tensor].pool(source.pattern))
                products[end.tensor].append((pooled, weight))
