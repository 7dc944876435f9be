"""The table of the adapter's alternatives."""

from pipelines.field_tables import by_columns, rows_of

COLUMNS = (
    ("num_trainable", "numbers", ".0f"),
    ("steps", "steps", ".0f"),
    ("test.psnr", "test PSNR (dB)", ".1f"),
    ("test.psnr_5th", "5th percentile", ".1f"),
    ("validation.psnr", "validation PSNR", ".1f"),
    ("test.fd", "fitted FD", ".2f"),
    ("test.recall", "recall", ".2f"),
    ("test.logistic", "logistic", ".3f"),
    ("test.one_nn", "1-NN", ".3f"),
    ("ms_per_field", "ms per field", ".1f"),
    ("ms_per_field_autograd", "by autograd", ".1f"),
)


def alternatives(record: dict) -> str:
    """Ways from a picture to numbers, one row each, by the distance of what they show from real pictures."""
    rows = sorted(rows_of(record, "test.fd"), key=lambda row: record[f"{row}.test.fd"])
    return by_columns(record, rows, COLUMNS, "data, way")


TABLES = {"representations/alternatives": ("representations/alternatives", alternatives)}
