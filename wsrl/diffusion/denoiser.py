"""The denoising transformer: attention inside each layer of a field, then over all layers; or over latent tokens.

Letters: B fields, V length of a vector, T tokens (of a layer, or of all), D length of a token, C width.

Source: arXiv 2512.01759, section on generation (tokens, rank and layer positions); Peebles and Xie 2023, arXiv
2212.09748 (the network behind the tokens).
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wsrl.encoders.attention import AdaptiveBlock
from wsrl.encoders.tokens import CUTS, LatentTokeniser, WeightTokeniser
from wsrl.fields.layout import Layout
from wsrl.options import check_values, one_of

FREQUENCIES = 128
"""Number of sines and cosines that a timestep is turned into."""


class TimestepEmbedding(nn.Module):
    """Sines and cosines of the timestep through a small network."""

    def __init__(self, width: int):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timestep: Tensor) -> Tensor:
        """Condition ``(B, C)`` of timesteps ``(B,)``."""
        waves = get_timestep_embedding(timestep, FREQUENCIES)  # float32, so that neighbours among 1000 differ
        return self.network(waves.to(self.network[0].weight.dtype))


class WeightTransformer(ModelMixin, ConfigMixin):
    """Predicts the velocity (or the noise, or the clean vector) of noisy standardised weights or latents.

    Each layer of the field has its own projections; its tokens get a position for the rank component (or neuron),
    attend to each other inside the layer in ``local_depth`` blocks, get a position for the layer, and attend to all
    tokens in ``depth`` blocks. Latents are one group of tokens and pass through all blocks alike.

    Args:
        layout: Layout of the fields, as plain lists and dicts (``Layout.to_json``); None where there are latents.
        latent: Number and size of latent tokens; None where there are weights.
        cut: ``component`` for a token per rank component or neuron, ``layer`` for one per layer.
        classes: Names of the classes that can be asked for; none for an unconditional network.
        width: Size of a token inside the network.
        depth: Blocks over the tokens of all layers.
        local_depth: Blocks inside each layer.
        heads: Attention heads; divides the width.
        expansion: Hidden units of a block's feed-forward part, in widths.

    Raises:
        UserError: The cut is unknown.
    """

    @register_to_config
    def __init__(
        self,
        layout: list | None = None,
        latent: list | None = None,
        cut: str = "component",
        classes: list = (),
        width: int = 128,
        depth: int = 4,
        local_depth: int = 2,
        heads: int = 4,
        expansion: int = 4,
    ):
        super().__init__()
        assert (layout is None) != (latent is None), "give a layout or the shape of latents"
        check_values({"cut": cut}, cut=one_of(*CUTS))
        if latent is not None:
            self.tokeniser = LatentTokeniser(*latent)
        else:
            self.tokeniser = WeightTokeniser(Layout.from_json(layout), cut)
        shapes = self.tokeniser.shapes
        self.counts = [count for count, _ in shapes]
        self.project_in = nn.ModuleList(nn.Linear(size, width) for _, size in shapes)
        self.rank_position = nn.ParameterList(nn.Parameter(0.02 * torch.randn(count, width)) for count in self.counts)
        self.layer_position = nn.Parameter(0.02 * torch.randn(len(shapes), width))
        self.time = TimestepEmbedding(width)
        self.class_embedding = nn.Embedding(len(classes) + 1, width) if classes else None  # the last one: no class
        self.local_blocks = nn.ModuleList(AdaptiveBlock(width, heads, expansion) for _ in range(local_depth))
        self.blocks = nn.ModuleList(AdaptiveBlock(width, heads, expansion) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation_out = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.project_out = nn.ModuleList(nn.Linear(width, size) for _, size in shapes)
        for layer in (self.modulation_out[1], *self.project_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        layer_of_token = torch.repeat_interleave(torch.arange(len(shapes)), torch.tensor(self.counts))
        self.register_buffer("layer_of_token", layer_of_token, persistent=False)
        same_layer = layer_of_token[:, None] == layer_of_token[None, :]
        self.register_buffer("same_layer", same_layer, persistent=False)  # (T, T)

    @property
    def vector_size(self) -> int:
        """Length V of the vectors."""
        if self.config.latent is not None:
            return self.config.latent[0] * self.config.latent[1]
        return len(self.tokeniser.inverse)

    @property
    def num_tokens(self) -> int:
        """Tokens T of a field."""
        return sum(self.counts)

    @torch.no_grad()
    def count_flops(self) -> int:
        """Floating-point operations of the matrix products of one forward pass for one field."""
        vector, timestep = self.layer_position.new_zeros(1, self.vector_size), self.layer_position.new_zeros(1)
        with FlopCounterMode(display=False) as counter:
            self(vector, timestep)
        return counter.get_total_flops()

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Prediction ``(B, V)`` for noisy vectors.

        Args:
            sample: Noisy vectors ``(B, V)``.
            timestep: Timesteps ``(B,)``, or one for all.
            class_labels: Class numbers ``(B,)``, -1 for none; None for no class at all.

        Vectors come and go in their own type and are computed in that of the parameters: the steps of a sampler need
        float32 also where the network is in bfloat16.
        """
        dtype, sample = sample.dtype, sample.to(self.dtype)
        condition = self.time(timestep.reshape(-1).expand(len(sample)))  # (B, C)
        if self.class_embedding is not None:
            condition = condition + self._embed_classes(class_labels, len(sample))  # (B, C)
        tokens = self._embed(sample)  # (B, T, C)
        # A layer's tokens look at each other, then all tokens at all.
        for block in self.local_blocks:
            tokens = block(tokens, condition, self.same_layer if len(self.counts) > 1 else None)  # (B, T, C)
        tokens = tokens + self.layer_position[self.layer_of_token]  # (B, T, C)
        for block in self.blocks:
            tokens = block(tokens, condition)  # (B, T, C)
        # Each layer's tokens back to its weights; the projections are zero before training.
        shift, scale = self.modulation_out(condition)[:, None].chunk(2, dim=-1)  # (B, 1, C) each
        parts = (self.norm_out(tokens) * (1 + scale) + shift).split(self.counts, dim=1)  # (B, T of a layer, C) each
        written = [layer(part) for layer, part in zip(self.project_out, parts)]  # (B, T of a layer, D) each
        return self.tokeniser.join(written).to(dtype)  # (B, V)

    def _embed_classes(self, labels: Tensor | None, num: int) -> Tensor:
        """Condition ``(B, C)`` of class numbers; the last row of the table stands for no class."""
        none = self.class_embedding.num_embeddings - 1
        if labels is None:
            return self.class_embedding.weight[none].expand(num, -1)
        return self.class_embedding(torch.where(labels < 0, none, labels))

    def _embed(self, sample: Tensor) -> Tensor:
        """Tokens ``(B, T, C)`` of all layers, with their rank positions."""
        parts = zip(self.tokeniser(sample), self.project_in, self.rank_position)
        return torch.cat([layer(part) + position for part, layer, position in parts], dim=1)
