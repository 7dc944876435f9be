"""The plain implementation of a universal neural functional: every term of every pair of tensors on its own.

It is what the public code does, in torch, and the baseline of ``pipelines/benchmark_unf.py``; it takes its weights from
our layer, so that both give the same numbers.

Letters: B networks, C channels.
"""

from collections.abc import Iterator

from torch import Tensor, nn

from wsrl.unf.folding import Bundle
from wsrl.unf.layers import EquivariantLinear
from wsrl.unf.plan import End, Meeting
from wsrl.unf.term_maps import PairMaps


class PlainEquivariantLinear(nn.Module):
    """The map of a layer, one basis term of one pair of tensors after another.

    Args:
        layer: The layer whose map it is; a map through a hub is multiplied out.
    """

    def __init__(self, layer: EquivariantLinear):
        super().__init__()
        self.nonlinearity = layer.nonlinearity
        self.shapes, self.terms, weights, biases = {}, [], [], []
        for bundle, bias in zip(layer.tensors.values(), layer.bias):
            self.shapes |= {member.name: member.shape for member in bundle.members}
            biases += [nn.Parameter(part.detach().clone()) for _, part in _members(bundle, bias, layer.map_channels)]
        for meeting, maps in zip(layer.meetings, layer.maps):
            for target, source, weight in _term_weights(meeting, maps):
                for into, columns in _members(layer.tensors[target.tensor], weight, layer.map_channels):
                    for out_of, part in _members(layer.tensors[source.tensor], columns.mT, layer.in_channels):
                        self.terms.append((into, target.pattern, out_of, source.pattern))
                        weights.append(nn.Parameter(part.mT.detach().clone()))
        self.weights, self.bias = nn.ParameterList(weights), nn.ParameterList(biases)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map folded features ``(B, *axes, C)``."""
        num = len(next(iter(features.values())))
        out = {
            name: bias.expand(num, *shape, bias.shape[-1]).clone()
            for (name, shape), bias in zip(self.shapes.items(), self.bias)
        }
        for (into, spread, out_of, pooled), weight in zip(self.terms, self.weights):
            spread.add_to(out[into], pooled.pool(features[out_of]) @ weight)
        return {name: self.nonlinearity(values) for name, values in out.items()}


def _members(bundle: Bundle, values: Tensor, channels: int) -> list[tuple[str, Tensor]]:
    """The parts of the last axis that belong to each tensor of a bundle."""
    parts = values.split([member.factor * channels for member in bundle.members], dim=-1)
    return [(member.name, part) for member, part in zip(bundle.members, parts)]


def _term_weights(meeting: Meeting, maps: nn.Module) -> Iterator[tuple[End, End, Tensor]]:
    """Target, source and matrix of every term of a meeting."""
    if isinstance(maps, PairMaps):
        pairs = [(source, target) for target in meeting.targets for source in meeting.sources]
        for (source, target), weight in zip(pairs, maps.weight):
            yield target, source, weight
        return
    rows = maps.matrix().split(maps.widths, dim=0)
    for source, row in zip(meeting.sources, rows):
        for target, weight in zip(meeting.targets, row.split(maps.sizes, dim=1)):
            yield target, source, weight
