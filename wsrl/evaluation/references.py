"""What sampled fields are compared with: training and held-out fields of a store, and real pictures or shapes.

Letters: M training fields, H held-out fields, R references, P points, C channels.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.errors import SignalError
from wsrl.evaluation.features import signals_of_rows, stored_weights
from wsrl.evaluation.generated_pictures import PictureReferences
from wsrl.evaluation.generated_shapes import ShapeReferences
from wsrl.evaluation.picture_features import (
    TIMM,
    LabelledPictures,
    PictureFeatures,
    classifier_features,
    default_features_folder,
    read_classifier,
    timm_features,
)
from wsrl.evaluation.shape_sets import NORMALISATION, NUM_POINTS, normalised
from wsrl.fields.gauge import RAW
from wsrl.fields.saving import CONFIG_FILE
from wsrl.options import at_least, check, one_of, option
from wsrl.progress import ShowProgress, say, silent
from wsrl.signals import open_source
from wsrl.signals.source import Source
from wsrl.store import WeightStore
from wsrl.store.schema import source_name
from wsrl.store.source import find_store_source, open_store_source
from wsrl.store.splits import PARTS, part_codes

PICTURES_COMPARED, SHAPES_COMPARED = 10_000, 200
WITHOUT_FEATURES = "no scores on features, memorisation only: "


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How sampled fields are scored.

    Attributes:
        num: Fields to sample, and of each baseline.
        steps: Denoising steps.
        limit: Most training and most held-out fields to compare with.
        references: Most real pictures or shapes; None for ``PICTURES_COMPARED`` or ``SHAPES_COMPARED``.
        features: Folder of classifiers or of one of them, or ``timm:NAME``; None for the cache.
        features_from: ``source`` trains the classifier on all training pictures of the source, ``store`` on those of
            the store's fields.
        baselines: Score noise on training fields, means of two and a Gaussian as well.
        resolution: Cells of a side of the grid that shapes are meshed on.
        data: What the store was built from; None where the manifest knows it.
        seed: Seed of choices, samples and baselines.

    Raises:
        UserError: An option is out of range.
    """

    num: int = option(256, at_least(1))
    steps: int = option(50, at_least(1))
    limit: int = option(60_000, at_least(1))
    references: int | None = option(None, at_least(1))
    features: str | None = None
    features_from: str = option("source", one_of("source", "store"))
    baselines: bool = False
    resolution: int = option(64, at_least(1))
    data: str | None = None
    seed: int = 0

    def __post_init__(self):
        check(self)


@dataclass(frozen=True)
class Comparison:
    """What every set of fields of one store is compared with; make one with :meth:`of` and use it for all sets.

    Attributes:
        store: The store.
        rows: Rows of the training and of the held-out fields, at most the limit of each.
        train: Training fields ``(M, *shape)``.
        heldout: Held-out fields ``(H, *shape)``.
        train_ids: Ids of all training fields, those beyond the limit too.
        decoder: What renders fields.
        references: What judges sets of fields.
        pictures: Real pictures ``(R, C, H, W)`` that are compared with, or None.
        facts: What is known of the features and the references, by name.
    """

    store: WeightStore
    rows: tuple[np.ndarray, np.ndarray]
    train: dict[str, Tensor]
    heldout: dict[str, Tensor]
    train_ids: frozenset[str]
    decoder: FieldDecoder
    references: PictureReferences | ShapeReferences
    pictures: Tensor | None = None
    facts: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        store: WeightStore,
        decoder: FieldDecoder,
        options: GenerationOptions,
        progress: ShowProgress = silent,
        gauge: str = RAW,
    ) -> "Comparison":
        """Part a store as training a model parts it, and open the real pictures or shapes; says which.

        Args:
            store: The store that models are trained on.
            decoder: What renders its fields.
            options: Limits, features and seed.
            progress: Shows the training of a classifier or the meshing of shapes; takes lines on what is compared with.
            gauge: That of the model: the stored fields are compared in it.

        Raises:
            UserError: There are too few fields, or the source is another one.
        """
        rows, train_ids = parted_rows(store, options, progress)
        train, heldout = (stored_weights(store, part, gauge) for part in rows)
        parts = {"layout": store.layout, "decoder": decoder, "train": train, "heldout": heldout}
        pictures = None
        if store.form.is_shape:
            points, facts = shape_references(store, rows[1], options, progress)
            how = {"points": points, "resolution": options.resolution, "seed": options.seed, "progress": progress}
            references = ShapeReferences.build(**parts, **how)
        else:
            features, pictures, facts = picture_references(store, train_ids, options, progress)
            say(
                progress,
                "memorisation: weights over their standard deviation in the training fields; pixels; "
                "root mean square over either",
            )
            references = PictureReferences.build(**parts, features=features, pictures=pictures)
        return cls(store, rows, train, heldout, train_ids, decoder, references, pictures, facts)


def parted_rows(
    store: WeightStore, options: GenerationOptions, progress: ShowProgress = silent
) -> tuple[tuple[np.ndarray, np.ndarray], frozenset[str]]:
    """Rows of training and of held-out fields as training a model parts them, and the ids of all training fields."""
    codes, generator = part_codes(store, 0.0, 0.2), np.random.default_rng(options.seed)
    every = [np.flatnonzero(codes == PARTS.index(name)) for name in ("train", "test")]
    if not len(every[1]):
        say(progress, "no held-out fields: a fifth of those that the model has seen stand in for them")
        order = generator.permutation(every[0])
        every = [np.sort(part) for part in np.split(order, [len(order) - max(1, len(order) // 5)])]
    train, heldout = (np.sort(generator.permutation(part)[: options.limit]) for part in every)
    say(progress, f"{len(train)} training and {len(heldout)} held-out fields of {store.directory}")
    ids = store.ids
    return (train, heldout), frozenset(ids[row] for row in every[0])


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
    # What neither a model nor a classifier is trained on is both the test part and where references are drawn from.
    test = unseen(source, train_ids)
    references, what = [i for i in test if source.ids[i] not in train_ids], "real pictures that are no training fields"
    if len(references) < 4:
        references, what = list(range(len(source))), "real training pictures: there are no others"
    references = [references[i] for i in drawn(len(references), options.references or PICTURES_COMPARED, options.seed)]
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
    return classifier_features(*pictures, source.label_names, folder, progress=progress)


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
    generator, size = np.random.default_rng(options.seed), min([NUM_POINTS, *(len(one.surface) for one in signals)])
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
