"""The interface of all networks that read weights: a dictionary of tensors in, one embedding per field out.

Letters: B fields, V trainable weights of a field, E length of an embedding.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from wsrl.encoders.normalisation import WeightStatistics, shared_statistics
from wsrl.fields.layout import Layout
from wsrl.fields.saving import write_model
from wsrl.options import SHARE, check, one_of, option

NORMALISATIONS = ("entry", "tensor")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Options that all encoders share.

    Attributes:
        normalisation: ``entry`` gives every weight its own mean and standard deviation, which suits fields of one
            shared start; ``tensor`` one per tensor and per index of its fixed axes, so that permuted fields stay
            permuted fields.
        dropout: Share of hidden units that is dropped in training.

    Raises:
        UserError: A value is out of range.
    """

    normalisation: str = option("tensor", one_of(*NORMALISATIONS))
    dropout: float = option(0.0, SHARE)

    def __post_init__(self):
        check(self, "options.")


class WeightEncoder(nn.Module):
    """A network from the weights of a field to an embedding; a kind gives ``kind``, ``config_class`` and ``embed``.

    The statistics of normalisation are part of the encoder and saved with it. Frozen entries never reach the network.

    Args:
        config: Options of the kind.
        statistics: Per-entry statistics of the training fields; they carry the layout. The encoder keeps a copy that
            is shared over permuted axes where ``config.normalisation`` asks for it.
    """

    kind: ClassVar[str]
    config_class: ClassVar[type[EncoderConfig]]
    embedding_size: int

    def __init__(self, config: EncoderConfig, statistics: WeightStatistics):
        super().__init__()
        self.config = config
        self.statistics = shared_statistics(statistics) if config.normalisation == "tensor" else statistics

    @property
    def layout(self) -> Layout:
        """Layout of the fields that the encoder takes."""
        return self.statistics.layout

    @property
    def num_parameters(self) -> int:
        """Parameters that training changes."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, weights: dict[str, Tensor]) -> Tensor:
        """Embeddings ``(B, E)`` of weights ``(B, *shape)``."""
        return self.embed(self.statistics.normalise(weights))

    def embed(self, vector: Tensor) -> Tensor:
        """Embeddings ``(B, E)`` of normalised trainable weights ``(B, V)``."""
        raise NotImplementedError

    def measure(self, vectors: Tensor) -> None:
        """Take what the network needs to know of the training fields from their vectors ``(B, V)``; most need nothing.

        Called once before training, with normalised vectors of a part of the training fields.
        """

    def to_json(self) -> dict:
        """Plain values from which ``registry.encoder_from_json`` rebuilds the encoder without its parameters."""
        common = {"kind": self.kind, "options": asdict(self.config), "layout": self.layout.to_json()}
        return common | {"gauge": self.statistics.gauge}

    def save_pretrained(self, directory: Path | str) -> None:
        """Write ``config.json`` and ``model.safetensors``; :func:`wsrl.encoders.registry.load_encoder` loads them."""
        write_model(directory, {"model": "WeightEncoder", **self.to_json()}, self)
