"""A transformer over the neurons or rank components of a field.

Letters: B fields, V trainable weights, S tokens of a field, H width of a token, E length of an embedding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from wsrl.encoders.attention import AttentionBlock
from wsrl.encoders.encoder import EncoderConfig, WeightEncoder
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.encoders.tokens import WeightTokeniser
from wsrl.options import at_least, check_values, multiple_of, one_of, option

POOLINGS = ("token", "mean", "places")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(EncoderConfig):
    """Options of :class:`TransformerEncoder`.

    Attributes:
        normalisation: ``entry`` or ``tensor``, see :class:`EncoderConfig`.
        dropout: Share of the units of each branch that is dropped in training.
        width: Size of a token inside, and of the embedding.
        depth: Number of blocks.
        heads: Attention heads; divides the width.
        expansion: Hidden units of a feed-forward branch, in widths.
        positions: Give every neuron or rank component an embedding of its own, beside that of its layer.
        pooling: ``token`` reads the embedding from an additional token, ``mean`` averages all tokens, ``places`` adds
            up a linear map of each token that is that of its place: for fields of one shared start.
    """

    normalisation: str = "entry"
    dropout: float = 0.1
    width: int = option(128, at_least(1))
    depth: int = option(3, at_least(1))
    heads: int = option(4, at_least(1))
    expansion: int = option(2, at_least(1))
    positions: bool = True
    pooling: str = option("token", one_of(*POOLINGS))

    def __post_init__(self):
        super().__post_init__()
        check_values({"width": self.width}, "options.", width=multiple_of(self.heads, "heads"))


def make_blocks(config: TransformerConfig) -> nn.ModuleList:
    """The blocks that a configuration asks for."""
    sizes = (config.width, config.heads, config.expansion, config.dropout)
    return nn.ModuleList(AttentionBlock(*sizes) for _ in range(config.depth))


class TransformerEncoder(WeightEncoder):
    """Tokens of :class:`WeightTokeniser`, projected layer by layer, through pre-norm blocks.

    It is no invariant network. Without ``positions`` and with ``normalisation: tensor``, exchanging the tokens of a
    layer changes nothing; that is a symmetry of the field only where their contents stay the same, as for the rank
    components of an adapter. A permuted neuron of a standalone field also moves numbers inside the tokens of the next
    layer; augmentation by permutations teaches that, the architecture does not know it.

    Args:
        config: Options.
        statistics: Statistics of the training fields.
    """

    kind = "transformer"
    config_class = TransformerConfig

    def __init__(self, config: TransformerConfig, statistics: WeightStatistics):
        super().__init__(config, statistics)
        self.embedding_size = width = config.width
        self.tokenise = WeightTokeniser(self.layout)
        self.projections = nn.ModuleList(nn.Linear(size, width) for _, size in self.tokenise.shapes)
        num_tokens = sum(count for count, _ in self.tokenise.shapes)
        self.positions = nn.Parameter(0.02 * torch.randn(num_tokens, width)) if config.positions else None
        self.pool = nn.Parameter(0.02 * torch.randn(1, 1, width)) if config.pooling == "token" else None
        self.blocks = make_blocks(config)
        self.norm = nn.LayerNorm(width)
        self.rate = config.dropout
        self.read = nn.Linear(num_tokens * width, width) if config.pooling == "places" else None

    def embed(self, vector: Tensor) -> Tensor:
        """Embeddings ``(B, E)`` of normalised trainable weights ``(B, V)``."""
        parts = zip(self.projections, self.tokenise(vector))
        tokens = torch.cat([project(part) for project, part in parts], dim=1)  # (B, S, H); a bias for every layer
        if self.positions is not None:
            tokens = tokens + self.positions  # (B, S, H)
        if self.pool is not None:
            tokens = torch.cat([self.pool.expand(len(tokens), -1, -1), tokens], dim=1)  # (B, 1 + S, H)
        for block in self.blocks:
            tokens = block(tokens)
        if self.read is not None:
            return self.read(dropout(self.norm(tokens).flatten(1), self.rate, self.training))  # (B, S * H) -> (B, H)
        return self.norm(tokens[:, 0] if self.pool is not None else tokens.mean(1))  # (B, H)
