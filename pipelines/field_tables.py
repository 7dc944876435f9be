"""Tables on fits: of every kind, under a prior, and by size of the pictures."""

from collections.abc import Mapping, Sequence

from wsrl.evaluation.shapes import D2_BINS

BY_UNSEEN, BY_BASE = ".by_unseen.", ("base_0.psnr_mean", "base_1.psnr_mean")
KIND = (
    ("numbers", "parameters", ".0f"),
    ("setting", "setting", ""),
    ("learning_rate", "rate", "g"),
    ("steps", "steps", ".0f"),
    ("psnr_mean", "PSNR (dB)", ".2f"),
    ("psnr_std", "std", ".1f"),
    ("psnr_min", "least", ".1f"),
    ("ssim_mean", "SSIM", ".4f"),
    ("unseen_mean", "unseen pixels (dB)", ".2f"),
    ("psnr_bases", "PSNR by base field", ""),
    ("psnr_interval", "PSNR more than {}", ""),
    ("unseen_interval", "unseen more than {}", ""),
)
SHAPE = (
    ("num_trainable", "parameters", ".0f"),
    ("setting", "setting", ""),
    ("learning_rate", "rate", "g"),
    ("iou_median", "IoU median", ".4f"),
    ("iou_interval", "IoU more than {}", ""),
    ("f_score_median", "F-score at 1% median", ".4f"),
    ("chamfer_l1_mean", "Chamfer L1 mean", ".4f"),
    ("chamfer_l1_interval", "Chamfer L1 more than {}", ""),
    ("normal_consistency_mean", "normals", ".3f"),
    ("num_empty", "empty", ".0f"),
    ("psnr", "PSNR (dB)", ".2f"),
    ("psnr_interval", "PSNR more than {}", ""),
    ("logistic", "logistic", ".3f"),
    ("fit_s_per_field", "s per field", ".2f"),
)
PRIOR = (
    ("psnr", "held-out PSNR (dB)", ".1f"),
    ("psnr_5th", "5th percentile", ".1f"),
    ("fitted_fd", "fitted FD", ".2f"),
    ("fitted_recall", "recall", ".2f"),
    ("fitted_mmd_cd", "fitted MMD (Chamfer)", ".3g"),
    ("gaussian_fd", "Gaussian's FD", ".1f"),
    ("gaussian_mmd_cd", "Gaussian's MMD", ".3g"),
    ("std", "std of weights", ".2f"),
    ("effective_dimension", "effective dimension", ".0f"),
    ("r2_from_signal", "R2 from the signal", ".2f"),
    ("logistic", "logistic", ".3f"),
    ("one_nn", "1-NN", ".3f"),
    ("ms_per_field", "ms per field", ".0f"),
)
SIZE = (
    ("width", "width", ".0f"),
    ("rank", "rank", ".0f"),
    ("numbers", "parameters", ".0f"),
    ("steps", "steps", ".0f"),
    ("psnr_mean", "PSNR (dB)", ".1f"),
    ("psnr_5th", "5th percentile", ".1f"),
    ("ssim_mean", "SSIM", ".3f"),
    ("psnr_between", "unseen pixels (dB)", ".1f"),
    ("ms_per_field", "ms per field", ".0f"),
    ("base_s", "base field (s)", ".0f"),
)


def rows_of(record: dict, score: str) -> list[str]:
    """Names of the rows of a record that have a score."""
    return [key.removesuffix(f".{score}") for key in record if key.endswith(f".{score}")]


def by_columns(record: dict, rows: Sequence[str], columns: Sequence[tuple[str, str, str]], first: str) -> str:
    """A table of some rows of a record; columns that none of them has are left out.

    Args:
        record: Numbers by ``<row>.<key>``.
        rows: Names of the rows.
        columns: Key, title and format of each column.
        first: Title of the column of names.
    """
    used = [column for column in columns if any(f"{row}.{column[0]}" in record for row in rows)]
    lines = ["| " + " | ".join([first, *(title for _, title, _ in used)]) + " |", "|---" * (len(used) + 1) + "|"]
    for row in rows:
        cells = (format(record[f"{row}.{key}"], form) if f"{row}.{key}" in record else "" for key, _, form in used)
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def representations(record: dict) -> str:
    """Fit of each representation with what is best on the grid, one row each."""
    return _kinds({key: value for key, value in record.items() if BY_UNSEEN not in key})


def representations_unseen(record: dict) -> str:
    """Fit of each representation with what is best by pixels that fits did not see, one row each."""
    return _kinds(
        {key.replace(BY_UNSEEN, "."): value for key, value in record.items() if BY_UNSEEN in key}, "unseen_mean"
    )


def _kinds(record: dict, score: str = "psnr_mean") -> str:
    rows = sorted((row for row in rows_of(record, score) if "." not in row), key=lambda row: -record[f"{row}.{score}"])
    bases = {
        f"{row}.psnr_bases": " / ".join(f"{record[f'{row}.{base}']:.2f}" for base in BY_BASE)
        for row in rows
        if all(f"{row}.{base}" in record for base in BY_BASE)
    }
    return _beside(record | bases, rows, KIND, {"psnr": ".2f", "unseen": ".2f"})


def _beside(
    record: dict, rows: Sequence[str], columns: Sequence[tuple[str, str, str]], forms: Mapping[str, str]
) -> str:
    """A table whose rows have differences to the one row that has none, each with its interval.

    Args:
        record: Numbers by ``<row>.<key>``, differences by ``<row>.difference.<measure>``.
        rows: Names of the rows.
        columns: As for :func:`by_columns`; ``<measure>_interval`` is a difference, the title has a place for the
            reference.
        forms: Format of every measure's difference.
    """
    reference = [row for row in rows if not any(key.startswith(f"{row}.difference.") for key in record)]
    named = [
        (key, title.format(f"`{reference[0]}`" if reference else "the reference"), form) for key, title, form in columns
    ]
    shown = dict(record)
    for row in rows:
        for measure, form in forms.items():
            if (key := f"{row}.difference.{measure}") in record:
                low, high = (format(record[f"{key}_{end}"], f"+{form}") for end in ("low", "high"))
                shown[f"{row}.{measure}_interval"] = f"{record[key]:+{form}} ({low} to {high})"
    return by_columns(shown, rows, named, "representation")


def readings(record: dict) -> str:
    """What is read from the fields of every kind after some numbers of steps, and from the pixels."""
    curves = [key.split(".") for key in record if ".curve." in key and not key.startswith("run.")]
    kinds, steps = list(dict.fromkeys(words[0] for words in curves)), sorted({int(words[2]) for words in curves})
    lines = [f"| representation | {' | '.join(f'{count} steps' for count in steps)} |", "|---" * (len(steps) + 1) + "|"]
    for kind in kinds:
        numbers = [[record[f"{kind}.curve.{count}.{key}"] for key in ("psnr", "logistic", "one_nn")] for count in steps]
        lines.append(f"| {kind} | {' | '.join('{:.1f} dB: {:.3f} / {:.3f}'.format(*each) for each in numbers)} |")
    pixels = f"{record['pixels.logistic']:.3f} / {record['pixels.one_nn']:.3f}"
    return "\n".join([*lines, f"| pixels | {pixels} |" + " |" * (len(steps) - 1)])


def read_when_closest(record: dict, kind: str) -> float:
    """Accuracy of logistic regression on the fields of a kind that took the most steps."""
    prefix = f"{kind}.curve."
    most = max(int(key.removeprefix(prefix).split(".")[0]) for key in record if key.startswith(prefix))
    return record[f"{prefix}{most}.logistic"]


def forms(record: dict) -> str:
    """Mean PSNR of each form of the multiplicative adapter at each learning rate of its sweep."""
    of_form: dict[str, list[str]] = {}
    for key, score in record.items():
        if key.startswith("sweep."):
            _, form, rate = key.split(".", 2)
            of_form.setdefault(form, []).append(f"{float(rate):g}: {score:.2f}")
    lines = ["| form | mean PSNR (dB) at each learning rate |", "|---|---|"]
    return "\n".join(lines + [f"| {form} | {', '.join(scores)} |" for form, scores in sorted(of_form.items())])


def shapes(record: dict) -> str:
    """Surfaces of each representation and what its weights say of the class, one row each."""
    rows = sorted(rows_of(record, "iou_median"), key=lambda row: -record[f"{row}.iou_median"])
    d2 = "D2 histogram"
    shown = record | {f"{d2}.num_trainable": D2_BINS, f"{d2}.logistic": record["d2.logistic"]}
    return _beside(shown, [*rows, d2], SHAPE, {"iou": ".4f", "chamfer_l1": ".4f", "psnr": ".2f"})


def prior(record: dict) -> str:
    """Fits by strength of the prior and steps, one row each, by data set."""
    rows = sorted(rows_of(record, "psnr"), key=lambda row: (row.split(".")[0], record[f"{row}.std"]), reverse=True)
    return by_columns(record, rows, PRIOR, "data, strength, steps")


def resolution(record: dict) -> str:
    """Fits by default, one row for each size of pictures."""
    rows = sorted(rows_of(record, "psnr_mean"), key=lambda row: (row.split(".")[0], int(row.split(".")[1])))
    return by_columns(record, rows, SIZE, "pictures, pixels")


TABLES = {
    "representations/fashion_mnist": ("representations/fashion_mnist", representations),
    "representations/noto_emoji_128": ("representations/noto_emoji_128", representations),
    "representations/fashion_mnist_unseen": ("representations/fashion_mnist", representations_unseen),
    "representations/fashion_mnist_readings": ("representations/fashion_mnist", readings),
    "representations/fashion_mnist_forms": ("representations/fashion_mnist_forms", forms),
    "shapes/furniture": ("shapes/furniture", shapes),
    "shapes/solids": ("shapes/solids", shapes),
    "representations/prior": ("representations/prior", prior),
    "representations/resolution": ("representations/resolution", resolution),
}
