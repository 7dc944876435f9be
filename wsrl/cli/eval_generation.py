"""``wsrl eval generation``: scores of sampled fields, of fitted ones and of baselines, and the closest pairs."""

import argparse
from dataclasses import replace
from pathlib import Path

from wsrl.cli.display import say
from wsrl.errors import SignalError

NOISE_LEVELS = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0)
CLOSEST = 32
CELL = 56
PICTURES_COMPARED, SHAPES_COMPARED = 10_000, 200


def add_arguments(action: argparse.ArgumentParser) -> None:
    """Add the options of ``wsrl eval generation``."""
    add = action.add_argument
    add("--store", required=True, help="the store that the model was trained on")
    add("--num", type=int, default=256, help="fields to sample, and of each baseline")
    add("--steps", type=int, default=50, help="denoising steps")
    add("--limit", type=int, default=60_000, help="most training and most held-out fields to compare with")
    add(
        "--references",
        type=int,
        metavar="K",
        help=f"most real pictures ({PICTURES_COMPARED:,}) or shapes ({SHAPES_COMPARED})",
    )
    add("--features", metavar="DIR", help="folder of classifiers or one of them, or timm:NAME; the cache if not given")
    add(
        "--features-from",
        choices=("source", "store"),
        default="source",
        help="train the classifier on all training pictures of the source, or on those of the store's fields",
    )
    add("--baselines", action="store_true", help="score noise on training fields, means of two and a Gaussian as well")
    add("--resolution", type=int, default=64, metavar="R", help="cells of a side of the grid that shapes are meshed on")


def generation(options: argparse.Namespace) -> tuple[str, dict]:
    """Scores of sampled fields; says what they are taken on, and draws ``closest.png``."""
    import torch

    from wsrl.cli.eval import positive
    from wsrl.diffusion.pipeline import load_pipeline
    from wsrl.provenance import METRICS_FILE
    from wsrl.store import WeightStore
    from wsrl.training.lightning_noise import quiet_lightning

    for name in ("num", "steps", "limit", "resolution", "references"):
        if (number := getattr(options, name)) is not None:
            positive(number, f"--{name}")
    with quiet_lightning(), WeightStore.open(options.store) as store:
        pipeline = load_pipeline(options.path)
        parts = Parts(store, options)
        build = shape_references if store.form.is_shape else picture_references
        references = build(store, parts, pipeline.decoder, options)
        generator = torch.Generator().manual_seed(options.seed)
        weights = pipeline(options.num, generator=generator, num_inference_steps=options.steps).weights
        samples = references.judge(weights, pipeline.decoder)
        rows = {"samples": samples.metrics} | other_rows(store, parts, pipeline.decoder, references, options)
        out = Path(options.out or Path(options.path) / METRICS_FILE).with_name("closest.png")
        draw_closest(samples, weights, parts, pipeline.decoder, out)
    metrics = flat_metrics(rows) | distances(samples) | {"num_train": len(parts.rows[0])} | parts.metrics
    if options.baselines:
        metrics |= verdict(rows)
    if "fd" in samples.metrics:
        metrics |= classes(references.features, samples.signals, parts.pictures)
    return "generation", metrics


class Parts:
    """Training and held-out fields of a store, as training a model parts them.

    Attributes:
        rows: Rows of both.
        train: Training fields ``(M, *shape)``.
        heldout: Held-out fields ``(H, *shape)``.
        train_ids: Ids of all training fields, those beyond the limit too.
        pictures: Real pictures that are compared with, or None.
        metrics: What is known of the features.
    """

    def __init__(self, store, options: argparse.Namespace):
        import numpy as np

        from wsrl.evaluation.generation import stored_weights
        from wsrl.store.splits import PARTS, part_codes

        codes, generator = part_codes(store, 0.0, 0.2), np.random.default_rng(options.seed)
        every = [np.flatnonzero(codes == PARTS.index(name)) for name in ("train", "test")]
        if not len(every[1]):
            say("no held-out fields: a fifth of those that the model has seen stand in for them")
            order = generator.permutation(every[0])
            every = [np.sort(part) for part in np.split(order, [len(order) - max(1, len(order) // 5)])]
        self.rows = [np.sort(generator.permutation(part)[: options.limit]) for part in every]
        self.train, self.heldout = (stored_weights(store, part) for part in self.rows)
        ids = store.ids
        self.train_ids = {ids[row] for row in every[0]}
        self.pictures, self.metrics = None, {}
        say(f"{len(self.rows[0])} training and {len(self.rows[1])} held-out fields of {store.directory}")


def picture_references(store, parts: Parts, decoder, options: argparse.Namespace):
    """Features and real pictures that sets of fields are compared with; says which."""
    from wsrl.evaluation.generation import PictureReferences

    features = None
    if (source := whole_source(store, options.data)) is None:
        tell_without_features(
            f"the data of the store, {store.manifest['source'].get('name')!r}, is not known: give --data"
        )
    else:
        features = picture_features(source, parts, options)
    given = {"train": parts.train, "heldout": parts.heldout, "features": features, "pictures": parts.pictures}
    say("memorisation: weights over their deviation in the training fields; pixels; root mean square over either")
    return PictureReferences.build(layout=store.layout, decoder=decoder, **given)


def whole_source(store, data: str | None):
    """The source of a store without the limit and the choice of splits that the store has; None where it is unknown."""
    from wsrl.signals import open_source
    from wsrl.store.source import find_store_source

    source = find_store_source(store, data)
    if source is None:
        return None
    given = {name: value for name, value in source.options.portable().items() if value is not None}
    return open_source(data or source.name, **{k: v for k, v in given.items() if k not in ("limit", "split")})


def tell_without_features(reason: str) -> None:
    """Say why there are no scores on features, and what to do."""
    say(f"no scores on features, memorisation only: {reason}")


def picture_features(source, parts: Parts, options: argparse.Namespace):
    """Features for pictures of a source; None, with a message, where it has no classes and no model is given."""
    from wsrl.evaluation.picture_features import TIMM, timm_features

    labels, test = source.labels(), unseen(source, parts.train_ids)
    references = [i for i in test if source.ids[i] not in parts.train_ids]
    what = "real pictures that are no training fields"
    if len(references) < 4:
        references, what = list(range(len(source))), "real training pictures: there are no others"
    references = [references[i] for i in drawn(len(references), options.references or PICTURES_COMPARED, options.seed)]
    if options.features and options.features.startswith(TIMM):
        features = timm_features(options.features)
    elif len({label for label in labels if label is not None}) < 2:
        tell_without_features("the data has fewer than two classes: give --features timm:NAME, or label the data")
        return None
    else:
        features = trained_features(source, sorted(set(range(len(source))) - set(test)), test, parts, options)
    parts.pictures = read_pictures(source, references)[0]
    say(f"features: {features.name}, SHA-256 {features.sha256}, as they are (no normalisation)")
    if features.accuracy is not None:
        say(f"features: accuracy {features.accuracy:.4f} on {features.num_test} pictures it was not trained on")
        parts.metrics |= {"features_accuracy": features.accuracy, "classifier_accuracy": features.accuracy}
    say(f"references: {len(parts.pictures)} {what}")
    parts.metrics["num_references"] = len(parts.pictures)
    return features


def unseen(source, train_ids: set[str]) -> list[int]:
    """Signals that neither a model nor a classifier is trained on: other splits, or else what is no training field."""
    splits = source.splits()
    if "train" in splits:
        return [i for i, split in enumerate(splits) if split != "train"]
    return [i for i, name in enumerate(source.ids) if name not in train_ids]


def drawn(num: int, most: int, seed: int):
    """So many different numbers below ``num``, or all, in random order: any prefix is a fair sample of the classes."""
    import numpy as np

    return np.random.default_rng(seed).permutation(num)[:most]


def trained_features(source, train: list[int], test: list[int], parts: Parts, options: argparse.Namespace):
    """Features of the classifier of a source's training pictures, or of the one in the folder that was given."""
    from wsrl.cli.display import show_progress
    from wsrl.evaluation.picture_classifier import ClassifierOptions
    from wsrl.evaluation.picture_features import (
        LabelledPictures,
        classifier_features,
        default_features_folder,
        read_classifier,
    )
    from wsrl.fields.saving import CONFIG_FILE

    folder = Path(options.features) if options.features else default_features_folder()
    if (folder / CONFIG_FILE).is_file():
        return read_classifier(folder)
    if options.features_from == "store":
        train = [i for i in train if source.ids[i] in parts.train_ids]
    labels = source.labels()
    known = [[i for i in part if labels[i] is not None] for part in (train, test)]
    pictures = [LabelledPictures(**dict(zip(("pictures", "labels"), read_pictures(source, part)))) for part in known]
    settings, num = ClassifierOptions(), len(pictures[0].labels)
    total = settings.epochs_of(num) * (num // settings.batch_of(num)) * settings.batch_of(num)
    with show_progress("pictures seen by the classifier", total) as shown:
        return classifier_features(*pictures, source.label_names, folder, settings, tell=shown.advance)


def read_pictures(source, indices: list[int]):
    """Readable pictures ``(N, C, H, W)`` at some places of a source, and their class indices, -1 for none."""
    import torch

    names, labels = {name: i for i, name in enumerate(source.label_names)}, source.labels()
    pictures, classes = [], []
    for index in indices:
        try:
            values = source[index].values  # (P, C)
        except SignalError:
            continue  # the build of the store has recorded it
        pictures.append(values.T.reshape(-1, *source.form.grid))
        classes.append(names.get(labels[index], -1))
    empty = torch.zeros(0, source.form.out_features, *source.form.grid)
    return torch.stack(pictures) if pictures else empty, torch.tensor(classes, dtype=torch.long)


def shape_references(store, parts: Parts, decoder, options: argparse.Namespace):
    """Real shapes that sets of fields are compared with; says which."""
    import numpy as np

    from wsrl.cli.display import show_progress
    from wsrl.evaluation.features import signals_of_rows
    from wsrl.evaluation.generation import ShapeReferences
    from wsrl.evaluation.shape_sets import NORMALISATION, NUM_POINTS, normalised
    from wsrl.store.source import open_store_source

    rows = parts.rows[1][drawn(len(parts.rows[1]), options.references or SHAPES_COMPARED, options.seed)]
    signals = list(signals_of_rows(store, open_store_source(store, options.data), rows))
    generator, size = np.random.default_rng(options.seed), min([NUM_POINTS, *(len(one.surface) for one in signals)])
    surfaces = (np.asarray(signal.surface) for signal in signals)
    points = np.stack([normalised(surface[generator.permutation(len(surface))[:size]]) for surface in surfaces])
    say(f"references: {len(points)} real shapes that are no training fields; {size} points on each surface")
    say(f"normalisation: {NORMALISATION}")
    say(f"surfaces of fields: on {options.resolution} cells along a side of the cube [-1, 1]^3")
    say("memorisation: weights over their deviation in the training fields; root of the Chamfer distance")
    given = {"train": parts.train, "heldout": parts.heldout, "points": points, "resolution": options.resolution}
    with show_progress("training and held-out fields meshed", sum(map(len, parts.rows))) as shown:
        built = ShapeReferences.build(
            layout=store.layout, decoder=decoder, seed=options.seed, tell=shown.advance, **given
        )
    parts.metrics["num_references"] = len(points)
    return replace(built, tell=lambda number: None)  # the bar has ended


def other_rows(store, parts: Parts, decoder, references, options: argparse.Namespace) -> dict[str, dict]:
    """Scores of held-out fields and, where asked for, of the baselines."""
    import torch

    from wsrl.evaluation import memorisation

    layout = store.layout
    train, trainable = layout.flatten(parts.train), layout.trainable()
    chosen = torch.from_numpy(drawn(len(parts.rows[1]), options.num, options.seed))
    heldout = {name: tensor[chosen] for name, tensor in parts.heldout.items()}
    rows = {"fitted_test": references.judge(heldout, decoder).metrics}
    if not options.baselines:
        return rows
    generator = torch.Generator().manual_seed(options.seed)
    made = {
        f"noise_{level:g}": memorisation.training_noise(train, trainable, options.num, level, generator)
        for level in NOISE_LEVELS
    }
    made["mean_of_two"] = memorisation.mean_of_two(train, trainable, options.num, generator)
    made["gaussian"] = memorisation.train_gaussian(train, trainable, options.num, generator)
    return rows | {name: references.judge(layout.unflatten(flat), decoder).metrics for name, flat in made.items()}


def verdict(rows: dict[str, dict]) -> dict[str, float]:
    """Say which baselines the samples do not beat at equal distance from training."""
    from wsrl.evaluation.memorisation import better_baselines, noise_fd_at

    score = next((name for name in ("fd", "mmd_cd") if name in rows["samples"]), None)
    if score is None:
        return {}
    found = {}
    for suffix, what in (("", "weights"), ("_signal", "signals")):
        pairs = {name: (row[f"nearest_ratio{suffix}"], row[score]) for name, row in rows.items() if score in row}
        curve = [pair for name, pair in pairs.items() if name.startswith("noise_")]
        others = {name: pairs[name] for name in ("mean_of_two", "gaussian")}
        better, noise = better_baselines(pairs["samples"], curve, others), noise_fd_at(pairs["samples"][0], curve)
        how = f"in {score} at equal distance from training by {what} ({pairs['samples'][0]:.3f})"
        if better:
            say(f"samples are NOT BETTER than {', '.join(better)} {how}; noise there has {noise:.4g}")
        else:
            say(f"samples are better than every baseline {how}; noise there has {noise:.4g}")
        found |= {f"noise_{score}_at_equal_distance{suffix}": noise, f"num_baselines_not_beaten{suffix}": len(better)}
    return found


def flat_metrics(rows: dict[str, dict]) -> dict[str, float]:
    """Scores of the samples by name, and of the other rows by ``<row>.<name>``."""
    found = dict(rows["samples"]) | {"num_samples": rows["samples"]["num"]}
    return found | {f"{row}.{key}": value for row in rows if row != "samples" for key, value in rows[row].items()}


def distances(samples) -> dict[str, float]:
    """Distances from samples to training fields by weights, in training deviations."""
    near, ratio = samples.in_weights.distances, samples.metrics["nearest_ratio"]
    return {
        "nearest_train": float(near.mean()),
        "nearest_train_min": float(near.min()),
        "nearest_train_heldout": float(near.mean()) / ratio if ratio else 0.0,
        "nearest_train_ratio": ratio,
    }


def classes(features, pictures, real) -> dict[str, float]:
    """Which classes the samples are of, where the features know classes."""
    from wsrl.evaluation.generation import GREY, class_scores

    if features.classify is None:
        return {}
    return class_scores(features, pictures.nan_to_num(GREY), real)


def draw_closest(samples, weights, parts: Parts, decoder, out: Path) -> None:
    """Draw the samples that are nearest to training, each beside its nearest training field."""
    from wsrl.cli.stage import save_picture
    from wsrl.report.contact_sheet import beside

    sheets = []
    for what, nearest in (("weights", samples.in_weights), ("signals", samples.in_signals)):
        places = nearest.closest(CLOSEST)
        pairs = list(zip(places.tolist(), nearest.indices[places].tolist()))
        if pairs:
            sheets.append(
                (f"closest by {what}: sample, training field", pair_sheet(pairs, weights, parts.train, decoder))
            )
    if sheets:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_picture(beside(sheets), out)
        say(f"closest pairs: {out}")


def pair_sheet(pairs: list[tuple[int, int]], weights, train, decoder):
    """Samples and training fields in turn, four pairs in a row."""
    from wsrl.report.contact_sheet import grid_sheet
    from wsrl.report.render import NORMALISED, render_mesh

    fields = []
    for sample, place in pairs:
        fields += [
            decoder.field({name: tensor[i] for name, tensor in given.items()})
            for given, i in ((weights, sample), (train, place))
        ]
    if not fields[0].form.is_shape:
        return grid_sheet([field.image(CELL) for field in fields], 8, CELL)
    cells = [render_mesh(field.mesh(48), 2 * CELL, frame=NORMALISED) for field in fields]
    return grid_sheet(cells, 8, 2 * CELL)
