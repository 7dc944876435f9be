"""Tables on fits: under a prior, and by size of the pictures."""

from collections.abc import Sequence

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


def prior(record: dict) -> str:
    """Fits by strength of the prior and steps, one row each, by data set."""
    rows = sorted(rows_of(record, "psnr"), key=lambda row: (row.split(".")[0], record[f"{row}.std"]), reverse=True)
    return by_columns(record, rows, PRIOR, "data, strength, steps")


def resolution(record: dict) -> str:
    """Fits by default, one row for each size of pictures."""
    rows = sorted(rows_of(record, "psnr_mean"), key=lambda row: (row.split(".")[0], int(row.split(".")[1])))
    return by_columns(record, rows, SIZE, "pictures, pixels")


TABLES = {
    "representations/prior": ("representations/prior", prior),
    "representations/resolution": ("representations/resolution", resolution),
}
