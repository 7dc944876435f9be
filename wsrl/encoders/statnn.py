"""A perceptron on simple statistics of every tensor.

Letters: B fields, V trainable weights, S statistics of a field, E length of an embedding.

Source: Unterthiner, Keysers, Gelly, Bousquet and Tolstikhin 2020, arXiv 2002.11448, section 4.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wsrl.encoders.encoder import EncoderConfig, WeightEncoder
from wsrl.encoders.mlp import perceptron
from wsrl.encoders.normalisation import Moments, WeightStatistics
from wsrl.options import Allowed, option

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
WIDTHS = Allowed("at least one width of 1 or more", lambda widths: len(widths) > 0 and min(widths) >= 1)


@dataclass(frozen=True, kw_only=True)
class StatNNConfig(EncoderConfig):
    """Options of :class:`StatNNEncoder`.

    Attributes:
        normalisation: ``entry`` or ``tensor``, see :class:`EncoderConfig`; invariant with ``tensor``.
        dropout: Share of hidden units that is dropped in training.
        hidden: Width of each layer after the statistics; the last is the embedding.
    """

    dropout: float = 0.1
    hidden: tuple[int, ...] = option((512, 256), WIDTHS)


class StatNNEncoder(WeightEncoder):
    """Mean, variance and five quantiles of each tensor, then a perceptron; invariant to the layout's permutations.

    Args:
        config: Options.
        statistics: Statistics of the training fields.
    """

    kind = "statnn"
    config_class = StatNNConfig

    def __init__(self, config: StatNNConfig, statistics: WeightStatistics):
        super().__init__(config, statistics)
        counts = [int(spec.trainable().sum()) for spec in self.layout]
        self.counts = counts
        size = (2 + len(QUANTILES)) * sum(count > 0 for count in counts)
        self.register_buffer("quantiles", torch.tensor(QUANTILES), persistent=False)
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))
        self.blocks = perceptron(size, config.hidden, config.dropout)
        self.embedding_size = config.hidden[-1]

    def summaries(self, vector: Tensor) -> Tensor:
        """The statistics ``(B, S)`` of vectors ``(B, V)``, tensor by tensor."""
        summaries = []
        for part in vector.split(self.counts, dim=1):
            if part.shape[1]:
                quantiles = torch.quantile(part, self.quantiles.to(part.dtype), dim=1).T
                summaries += [part.mean(1, keepdim=True), part.var(1, keepdim=True, correction=0), quantiles]
        return torch.cat(summaries, dim=1)  # (B, S)

    def measure(self, vectors: Tensor) -> None:
        """Take mean and standard deviation of each statistic, which vary far less than the weights they are made of."""
        moments = Moments(len(self.center))
        moments.update(self.summaries(vectors).double().cpu())
        self.center.copy_(moments.mean)
        self.spread.copy_((moments.squares / moments.count).sqrt().clamp_min(1e-4))

    def embed(self, vector: Tensor) -> Tensor:
        """Embeddings ``(B, E)`` of normalised trainable weights ``(B, V)``."""
        return self.blocks((self.summaries(vector) - self.center) / self.spread)
