"""The perceptron over the flattened weights of a field.

Letters: B items, F features, V trainable weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from wsrl.encoders.encoder import EncoderConfig, WeightEncoder
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.options import at_least, every, option


def perceptron(num_features: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    """Linear layers with layer norm, GELU and dropout, from features ``(B, F)`` to ``(B, hidden[-1])``."""
    blocks: list[nn.Module] = []
    for width in hidden:
        blocks += [nn.Linear(num_features, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout)]
        num_features = width
    return nn.Sequential(*blocks)


@dataclass(frozen=True, kw_only=True)
class MlpConfig(EncoderConfig):
    """Options of :class:`MlpEncoder`.

    Attributes:
        normalisation: ``entry`` or ``tensor``, see :class:`EncoderConfig`.
        dropout: Share of hidden units that is dropped in training.
        hidden: Width of each layer; the last is the embedding. None at all passes the weights on as they are, which
            makes a linear classifier of the head.
    """

    normalisation: str = "entry"
    dropout: float = 0.4
    hidden: tuple[int, ...] = option((512, 256), every(at_least(1)))


class MlpEncoder(WeightEncoder):
    """A perceptron on all trainable weights side by side; it ignores every symmetry of the weights.

    Args:
        config: Options.
        statistics: Statistics of the training fields.
    """

    kind = "mlp"
    config_class = MlpConfig

    def __init__(self, config: MlpConfig, statistics: WeightStatistics):
        super().__init__(config, statistics)
        self.blocks = perceptron(self.layout.num_trainable, config.hidden, config.dropout)
        self.embedding_size = config.hidden[-1] if config.hidden else self.layout.num_trainable

    def embed(self, vector: Tensor) -> Tensor:
        """Embeddings ``(B, E)`` of normalised trainable weights ``(B, V)``."""
        return self.blocks(vector)
