"""Deep Sets over the neurons, pairs of neurons and rank components of a field.

Letters: B fields, V trainable weights, T tokens of a set, D length of a token, H hidden width, E length of an
embedding.

Source: Zaheer et al. 2017, arXiv 1703.06114.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from wsrl.encoders.encoder import EncoderConfig, WeightEncoder
from wsrl.encoders.mlp import perceptron
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.encoders.tokens import vector_positions
from wsrl.fields.layout import Layout
from wsrl.options import at_least, option


@dataclass(frozen=True, kw_only=True)
class DeepSetsConfig(EncoderConfig):
    """Options of :class:`DeepSetsEncoder`.

    Attributes:
        normalisation: ``entry`` or ``tensor``, see :class:`EncoderConfig`; invariant with ``tensor``.
        dropout: Share of hidden units that is dropped in training, after the pooling.
        width: Hidden width of the map of a token.
        embedding_size: Length of the embedding.
    """

    dropout: float = 0.1
    width: int = option(64, at_least(1))
    embedding_size: int = option(256, at_least(1))


class DeepSetsEncoder(WeightEncoder):
    """Maps every token, averages over each set and over all of them; invariant to the layout's permutations.

    A set holds the tensors that carry the same permutations: a token is one choice of their elements (a neuron, a pair
    of neurons, a rank component) with all entries that belong to it. Tensors without a permutation are one token. Each
    set has a first projection of its own; the map behind it is shared.

    Args:
        config: Options.
        statistics: Statistics of the training fields.
    """

    kind = "deepsets"
    config_class = DeepSetsConfig

    def __init__(self, config: DeepSetsConfig, statistics: WeightStatistics):
        super().__init__(config, statistics)
        self.embedding_size = config.embedding_size
        tables = exchangeable_tokens(self.layout)
        self.num_sets, width = len(tables), config.width
        for number, table in enumerate(tables):
            self.register_buffer(f"table_{number}", table, persistent=False)
        self.projections = nn.ModuleList(nn.Linear(table.shape[1], width) for table in tables)
        self.shared = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.after = perceptron(width * (len(tables) + 1), (config.embedding_size,) * 2, config.dropout)

    def embed(self, vector: Tensor) -> Tensor:
        """Embeddings ``(B, E)`` of normalised trainable weights ``(B, V)``."""
        padded = nn.functional.pad(vector, (0, 1))  # (B, V + 1): frozen entries are zero
        pooled, counts = [], []
        for number, projection in enumerate(self.projections):
            table = getattr(self, f"table_{number}")
            tokens = self.shared(projection(padded[:, table]))  # (B, T, H)
            pooled.append(tokens.mean(1))
            counts.append(len(table))
        overall = sum(part * (count / sum(counts)) for part, count in zip(pooled, counts))
        return self.after(torch.cat([*pooled, overall], dim=1))  # (B, E)


def exchangeable_tokens(layout: Layout) -> list[Tensor]:
    """For each set of permutations that tensors carry, the positions ``(T, D)`` of its tokens in the trainable vector.

    Frozen entries have the position V, one behind the last.
    """
    positions, tables = vector_positions(layout), {}
    for spec in layout:
        # The permuted axes first, in the order of their names: together they count the tokens.
        permuted = sorted((axis, dim) for dim, axis in enumerate(spec.axes) if axis is not None)
        key = tuple(axis for axis, _ in permuted)
        moved = positions[spec.name].movedim([dim for _, dim in permuted], list(range(len(permuted))))
        tables.setdefault(key, []).append(moved.reshape(prod(moved.shape[: len(permuted)]), -1))  # (T, D of the tensor)
    return [torch.cat(parts, dim=1) for parts in tables.values()]  # (T, D) each
