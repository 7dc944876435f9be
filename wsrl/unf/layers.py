"""Layers over the weights of networks that commute with their permutations.

Letters: B networks, C channels in, D channels out. Features of a tensor are ``(B, *axes, C)``, channels last: a map of
the channels is then one matrix product over all entries.

Source: Zhou, Finn and Harrison, arXiv 2402.05232, section 3; the sharing of means is ours.
"""

import torch
from torch import Tensor, nn

from wsrl.symmetry.spec.single_axis import PlainSpec
from wsrl.unf.folding import Bundle, bundle_tensors
from wsrl.unf.mixing import mix
from wsrl.unf.nonlinearity import LINEAR, Nonlinearity
from wsrl.unf.plan import End, Meeting, meetings
from wsrl.unf.pooling import PooledTensor
from wsrl.unf.term_maps import HUB, HubMap, JointMap, PairMaps, Start

Features = dict[str, PooledTensor]


def folded(tensors: dict[str, Bundle], features: dict[str, Tensor]) -> Features:
    """Features ``(B, *shape, C)`` as layers see them."""
    return {name: PooledTensor(tensor.fold(features)) for name, tensor in tensors.items()}


def unfolded(tensors: dict[str, Bundle], features: Features) -> dict[str, Tensor]:
    """The inverse of :func:`folded`."""
    return {name: part for key, tensor in tensors.items() for name, part in tensor.unfold(features[key].values).items()}


class EquivariantLinear(nn.Module):
    """The linear maps of a whole weight dictionary that commute with its permutations, with a bias.

    Between two tensors stand all terms of the basis. Entries of short fixed axes are mapped by full matrices; long ones
    share their weights and have a bias for each position (:mod:`wsrl.unf.folding`). Only where more tensors meet in
    means than the layer has channels, their pairs share a product of two matrices.

    Args:
        spec: Permutations of the weights.
        in_channels: Channels of the features.
        out_channels: Channels of the result.
        nonlinearity: What follows the map.
        generator: Randomness of the start; None takes torch's own.
    """

    def __init__(
        self,
        spec: PlainSpec,
        in_channels: int,
        out_channels: int,
        *,
        nonlinearity: Nonlinearity = LINEAR,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.spec, self.in_channels, self.out_channels = spec, in_channels, out_channels
        self.nonlinearity, self.map_channels = nonlinearity, nonlinearity.channels_per_output * out_channels
        self.tensors = bundle_tensors(spec)
        self.meetings = meetings(self.tensors, dict(spec.within))
        self.maps = nn.ModuleList(self._map(meeting, generator) for meeting in self.meetings)
        one_each = len(self.meetings[0].targets) == len(self.tensors)  # diagonals are targets too
        self._joint_bias = one_each and not any(any(tensor.positions) for tensor in self.tensors.values())
        self.bias = nn.ParameterList(
            torch.zeros(*(n if fixed else 1 for n, fixed in zip(t.shape, t.positions)), t.factor * self.map_channels)
            for t in self.tensors.values()
        )

    def _map(self, meeting: Meeting, generator: torch.Generator | None) -> nn.Module:
        start = Start(self.nonlinearity.gain, self.in_channels, self._counts(), generator)
        if meeting.is_large:
            return PairMaps(meeting, start, self.in_channels, self.map_channels)
        widths = (sum(end.factor for end in meeting.sources), sum(end.factor for end in meeting.targets))
        total_in, total_out, hub = widths[0] * self.in_channels, widths[1] * self.map_channels, HUB * self.map_channels
        kind = HubMap if total_in * total_out > 2 * hub * (total_in + total_out) else JointMap
        return kind(meeting, start, self.in_channels, self.map_channels)

    def _counts(self) -> dict[str, int]:
        """Number of terms that end in each tensor."""
        counts: dict[str, int] = {}
        for meeting in self.meetings:
            for target in meeting.targets:
                counts[target.tensor] = counts.get(target.tensor, 0) + len(meeting.sources)
        return counts

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map features ``(B, *shape, C)`` to ``(B, *shape, D)``."""
        return unfolded(self.tensors, self.inner(folded(self.tensors, features)))

    def inner(self, features: Features) -> Features:
        """The same on folded features: what networks call from layer to layer, so that means are handed on."""
        parts: dict[str, list[tuple[End, Tensor]]] = {name: [] for name in self.tensors}
        products: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in self.tensors}
        biases: list[Tensor | None] = list(self.bias)
        joint = None
        if self._joint_bias:  # the map of the means that keep nothing adds all biases at once
            joint, biases = torch.cat([bias.flatten() for bias in biases]), [None] * len(biases)
        first, *others = self.maps
        first(features, parts, products, joint)
        for maps in others:
            maps(features, parts, products)
        return {
            name: self._join(tensor, parts[name], products[name], bias)
            for (name, tensor), bias in zip(self.tensors.items(), biases)
        }

    def _join(self, tensor: Bundle, parts: list[tuple[End, Tensor]], products: list, bias: Tensor | None):
        """Everything that goes to one tensor: products of features as large as it, means, and the bias."""
        addends: dict[frozenset[int], Tensor] = {}
        diagonals = []
        for end, values in parts:
            if end.pattern.is_simple:
                kept, ordered = end.pattern.kept_set, end.pattern.in_order(values)
                addends[kept] = addends[kept] + ordered if kept in addends else ordered
            else:
                diagonals.append((end.pattern, values))
        if bias is not None:
            fixed = frozenset(axis for axis, position in enumerate(tensor.positions) if position)
            bias = bias.reshape(1, *(tensor.shape[axis] for axis in sorted(fixed)), -1)
            addends[fixed] = addends[fixed] + bias if fixed in addends else bias
        return mix(tensor.shape, products, addends, diagonals, self.nonlinearity)
