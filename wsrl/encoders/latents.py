"""The two halves of a weight autoencoder: a network that reads weights into latent tokens, and one that writes them.

Letters: B fields, V trainable weights, T tokens of a layer, S tokens of a field, K latent tokens, D length of a latent
token, H width of a token inside.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wsrl.encoders.attention import CrossBlock
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.encoders.registry import build_encoder
from wsrl.encoders.tokens import WeightTokeniser
from wsrl.encoders.transformer import TransformerConfig, make_blocks
from wsrl.fields.layout import Layout

READERS = ("transformer", "unf")
WRITERS = ("joint", "cross")


class TransformerReader(nn.Module):
    """Tokens of a field and K learned ones through the same blocks; the latter are what has been read.

    Args:
        layout: Layout of the fields.
        config: Options of the blocks.
        num_tokens: Number K of latent tokens.
        size: Length D that are read into each.
    """

    def __init__(self, layout: Layout, config: TransformerConfig, num_tokens: int, size: int):
        super().__init__()
        self.num_tokens, width = num_tokens, config.width
        self.tokenise = WeightTokeniser(layout)
        self.projections = nn.ModuleList(nn.Linear(count, width) for _, count in self.tokenise.shapes)
        num_weight_tokens = sum(count for count, _ in self.tokenise.shapes)
        self.positions = nn.Parameter(0.02 * torch.randn(num_weight_tokens, width))
        self.queries = nn.Parameter(0.5 * torch.randn(num_tokens, width))
        self.blocks = make_blocks(config)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, size)

    def forward(self, vector: Tensor) -> Tensor:
        """What is read ``(B, K, D)`` from normalised trainable weights ``(B, V)``."""
        parts = [project(part) for project, part in zip(self.projections, self.tokenise(vector))]
        tokens = torch.cat(parts, dim=1) + self.positions  # (B, S, H)
        tokens = torch.cat([self.queries.expand(len(tokens), -1, -1), tokens], dim=1)  # (B, K + S, H)
        for block in self.blocks:
            tokens = block(tokens)
        return self.out(self.norm(tokens[:, : self.num_tokens]))  # (B, K, D)


class UnfReader(nn.Module):
    """A universal neural functional with invariant pooling, whose embedding is cut into latent tokens.

    Args:
        layout: Layout of the fields.
        options: Options of :class:`wsrl.encoders.unf.UnfEncoder`.
        num_tokens: Number K of latent tokens.
        size: Length D that are read into each.
    """

    def __init__(self, layout: Layout, options: Mapping[str, Any], num_tokens: int, size: int):
        super().__init__()
        self.num_tokens = num_tokens
        # its statistics stay at mean 0 and standard deviation 1: what goes in is normalised already
        self.encoder = build_encoder("unf", {**options, "normalisation": "entry"}, WeightStatistics(layout))
        self.out = nn.Linear(self.encoder.embedding_size, num_tokens * size)

    def forward(self, vector: Tensor) -> Tensor:
        """What is read ``(B, K, D)`` from normalised trainable weights ``(B, V)``."""
        return self.out(self.encoder.embed(vector)).unflatten(-1, (self.num_tokens, -1))  # (B, K, D)


class WeightWriter(nn.Module):
    """Latent tokens to normalised weights; zero, which is the mean field, before training.

    ``joint``: one learned query per token of the field goes through the same blocks as the latent tokens. ``cross``:
    the latent tokens go through the blocks by themselves, and the queries then look at them once.

    Args:
        layout: Layout of the fields.
        config: Options of the blocks.
        kind: One of ``WRITERS``.
        num_tokens: Number K of latent tokens.
        size: Length D of each.
        linear: Add a linear map of the whole latent.
    """

    def __init__(self, layout: Layout, config: TransformerConfig, kind: str, num_tokens: int, size: int, linear: bool):
        super().__init__()
        width = config.width
        self.tokenise = WeightTokeniser(layout)
        self.counts = [count for count, _ in self.tokenise.shapes]
        self.project = nn.Linear(size, width)
        self.positions = nn.Parameter(0.02 * torch.randn(num_tokens, width))
        self.queries = nn.Parameter(0.5 * torch.randn(sum(self.counts), width))
        self.blocks = make_blocks(config)
        self.cross = CrossBlock(width, config.heads, config.expansion) if kind == "cross" else None
        self.norm = nn.LayerNorm(width)
        self.outputs = nn.ModuleList(nn.Linear(width, count) for _, count in self.tokenise.shapes)
        self.linear = nn.Linear(num_tokens * size, layout.num_trainable, bias=False) if linear else None
        for layer in [*self.outputs, *([self.linear] if linear else [])]:
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, latent: Tensor) -> Tensor:
        """Normalised trainable weights ``(B, V)`` of latent tokens ``(B, K, D)``."""
        tokens = self.project(latent) + self.positions  # (B, K, H)
        queries = self.queries.expand(len(latent), -1, -1)  # (B, S, H)
        if self.cross is None:
            tokens = torch.cat([queries, tokens], dim=1)  # (B, S + K, H)
        for block in self.blocks:
            tokens = block(tokens)
        written = tokens[:, : queries.shape[1]] if self.cross is None else self.cross(queries, tokens)
        parts = self.norm(written).split(self.counts, dim=1)  # (B, T, H) each
        vector = self.tokenise.join([layer(part) for layer, part in zip(self.outputs, parts)])  # (B, V)
        return vector if self.linear is None else vector + self.linear(latent.flatten(1))
