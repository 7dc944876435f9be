"""The tables of the pages, made from the records; ``python -m pipelines.tables`` writes them into the pages."""

import json
import re
import sys
from pathlib import Path

from pipelines import analysis_tables, field_tables
from pipelines.experiment import RECORDS

README = Path(__file__).parent.parent / "README.md"
RESULTS = Path(__file__).parent / "README.md"


def headline(fields: dict, surfaces: dict, samples: dict, speed: dict, aligned: dict) -> str:
    """One figure for each question, beside what to hold it against."""
    of_its_own = "for networks of their own of like size"
    rows = (
        (
            "fit of held-out pictures (`mlora`), PSNR in dB",
            f"{fields['mlora.psnr_mean']:.1f}",
            f"{fields['mlp.psnr_mean']:.1f} {of_its_own}",
        ),
        (
            "fit of held-out shapes (`mlora`), median IoU",
            f"{surfaces['mlora.iou_median']:.3f}",
            f"{surfaces['mlp.iou_median']:.3f} {of_its_own}",
        ),
        (
            "class read from the weights (`mlora_asym`), accuracy",
            f"{field_tables.read_when_closest(fields, 'mlora_asym'):.3f}",
            f"{fields['pixels.logistic']:.3f} for the same reader on the pixels",
        ),
        (
            "generated fields, asked for by class, FD",
            f"{samples['conditional.fd']:.1f}",
            f"{samples['hyperdiffusion.fd']:.1f} for HyperDiffusion's recipe, {samples['fitted_test.fd']:.1f} for "
            "fitted test pictures",
        ),
        (
            "fields fitted to 30 dB per second",
            f"{speed['quality30.fields_per_s']:.0f}",
            f"{speed['quality30.ratio_loop']:.0f} times a loop over fields in torch",
        ),
        (
            "barrier between two perceptrons, aligned (nats)",
            f"{aligned['weights.barrier']:.3f}",
            f"{aligned['before.barrier']:.3f} before",
        ),
    )
    lines = ["| what | here | beside |", "|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


CONTESTANTS = {
    "ours": "wsrl, its own recipe",
    "ours_all_points": "wsrl, the loop's recipe",
    "loop": "loop",
    "jax": "JAX",
}


def steps(record: dict) -> str:
    """How long a step takes for each network and contestant."""
    lines = [
        "| network | contestant | ms per step and field | fields/s | GFLOP/s | PSNR (dB) |",
        "|---|---|---|---|---|---|",
    ]
    for task in ("siren32", "width64", "width256"):
        for who, name in CONTESTANTS.items():
            if f"{task}.{who}.psnr" in record:
                keys = ("ms_per_step", "fields_per_s", "gflops", "psnr")
                get = {key: record.get(f"{task}.{who}.{key}") for key in keys}
                speed = "" if get["gflops"] is None else f"{get['gflops']:.0f}"
                lines.append(
                    f"| {task} | {name} | {get['ms_per_step']:.3g} | {get['fields_per_s']:.3g} | {speed} "
                    f"| {get['psnr']:.1f} |"
                )
    return "\n".join(lines)


def ratios(record: dict) -> str:
    """The ratios of the benchmark beside the targets they were set."""
    lines = ["| ratio | measured | target |", "|---|---|---|"]
    for key, name, target in RATIOS:
        if key in record:
            lines.append(f"| {name} | {record[key]:.3g} | {target} |")
    return "\n".join(lines)


RATIOS = (
    ("siren32.ratio_jax", "siren32: JAX / wsrl", "4.5"),
    ("siren32.ratio_loop", "siren32: loop / wsrl", "5"),
    ("width64.ratio_loop", "width64: loop / wsrl, own recipe", "6"),
    ("width64.ratio_loop_all_points", "width64: loop / wsrl, the loop's recipe", ""),
    ("width256.ratio_loop", "width256: loop / wsrl, own recipe", "3.5"),
    ("width256.ratio_loop_all_points", "width256: loop / wsrl, the loop's recipe", ""),
    ("width256.fraction_of_peak", "width256: share of the matrix peak", "0.75"),
    ("quality30.ratio_loop", "30 dB: loop / wsrl", "15"),
    ("quality30.ratio_literal_loop", "30 dB: loop of `W * (BA)` / wsrl", "40"),
    ("quality30.fields_per_s", "30 dB: fields per second", ""),
    ("size64.ratio_loop", "64 px RGB, 30 dB: loop / wsrl", "20"),
    ("size64.fraction_of_peak", "64 px RGB: share of the matrix peak", "0.75"),
    ("size128.ratio_loop", "128 px RGB, 30 dB: loop / wsrl", "20"),
    ("size128.fraction_of_peak", "128 px RGB: share of the matrix peak", "0.75"),
    ("reading.fraction_of_sequential", "shuffled reading of an open store / sequential reading", "0.6"),
    ("reading.fraction_of_sequential_first", "the same, first epoch: opens and checks every byte", "0.4"),
    ("reading.ratio_folder", "shuffled reading / one file per field", "20"),
    ("linear.time_ratio", "time per field, 50,000 fields / 1,000", "1"),
    ("linear.memory_ratio", "peak memory, 50,000 fields / 1,000", "1"),
)


def quality(record: dict) -> str:
    """Time to 30 dB of each way there."""
    lines = ["| way | parameters | reached | steps | ms per field | probe |", "|---|---|---|---|---|---|"]
    names = {key.split(".")[1] for key in record if key.startswith("quality30.") and key.endswith(".ms_per_field")}
    for name in sorted(names, key=lambda name: -record[f"quality30.{name}.ms_per_field"]):
        get = {key: record.get(f"quality30.{name}.{key}") for key in ("numbers", "probe_accuracy")}
        numbers = "" if get["numbers"] is None else f"{get['numbers']:.0f}"
        probe = "" if get["probe_accuracy"] is None else f"{get['probe_accuracy']:.3f}"
        lines.append(
            f"| {name} | {numbers} | {record[f'quality30.{name}.reached']:.3f} "
            f"| {record[f'quality30.{name}.steps']:.0f} | {record[f'quality30.{name}.ms_per_field']:.3g} | {probe} |"
        )
    return "\n".join(lines)


def sizes(record: dict) -> str:
    """Time to 30 dB of each way there at larger sizes."""
    lines = ["| size | way | parameters | reached | steps | ms per field |", "|---|---|---|---|---|---|"]
    for size in sorted(key.removesuffix(".share_within_reach") for key in record if key.endswith("_within_reach")):
        ways = {key.split(".")[1] for key in record if key.startswith(f"{size}.") and key.endswith(".ms_per_field")}
        for way in sorted(ways, key=lambda way, size=size: -record[f"{size}.{way}.ms_per_field"]):
            get = {key: record[f"{size}.{way}.{key}"] for key in ("reached", "steps", "ms_per_field")}
            lines.append(
                f"| {size} | {way} | {record[f'{size}.numbers']:.0f} | {get['reached']:.3f} | {get['steps']:.0f} "
                f"| {get['ms_per_field']:.3g} |"
            )
    return "\n".join(lines)


ZOOS = {
    "random_siren": "SIREN 2x32, each from a random start",
    "shared_siren": "SIREN 2x32, one shared start",
    "mlora": "mlora adapters of a base field",
    "mlora_asym": "mlora_asym adapters of a base field",
}


def classification(*records: dict) -> str:
    """Test accuracy of every encoder, one row for each zoo."""
    rows = list(dict.fromkeys(key.removesuffix(".accuracy") for r in records for key in r if key.endswith(".accuracy")))
    lines = [
        f"| zoo (protocol) | train / test fields | PSNR (dB) | {' | '.join(rows)} |",
        "|---|---|---" + "|---" * len(rows) + "|",
    ]
    for record, protocol in zip(records, ZOOS.values()):
        cells = [_with_spread(record, row) for row in rows]
        lines.append(
            f"| {protocol} | {record['run.num_train']:,} / {record['run.num_test']:,} "
            f"| {record['fields.test_psnr_mean']:.1f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _with_spread(record: dict, row: str) -> str:
    if f"{row}.accuracy" not in record:
        return ""
    text = f"{100 * record[f'{row}.accuracy']:.1f}"
    if f"{row}.accuracy_std" in record:
        text += f" ± {100 * record[f'{row}.accuracy_std']:.1f} ({record[f'{row}.accuracy_seeds']})"
    return text


def unf_speed(record: dict) -> str:
    """Time and memory of universal neural functionals, one row for each network that is read."""
    lines = [
        "| network read | weights | forward (ms) | forward + backward (ms) | plain / ours, forward | both "
        "| peak memory / activations |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in [key.removesuffix(".ratio_plain_step") for key in record if key.endswith(".ratio_plain_step")]:
        get = {key.removeprefix(f"{name}."): value for key, value in record.items() if key.startswith(f"{name}.")}
        lines.append(
            f"| {name} | {get['weights']:,.0f} | {get['forward_ms']:.1f} | {get['step_ms']:.1f} "
            f"| {get['ratio_plain_forward']:.1f} | {get['ratio_plain_step']:.1f} | {get['memory_ratio']:.2f} |"
        )
    return "\n".join(lines)


def editing(record: dict) -> str:
    """What edited fields show beside the dilated pictures, one row for each editor."""
    lines = [
        "| editor | parameters | test MSE | PSNR (dB) | unchanged / edited | equivariance error |",
        "|---|---|---|---|---|---|",
        f"| none: unchanged | | {record['unchanged.mse']:.4f} | {record['unchanged.psnr']:.2f} | 1 | |",
    ]
    for name in [key.removesuffix(".gain") for key in record if key.endswith(".gain")]:
        keys = ("parameters", "mse", "psnr", "gain", "equivariance_error")
        get = {key: record[f"{name}.{key}"] for key in keys}
        lines.append(
            f"| {name} | {get['parameters']:,.0f} | {get['mse']:.4f} | {get['psnr']:.2f} | {get['gain']:.2f} "
            f"| {get['equivariance_error']:.0e} |"
        )
    return "\n".join(lines)


GENERATED = (
    ("fd", "FD", ".3g"),
    ("mmd_gaussian", "MMD-G", ".3g"),
    ("mmd_polynomial", "MMD-P", ".3g"),
    ("precision", "precision", ".2f"),
    ("recall", "recall", ".2f"),
    ("mmd_cd", "MMD (Chamfer)", ".3g"),
    ("cov", "COV (%)", ".1f"),
    ("one_nna", "1-NNA (%)", ".1f"),
    ("nearest_ratio", "nearest ratio: weights", ".2f"),
    ("nearest_ratio_signal", "signals", ".2f"),
    ("share_nearer", "share nearer: weights", ".3f"),
    ("share_nearer_signal", "signals", ".3f"),
    ("num_baselines_not_beaten", "baselines not beaten", ".0f"),
    ("agreement", "asked class", ".3f"),
)


def generated(record: dict) -> str:
    """Scores and memorisation of generated fields, of held-out ones and of the main kind's baselines, one row each."""
    rows = [key.removesuffix(".nearest_ratio") for key in record if key.endswith(".nearest_ratio")]
    kinds = [key.removesuffix(".fields_psnr_mean") for key in record if key.endswith(".fields_psnr_mean")]
    others = tuple(f"{kind}.{name}" for kind in kinds for name in ("noise_", "mean_of_two", "gaussian"))
    rows = [row for row in rows if not row.startswith(others)]
    columns = [column for column in GENERATED if any(f"{row}.{column[0]}" in record for row in rows)]
    score = columns[0][0]
    lines = ["| row | " + " | ".join(title for _, title, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in sorted(rows, key=lambda row: record[f"{row}.{score}"]):
        cells = (format(record[f"{row}.{key}"], form) if f"{row}.{key}" in record else "" for key, _, form in columns)
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def diffusion_speed(record: dict) -> str:
    """Speed of training and of each sampler."""
    lines = ["| what | seconds | tokens/s | GFLOP/s | share of the matrix peak |", "|---|---|---|---|---|"]
    names = {"train": f"one epoch over {record['train.num_fields']:,.0f} fields"}
    samplers = [key.removesuffix(".steps") for key in record if key.endswith(".steps")]
    names |= {name: f"1,000 pictures, {name}, {record[f'{name}.steps']:.0f} steps" for name in samplers}
    for name, title in names.items():
        seconds = record[f"{name}.seconds_per_{'epoch' if name == 'train' else '1000'}"]
        rates = (record[f"{name}.{key}"] for key in ("tokens_per_s", "gflops", "share_of_peak"))
        lines.append("| {} | {:.1f} | {:,.0f} | {:.0f} | {:.2f} |".format(title, seconds, *rates))
    return "\n".join(lines)


# Name in a page: record, or several, and function.
TABLES = {
    "headline": (
        (
            "representations/fashion_mnist",
            "shapes/solids",
            "generation/fashion_mnist",
            "benchmark_fitting/fitting",
            "network_alignment/mlp512",
        ),
        headline,
    ),
    "benchmark_fitting/ratios": ("benchmark_fitting/fitting", ratios),
    "benchmark_fitting/steps": ("benchmark_fitting/fitting", steps),
    "benchmark_fitting/quality": ("benchmark_fitting/fitting", quality),
    "benchmark_fitting/sizes": ("benchmark_fitting/fitting", sizes),
    "weight_classification": (tuple(f"weight_classification/{zoo}" for zoo in ZOOS), classification),
    "benchmark_unf": ("benchmark_unf/mlp", unf_speed),
    "weight_editing": ("weight_editing/fashion_mnist", editing),
    "generation/fashion_mnist": ("generation/fashion_mnist", generated),
    "generation/portraits": ("generation/portraits", generated),
    "generation/solids": ("generation/solids", generated),
    "benchmark_diffusion": ("benchmark_diffusion/fashion_mnist", diffusion_speed),
    **field_tables.TABLES,
    **analysis_tables.TABLES,
}


def with_tables(text: str) -> str:
    """The text of a page with every table between its markers made anew.

    Args:
        text: Text with ``<!-- table NAME -->`` and ``<!-- end -->`` around each table.
    """

    def made(match: re.Match) -> str:
        record, table = TABLES[match[2]]
        names = (record,) if isinstance(record, str) else record
        lines = table(*(json.loads((RECORDS / f"{name}.json").read_text()) for name in names))
        return f"{match[1]}{lines}\n{match[3]}"

    return re.sub(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", made, text, flags=re.DOTALL)


def main() -> int:
    """Write the tables into the pages."""
    for page in (README, RESULTS):
        page.write_text(with_tables(page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
