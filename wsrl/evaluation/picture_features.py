"""Features of pictures for the scores of generated ones: from a classifier that is trained once and kept, or from timm.

Letters: N pictures, C channels, H height, W width, F features, K classes.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsrl.caches import data_cache
from wsrl.errors import UserError
from wsrl.evaluation.picture_classifier import (
    ClassifierOptions,
    PictureClassifier,
    in_blocks,
    train_picture_classifier,
    training_sha256,
)
from wsrl.fields.saving import CONFIG_FILE, WEIGHTS_FILE, read_model, write_model
from wsrl.progress import ShowProgress, silent

TIMM = "timm:"
NEEDED = "give --features timm:NAME, a model that was trained elsewhere, or label the data: one sub-folder per class"


@dataclass(frozen=True, kw_only=True)
class PictureFeatures:
    """What turns pictures into features.

    Attributes:
        name: Where they come from, for people.
        sha256: Hash of the model's weights; scores of different hashes cannot be compared.
        extract: From a block of pictures ``(N, C, H, W)`` in [0, 1] to features ``(N, F)``.
        classify: From a block of pictures to logits ``(N, K)``; None where the model knows none of our classes.
        label_names: Names of the classes.
        accuracy: Share of unseen pictures that the classifier names rightly; None where there is no classifier.
        num_test: Number of those pictures.
    """

    name: str
    sha256: str
    extract: Callable[[Tensor], Tensor]
    classify: Callable[[Tensor], Tensor] | None = None
    label_names: tuple[str, ...] = ()
    accuracy: float | None = None
    num_test: int = 0

    def __call__(self, pictures: Tensor) -> Tensor:
        """Features ``(N, F)`` of pictures ``(N, C, H, W)`` in [0, 1]."""
        return in_blocks(self.extract, pictures)

    def probabilities(self, pictures: Tensor) -> Tensor:
        """Probabilities ``(N, K)`` of the classes.

        Raises:
            UserError: The model knows none of our classes.
        """
        if self.classify is None:
            raise UserError(
                f"{self.name} has no classes", allowed="features of a classifier", do="leave --features out, or label"
            )
        return in_blocks(self.classify, pictures).softmax(dim=1)

    def agreement(self, pictures: Tensor, labels: Tensor) -> float:
        """Share of pictures ``(N, C, H, W)`` whose most probable class is the asked one, ``(N,)``."""
        return float((self.probabilities(pictures).argmax(dim=1) == labels).double().mean())


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures with classes.

    Attributes:
        pictures: Pictures ``(N, C, H, W)`` in [0, 1].
        labels: Class indices ``(N,)``.
    """

    pictures: Tensor
    labels: Tensor


def default_features_folder() -> Path:
    """Where classifiers are kept: ``$WSRL_CACHE/features``, else ``~/.cache/wsrl/features``, else temporary."""
    return data_cache("features")


def kept_classifier(
    train: LabelledPictures,
    test: LabelledPictures,
    label_names: tuple[str, ...],
    folder: Path,
    options: ClassifierOptions | None = None,
    progress: ShowProgress = silent,
) -> Path:
    """A classifier of these pictures: the one that a folder keeps, or a new one that it keeps from now on.

    Args:
        train: Pictures to train on.
        test: Pictures that it is tested on.
        label_names: Names of the classes.
        folder: Folder of all classifiers; each has a sub-folder that is named by what it was trained on.
        options: Size and training; None takes the defaults.
        progress: Shows how many pictures training has seen.

    Returns:
        The sub-folder, which :func:`read_classifier` opens.

    Raises:
        UserError: There are too few pictures or classes.
    """
    options = options or ClassifierOptions()
    trained_on = training_sha256(train.pictures, train.labels, options)
    directory = folder / trained_on[:16]
    # Trained and tested once; its folder is named by what it was trained on.
    if not (directory / CONFIG_FILE).is_file():
        network = train_picture_classifier(train.pictures, train.labels, len(label_names), options, progress)
        right = in_blocks(network, test.pictures).argmax(dim=1) == test.labels
        facts = {
            "model": model_options(network),
            "options": asdict(options),
            "trained_on": trained_on,
            "num_train": len(train.labels),
            "label_names": list(label_names),
            "accuracy": float(right.double().mean()) if len(right) else None,
            "num_test": len(right),
        }
        write_model(directory, facts, network)
    return directory


def model_options(network: PictureClassifier) -> dict[str, int]:
    """Arguments that make an untrained classifier of the same form."""
    return {
        "channels": network.convolutions[0].in_channels,
        "num_classes": network.classes.out_features,
        "width": network.convolutions[0].out_channels,
        "largest_side": network.largest_side,
    }


def read_classifier(directory: Path) -> PictureFeatures:
    """Features of a classifier that was kept.

    Args:
        directory: Its folder, with ``config.json`` and ``model.safetensors``.

    Raises:
        UserError: The folder does not hold a classifier of pictures, or it is damaged.
    """
    network, known = open_classifier(directory)
    return PictureFeatures(
        name=f"classifier of {known['num_train']} pictures in {len(known['label_names'])} classes, {directory}",
        sha256=hashlib.sha256((directory / WEIGHTS_FILE).read_bytes()).hexdigest(),
        extract=network.features,
        classify=network,
        label_names=tuple(known["label_names"]),
        accuracy=known["accuracy"],
        num_test=known["num_test"],
    )


def open_classifier(directory: Path) -> tuple[PictureClassifier, dict]:
    """A classifier that was kept, which is not trained further, and what is known of it.

    Args:
        directory: Its folder, with ``config.json`` and ``model.safetensors``.

    Raises:
        UserError: The folder does not hold a classifier of pictures, or it is damaged.
    """
    known = {}

    def build(config: dict) -> nn.Module:
        known.update({name: config[name] for name in ("label_names", "accuracy", "num_test", "num_train")})
        return PictureClassifier(**config["model"])

    return read_model(directory, build, "a classifier of pictures").requires_grad_(False), known


def timm_features(name: str) -> PictureFeatures:
    """Features of a pretrained model of timm, before its last linear map.

    Grey pictures are repeated in three channels; all are resized to what the model expects, bicubic, and normalised as
    its configuration says.

    Args:
        name: Name of the model, with or without ``timm:`` before it.

    Raises:
        UserError: timm is not installed, knows no such model, or cannot get its weights.
    """
    name = name.removeprefix(TIMM)
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # a torchvision beside another torch is a RuntimeError
        raise UserError(
            f"{TIMM}{name} needs timm, which cannot be imported: {error}",
            allowed="a folder of a classifier, or timm:NAME where timm is installed",
            do="pip install timm",
        ) from error
    try:
        network = timm.create_model(name, pretrained=True, num_classes=0).eval().requires_grad_(False)
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(
            f"timm has no model {name!r} with weights: {str(error).splitlines()[0]}",
            allowed="a name of timm.list_models(pretrained=True)",
            do="choose another one, or go online once so that timm keeps its weights",
        ) from error
    # Pictures in the size, the channels and the normalisation that the model expects.
    expected = timm.data.resolve_model_data_config(network)

    def extract(pictures: Tensor) -> Tensor:
        x = pictures.expand(-1, 3, -1, -1) if pictures.shape[1] == 1 else pictures
        x = functional.interpolate(x, size=expected["input_size"][1:], mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(expected[key])[:, None, None] for key in ("mean", "std"))
        return network((x - mean) / std)

    return PictureFeatures(name=f"{TIMM}{name}", sha256=state_sha256(network), extract=extract)


def state_sha256(network: nn.Module) -> str:
    """Hash of the names and values of all weights."""
    total = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return total.hexdigest()
