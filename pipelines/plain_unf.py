"""The plain implementation of a universal neural functional: every term of every pair of tensors on its own.

It is what the public code does, in torch, and the baseline of ``pipelines/benchmark_unf.py``; it takes its weights from
our layer, so that both give the same numbers.

Letters: B networks, C channels.
"""

from torch import Tensor, nn

from wsrl.unf.layers import EquivariantLinear
from wsrl.unf.maps import PairMaps


class PlainEquivariantLinear(nn.Module):
    """The map of a layer, one basis term after another.

    Args:
        layer: The layer whose map it is; a map through a hub is multiplied out.
    """

    def __init__(self, layer: EquivariantLinear):
        super().__init__()
        self.tensors, self.nonlinearity = layer.tensors, layer.nonlinearity
        self.terms, weights = [], []
        for meeting, maps in zip(layer.meetings, layer.maps):
            for target, source, weight in term_weights(meeting, maps):
                self.terms.append((target, source))
                weights.append(nn.Parameter(weight.detach().clone()))
        self.weights = nn.ParameterList(weights)
        self.bias = nn.ParameterList(nn.Parameter(bias.detach().clone()) for bias in layer.bias)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map folded features ``(B, *axes, C)``."""
        num = len(next(iter(features.values())))
        out = {
            name: bias.expand(num, *tensor.shape, bias.shape[-1]).clone()
            for (name, tensor), bias in zip(self.tensors.items(), self.bias)
        }
        for (target, source), weight in zip(self.terms, self.weights):
            values = source.pattern.pool(features[source.tensor]) @ weight
            target.pattern.add_to(out[target.tensor], values)
        return {name: self.nonlinearity(values) for name, values in out.items()}


def term_weights(meeting, maps):
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
