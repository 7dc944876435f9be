"""What training leaves: an encoder with a linear head that names classes or predicts a number.

Letters: B fields, V trainable weights, K outputs of the head.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from wsrl.encoders.encoder import WeightEncoder
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.encoders.registry import encoder_from_json
from wsrl.fields.layout import Layout
from wsrl.fields.saving import read_model, write_model


class WeightModel(nn.Module):
    """An encoder, dropout and a linear layer.

    Args:
        encoder: Any kind of encoder.
        num_outputs: Outputs of the head.
        head_dropout: Share of the embedding that is dropped in training.
    """

    what: ClassVar[str]

    def __init__(self, encoder: WeightEncoder, num_outputs: int, head_dropout: float = 0.0):
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(encoder.embedding_size, num_outputs)

    @property
    def layout(self) -> Layout:
        """Layout of the fields that the model takes."""
        return self.encoder.layout

    @property
    def statistics(self) -> WeightStatistics:
        """Normalisation of the weights."""
        return self.encoder.statistics

    def outputs(self, vector: Tensor) -> Tensor:
        """Outputs ``(B, K)`` of the head for normalised trainable weights ``(B, V)``."""
        return self.head(self.dropout(self.encoder.embed(vector)))

    def to_json(self) -> dict:
        """Plain values from which ``from_json`` rebuilds the model without its parameters."""
        common = {"encoder": self.encoder.to_json(), "head_dropout": self.dropout.p}
        return {"model": type(self).__name__, **common, **self.own_json()}

    def own_json(self) -> dict:
        """What :meth:`to_json` keeps of this kind of model alone."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, data: dict) -> "WeightModel":
        """Rebuild a model from :meth:`to_json`; its parameters and statistics are to be loaded."""
        data = dict(data)
        name = data.pop("model")
        if name != cls.__name__:
            raise ValueError(f"it holds a {name}, not a {cls.__name__}")
        return cls(encoder_from_json(data.pop("encoder")), **data)

    def save_pretrained(self, directory: Path | str) -> None:
        """Write ``config.json`` (encoder, layout, outputs) and ``model.safetensors`` (parameters and statistics)."""
        write_model(directory, self.to_json(), self)

    @classmethod
    def from_pretrained(cls, directory: Path | str) -> "WeightModel":
        """Load what :meth:`save_pretrained` wrote, in evaluation mode on the CPU.

        Raises:
            UserError: The folder does not hold such a model, or it is damaged.
        """
        return read_model(directory, cls.from_json, cls.what)


class WeightClassifier(WeightModel):
    """The class of a field's signal from its weights.

    Args:
        encoder: Any kind of encoder.
        label_names: Name of each class.
        head_dropout: Share of the embedding that is dropped in training.
    """

    what = "a classifier over weights"

    def __init__(self, encoder: WeightEncoder, label_names: Sequence[str], head_dropout: float = 0.0):
        super().__init__(encoder, len(label_names), head_dropout)
        self.label_names = tuple(label_names)

    def forward(self, weights: dict[str, Tensor]) -> Tensor:
        """Logits ``(B, K)`` of weights ``(B, *shape)``."""
        return self.outputs(self.statistics.normalise(weights))

    def own_json(self) -> dict:
        """The class names."""
        return {"label_names": list(self.label_names)}

    @torch.no_grad()
    def predict(self, weights: dict[str, Tensor]) -> list[str]:
        """The most probable class name of each field of weights ``(B, *shape)``."""
        return [self.label_names[index] for index in self(weights).argmax(dim=1).tolist()]


class WeightRegressor(WeightModel):
    """A stored metric of a field, such as its PSNR, from its weights.

    Args:
        encoder: Any kind of encoder.
        target: Name of the metric.
        head_dropout: Share of the embedding that is dropped in training.
    """

    what = "a regressor over weights"

    def __init__(self, encoder: WeightEncoder, target: str, head_dropout: float = 0.0):
        super().__init__(encoder, 1, head_dropout)
        self.target = target
        self.register_buffer("target_mean", torch.zeros(()))
        self.register_buffer("target_std", torch.ones(()))

    def standardised(self, vector: Tensor) -> Tensor:
        """Standardised predictions ``(B,)`` for normalised weights ``(B, V)``: mean 0, variance 1 over the training."""
        return self.outputs(vector).squeeze(1)

    def forward(self, weights: dict[str, Tensor]) -> Tensor:
        """The metric ``(B,)`` in its own unit, predicted from weights ``(B, *shape)``."""
        return self.standardised(self.statistics.normalise(weights)) * self.target_std + self.target_mean

    def own_json(self) -> dict:
        """The name of the metric."""
        return {"target": self.target}
