"""The plain perceptron: over any feature vector, and over the flattened weights of a field.

Letters: B items, F features, K classes.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wsrl.encoders.normalisation import WeightStatistics
from wsrl.errors import UserError
from wsrl.fields.layout import Layout

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class MlpClassifier(nn.Module):
    """Linear layers with layer norm, GELU and dropout; knows nothing of where its features come from.

    Args:
        num_features: Length of the feature vector.
        num_classes: Number of classes.
        hidden: Width of each hidden layer; none gives a linear classifier.
        dropout: Share of hidden units that is dropped in training.
    """

    def __init__(self, num_features: int, num_classes: int, hidden: Sequence[int] = (256, 256), dropout: float = 0.2):
        super().__init__()
        self.config = {
            "num_features": num_features,
            "num_classes": num_classes,
            "hidden": list(hidden),
            "dropout": dropout,
        }
        blocks: list[nn.Module] = []
        width = num_features
        for next_width in hidden:
            blocks += [nn.Linear(width, next_width), nn.LayerNorm(next_width), nn.GELU(), nn.Dropout(dropout)]
            width = next_width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(B, K)`` of features ``(B, F)``."""
        return self.head(self.blocks(features))


class WeightMlpClassifier(nn.Module):
    """The perceptron over the normalised trainable weights of a field.

    It ignores every symmetry of the weights, so it needs fields that started from one shared initialisation. The
    normalisation statistics are part of the model and are saved with it.

    Args:
        statistics: Statistics of the training fields; they carry the layout.
        label_names: Name of each class.
        hidden: Width of each hidden layer.
        dropout: Share of hidden units that is dropped in training.
    """

    def __init__(
        self,
        statistics: WeightStatistics,
        label_names: Sequence[str],
        hidden: Sequence[int] = (256, 256),
        dropout: float = 0.2,
    ):
        super().__init__()
        self.label_names = tuple(label_names)
        self.statistics = statistics
        self.network = MlpClassifier(statistics.layout.num_trainable, len(self.label_names), hidden, dropout)

    @property
    def layout(self) -> Layout:
        """Layout of the fields that the model takes."""
        return self.statistics.layout

    def forward(self, weights: dict[str, Tensor]) -> Tensor:
        """Logits ``(B, K)`` of weights ``(B, *shape)``."""
        return self.network(self.statistics.normalise(weights))

    def save_pretrained(self, directory: Path | str) -> None:
        """Write ``config.json`` (layout, label names, sizes) and ``model.safetensors`` (network and statistics)."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        config = {
            "model": type(self).__name__,
            "label_names": list(self.label_names),
            "hidden": self.network.config["hidden"],
            "dropout": self.network.config["dropout"],
            "layout": self.layout.to_json(),
        }
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, directory / WEIGHTS_FILE)
        (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, directory: Path | str) -> "WeightMlpClassifier":
        """Load what :meth:`save_pretrained` wrote, in evaluation mode on the CPU.

        Args:
            directory: Folder of the model.

        Returns:
            The model.

        Raises:
            UserError: The folder does not hold such a model, or it is damaged.
        """
        directory = Path(directory)
        try:
            config = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
            statistics = WeightStatistics(Layout.from_json(config["layout"]))
            model = cls(statistics, config["label_names"], config["hidden"], config["dropout"])
            model.load_state_dict(load_file(directory / WEIGHTS_FILE))
        except (FileNotFoundError, KeyError, TypeError, json.JSONDecodeError, SafetensorError, RuntimeError) as error:
            raise UserError(
                f"{directory} does not hold a classifier over weights: {error}",
                allowed=f"a folder with {CONFIG_FILE} and {WEIGHTS_FILE} written by wsrl train classifier",
                do="give the folder `model` of a finished training run",
            ) from error
        return model.eval()

    @torch.no_grad()
    def predict(self, weights: dict[str, Tensor]) -> list[str]:
        """The most probable class name of each field of weights ``(B, *shape)``."""
        return [self.label_names[index] for index in self(weights).argmax(dim=1).tolist()]
