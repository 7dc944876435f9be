"""The README's tables, made from the records; ``python -m pipelines.tables`` writes them into the README."""

import json
import re
import sys
from pathlib import Path

from pipelines.records import RECORDS

README = Path(__file__).parent.parent / "README.md"


def representations(record: dict) -> str:
    """Fit and reading of each representation, one row each."""
    kinds = [key.split(".")[0] for key in record if key.endswith(".classifier") and not key.startswith("pixels")]
    lines = [
        "| representation | numbers | rate | test PSNR (dB) | least | SSIM | logistic | 1-NN | classifier |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in sorted(kinds, key=lambda name: -record[f"{name}.test_psnr_mean"]):
        get = {name: record[f"{kind}.{name}"] for name in ("num_trainable", "learning_rate", "logistic", "one_nn")}
        lines.append(
            f"| {kind} | {get['num_trainable']} | {get['learning_rate']:g} | {record[f'{kind}.test_psnr_mean']:.2f} "
            f"| {record[f'{kind}.test_psnr_min']:.1f} | {record[f'{kind}.test_ssim_mean']:.4f} "
            f"| {get['logistic']:.3f} | {get['one_nn']:.3f} | {record[f'{kind}.classifier']:.3f} |"
        )
    lines.append(
        f"| pixels | {record['pixels.num_trainable']} | | | | | {record['pixels.logistic']:.3f} "
        f"| {record['pixels.one_nn']:.3f} | {record['pixels.classifier']:.3f} |"
    )
    return "\n".join(lines)


def forms(record: dict) -> str:
    """Mean PSNR of each form of the multiplicative adapter at each learning rate of its sweep."""
    found: dict[str, list[str]] = {}
    for key, score in record.items():
        if key.startswith("sweep."):
            _, form, rate = key.split(".", 2)
            found.setdefault(form, []).append(f"{float(rate):g}: {score:.2f}")
    lines = ["| form | mean PSNR (dB) at each learning rate |", "|---|---|"]
    return "\n".join(lines + [f"| {form} | {', '.join(scores)} |" for form, scores in sorted(found.items())])


TABLES = {
    "representations/fashion_mnist": representations,
    "representations/fashion_mnist_forms": forms,
}


def with_tables(text: str) -> str:
    """The README's text with every table between its markers made anew.

    Args:
        text: Text with ``<!-- table NAME -->`` and ``<!-- end -->`` around each table.
    """
    for name, table in TABLES.items():
        made = table(json.loads((RECORDS / f"{name}.json").read_text()))
        pattern = re.compile(rf"(<!-- table {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert pattern.search(text), f"the README has no place for the table {name}"
        text = pattern.sub(lambda match, made=made: f"{match[1]}{made}\n{match[2]}", text)
    return text


def main() -> int:
    """Write the tables into the README."""
    README.write_text(with_tables(README.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
