"""A universal neural functional over the weights of a store.

Letters: B fields, W weights of a field, V trainable ones among them, C channels, E length of an embedding.

Source: Zhou, Finn and Harrison 2024, arXiv 2402.05232.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsrl.encoders.encoder import EncoderConfig, WeightEncoder
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.options import at_least, one_of, option
from wsrl.symmetry.fields.sine import canonical_sines, sine_layers
from wsrl.symmetry.spec.spec import PermutationSpec
from wsrl.unf.functionals import NONLINEARITIES, InvariantNetwork, UnfConfig


@dataclass(frozen=True, kw_only=True)
class UnfEncoderConfig(EncoderConfig):
    """Options of :class:`UnfEncoder`.

    Attributes:
        normalisation: ``entry`` or ``tensor``, see :class:`EncoderConfig`; invariant with ``tensor``.
        dropout: Share of the pooled features and of the perceptron's hidden units that is dropped in training.
        channels: Channels of every equivariant layer.
        depth: Equivariant layers.
        activation: ``gated`` or ``relu``, see :class:`wsrl.unf.functionals.UnfConfig`.
        norm: Divide the features of each tensor by their root mean square between layers.
        num_frequencies: Octaves of sines and cosines of every weight that go in beside it; they tell apart the many
            frequencies and phases of independently started sine networks.
        lowest_frequency: Of the first octave, in radians per standard deviation of the tensor's weights.
        sine_omegas: Factor inside the sine of each hidden layer of a plain sine network: its weights are then read in
            a form that is free of the signs and phases of neurons (:mod:`wsrl.symmetry.fields.sine`). Empty for none.
        hidden_size: Width of the perceptron after invariant pooling.
        embedding_size: Length of the embedding.
        entry_channels: Channels that a learned factor and offset of every entry make of its weight, for fields of one
            shared start, whose neurons can be told apart; that gives up invariance. Zero takes the weights alone.
    """

    channels: int = option(32, at_least(1))
    depth: int = option(3, at_least(1))
    activation: str = option("gated", one_of(*NONLINEARITIES))
    norm: bool = True
    num_frequencies: int = option(0, at_least(0))
    lowest_frequency: float = 0.5
    sine_omegas: tuple[float, ...] = ()
    hidden_size: int = option(256, at_least(1))
    embedding_size: int = option(256, at_least(1))
    entry_channels: int = option(0, at_least(0))


class UnfEncoder(WeightEncoder):
    """Equivariant layers over all tensors and invariant pooling; invariant to the layout's permutations.

    Args:
        config: Options.
        statistics: Statistics of the training fields.
    """

    kind = "unf"
    config_class = UnfEncoderConfig

    def __init__(self, config: UnfEncoderConfig, statistics: WeightStatistics):
        super().__init__(config, statistics)
        self.embedding_size = config.embedding_size
        self._sines = sine_layers(self.layout, config.sine_omegas) if config.sine_omegas else ()
        num_inputs = max(config.entry_channels, 1)
        self.factors = self.offsets = None
        if config.entry_channels:
            self.factors = nn.Parameter(torch.randn(self.layout.num_trainable, num_inputs))
            self.offsets = nn.Parameter(torch.randn(self.layout.num_trainable, num_inputs))
        sizes = UnfConfig(
            channels=config.channels,
            depth=config.depth,
            activation=config.activation,
            num_frequencies=config.num_frequencies,
            lowest_frequency=config.lowest_frequency,
            norm=config.norm,
            hidden=config.hidden_size,
            dropout=config.dropout,
            seed=int(torch.randint(2**31, ())),
        )
        spec = PermutationSpec.from_layout(self.layout)
        self.network = InvariantNetwork(spec, sizes, num_inputs, config.embedding_size)

    def embed(self, vector: Tensor) -> Tensor:
        """Embeddings ``(B, E)`` of normalised trainable weights ``(B, V)``."""
        if self._sines:
            weights = canonical_sines(self.statistics.denormalise(vector), self._sines)
            vector = self.statistics.normalise(weights)
        values = vector[..., None]
        if self.factors is not None:
            values = values * self.factors + self.offsets
        return self.network(self._tensors(values))

    def _tensors(self, values: Tensor) -> dict[str, Tensor]:
        """Features ``(B, *shape, C)`` of trainable entries ``(B, V, C)``; zero where an entry is frozen."""
        layout, index = self.layout, self.statistics.trainable_index
        if len(index) < layout.num_weights:
            full = values.new_zeros(len(values), layout.num_weights, values.shape[-1])
            values = full.index_copy(1, index, values)
        parts = values.split([spec.size for spec in layout], dim=1)
        return {spec.name: part.unflatten(1, spec.shape) for spec, part in zip(layout, parts)}
