"""The real pictures and shapes that sampled fields are compared with, and the features that pictures are compared by.

Letters: R references, N pictures, P points, C channels, H x W sizes of pictures.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsrl.errors import SignalError
from wsrl.evaluation.features import signals_of_rows
from wsrl.evaluation.generation import PICTURES_COMPARED, SHAPES_COMPARED, GenerationOptions
from wsrl.evaluation.picture_features import (
    TIMM,
    LabelledPictures,
    PictureFeatures,
    default_features_folder,
    kept_classifier,
    read_classifier,
    timm_features,
)
from wsrl.evaluation.shape_sets import NORMALISATION, SET_POINTS, normalised
from wsrl.fields.saving import CONFIG_FILE
from wsrl.progress import ShowProgress, say
from wsrl.signals import open_source
from wsrl.signals.source import Source
from wsrl.store import WeightStore
from wsrl.store.schema import source_name
from wsrl.store.source import find_store_source, open_store_source

WITHOUT_FEATURES = "no scores on features, memorisation only: "


def drawn(num: int, most: int, seed: int) -> np.ndarray:
    """So many different numbers below ``num``, or all, in random order: any prefix is a fair sample of the classes."""
    return np.random.default_rng(seed).permutation(num)[:most]


def picture_references(
    store: WeightStore, train_ids: frozenset[str], options: GenerationOptions, progress: ShowProgress
) -> tuple[PictureFeatures | None, Tensor | None, dict[str, float]]:
    """Features, real pictures ``(R, C, H, W)``, and what is known of both; without features, with a message why.

    Args:
        store: The store.
        train_ids: Ids of the fields that a model is trained on.
        options: Number of references, and where features come from.
        progress: Shows the training of a classifier, and takes lines on what is compared with.
    """
    if (source := whole_source(store, options.data)) is None:
        name = source_name(store.manifest)
        say(progress, f"{WITHOUT_FEATURES}the data of the store, {name!r}, is not known: give --data")
        return None, None, {}
    return references_from(source, train_ids, options, progress)


def references_from(
    source: Source, train_ids: frozenset[str], options: GenerationOptions, progress: ShowProgress
) -> tuple[PictureFeatures | None, Tensor | None, dict[str, float]]:
    """As :func:`picture_references`, by the whole source itself.

    Args:
        source: All pictures, without a limit or a choice of splits.
        train_ids: Ids of the signals that something is trained on.
        options: Number of references, and where features come from.
        progress: Shows the training of a classifier, and takes lines on what is compared with.
    """
    # What neither a model nor a classifier is trained on is both the test part and where references are drawn from.
    test = unseen(source, train_ids)
    references, what = [i for i in test if source.ids[i] not in train_ids], "real pictures that are no training fields"
    if len(references) < 4:
        references, what = list(range(len(source))), "real training pictures: there are no others"
    references = [references[i] for i in drawn(len(references), options.references or PICTURES_COMPARED, options.seed)]
    # Features of a model that was trained elsewhere, or of a classifier of this source's own pictures.
    if options.features and options.features.startswith(TIMM):
        features = timm_features(options.features)
    elif len({label for label in source.labels() if label is not None}) < 2:
        reason = "the data has fewer than two classes: give --features timm:NAME, or label the data"
        say(progress, WITHOUT_FEATURES + reason)
        return None, None, {}
    else:
        features = trained_features(source, test, train_ids, options, progress)
    pictures = read_pictures(source, references)[0]
    facts: dict[str, float] = {}
    say(progress, f"features: {features.name}, SHA-256 {features.sha256}, as they are (no normalisation)")
    if features.accuracy is not None:
        say(
            progress,
            f"features: accuracy {features.accuracy:.4f} on {features.num_test} pictures it was not trained on",
        )
        facts |= {"features_accuracy": features.accuracy, "classifier_accuracy": features.accuracy}
    say(progress, f"references: {len(pictures)} {what}")
    return features, pictures, facts | {"num_references": len(pictures)}


def whole_source(store: WeightStore, data: str | None) -> Source | None:
    """The source of a store without the limit and the choice of splits that the store has; None where it is unknown."""
    source = find_store_source(store, data)
    if source is None:
        return None
    options = {name: value for name, value in source.options.portable().items() if value is not None}
    return open_source(data or source.name, **{k: v for k, v in options.items() if k not in ("limit", "split")})


def unseen(source: Source, train_ids: frozenset[str]) -> list[int]:
    """Signals that neither a model nor a classifier is trained on: other splits, or else what is no training field."""
    splits = source.splits()
    if "train" in splits:
        return [i for i, split in enumerate(splits) if split != "train"]
    return [i for i, name in enumerate(source.ids) if name not in train_ids]


def trained_features(
    source: Source, test: list[int], train_ids: frozenset[str], options: GenerationOptions, progress: ShowProgress
) -> PictureFeatures:
    """Features of the classifier of a source's training pictures, or of the one in the folder that is given."""
    folder = Path(options.features) if options.features else default_features_folder()
    if (folder / CONFIG_FILE).is_file():
        return read_classifier(folder)
    train = sorted(set(range(len(source))) - set(test))
    if options.features_from == "store":
        train = [i for i in train if source.ids[i] in train_ids]
    labels = source.labels()
    labelled = ([i for i in part if labels[i] is not None] for part in (train, test))
    pictures = [LabelledPictures(*read_pictures(source, part)) for part in labelled]
    return read_classifier(kept_classifier(*pictures, source.label_names, folder, progress=progress))


def read_pictures(source: Source, indices: list[int]) -> tuple[Tensor, Tensor]:
    """Readable pictures ``(N, C, H, W)`` of some signals of a source, and their class indices ``(N,)``, -1 for none."""
    names, labels = {name: i for i, name in enumerate(source.label_names)}, source.labels()
    pictures, classes = [], []
    for index in indices:
        try:
            values = source[index].values  # (P, C)
        except SignalError:
            continue  # the build of the store has recorded it
        pictures.append(values.T.reshape(-1, *source.form.grid))  # (C, H, W)
        classes.append(names.get(labels[index], -1))
    empty = torch.zeros(0, source.form.out_features, *source.form.grid)
    return torch.stack(pictures) if pictures else empty, torch.tensor(classes, dtype=torch.long)


def shape_references(
    store: WeightStore, heldout: np.ndarray, options: GenerationOptions, progress: ShowProgress
) -> tuple[np.ndarray, dict[str, float]]:
    """Normalised surface points ``(R, P, 3)`` of real shapes of held-out fields, and their number; says which."""
    rows = heldout[drawn(len(heldout), options.references or SHAPES_COMPARED, options.seed)]
    signals = list(signals_of_rows(store, open_store_source(store, options.data), rows))
    # As many points of each surface, each set normalised on its own.
    generator, size = np.random.default_rng(options.seed), min([SET_POINTS, *(len(one.surface) for one in signals)])
    surfaces = (np.asarray(signal.surface) for signal in signals)
    points = np.stack([normalised(surface[generator.permutation(len(surface))[:size]]) for surface in surfaces])
    say(progress, f"references: {len(points)} real shapes that are no training fields; {size} points on each surface")
    say(progress, f"normalisation: {NORMALISATION}")
    say(progress, f"surfaces of fields: on {options.resolution} cells along a side of the cube [-1, 1]^3")
    say(
        progress,
        "memorisation: weights over their standard deviation in the training fields; root of the Chamfer distance",
    )
    return points, {"num_references": len(points)}
