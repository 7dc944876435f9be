"""The tables of the analyses: structure, probes, alignment of networks and zoos, posteriors."""

KINDS = ("mlora", "mlora_asym", "mlora_product", "mlora_asym_product", "lora", "lora_asym", "mlp", "mlp_asym")
KINDS += ("mlora_asym_frozen20", "lora_asym_frozen20")
SHOWN_LAMBDAS = ("0.1", "0.5", "1")
DATA_OF_STRUCTURE = ("Fashion-MNIST", "solids")
OF_STRUCTURE = (
    ("cosine", "cosine", ".2f"),
    ("cosine_ba", "cosine of BA", ".2f"),
    ("overlap", "overlap (chance; other signals)", ".2f"),
    ("barrier_relative", "barrier / loss", ".1f"),
    ("barrier_ba_relative", "barrier / loss in BA", ".1f"),
    ("psnr_path", "least PSNR (dB)", ".1f"),
)
WITHOUT_GAUGE = ("cosine_ba", "overlap", "barrier_ba_relative")
"""Columns of records that have the measures that no gauge of the factors changes."""


def structure(*records: dict) -> str:
    """What two fits of one signal have in common, one row for each kind, at some distances of their starts.

    A fourth number is of fields that each have a start of their own. Behind overlaps stand those of random subspaces
    and of fields of different signals, in the last case of the cell.
    """
    has_products = any(key.endswith(".cosine_ba") for record in records for key in record)
    columns = [column for column in OF_STRUCTURE if has_products or column[0] not in WITHOUT_GAUGE]
    groups = [f"{title}, {name}" for name in DATA_OF_STRUCTURE for _, title, _ in columns]
    lines = ["| representation | " + " | ".join(groups) + " |", "|---" * (len(groups) + 1) + "|"]
    for kind in dict.fromkeys(key.split(".")[0] for key in records[0] if key.split(".")[1] == "lambda_1"):
        cells = [_of_pairs(record, kind, key, form) for record in records for key, _, form in columns]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _of_pairs(record: dict, kind: str, key: str, form: str) -> str:
    """A measure at some distances of the starts, and from random ones where the record has them."""
    rows = [f"lambda_{distance}" for distance in SHOWN_LAMBDAS]
    rows += ["random"] if f"{kind}.random.{key}" in record else []
    text = " / ".join(format(record[name], form) if (name := f"{kind}.{row}.{key}") in record else "" for row in rows)
    if not text.strip(" /"):
        return ""
    beside = [record.get(f"{kind}.{rows[-1]}.{name}") for name in ("overlap_chance", "overlap_others")]
    if key != "overlap" or None in beside:
        return text
    return f"{text} ({'; '.join(format(value, form) for value in beside)})"


DATA_OF_PROBES = {
    "fashion_mnist": "Fashion-MNIST",
    "noto_emoji": "noto-emoji groups",
    "furniture": "furniture categories",
    "solids": "solids families",
}
PROBED = {"ari": "ARI", "one_nn": "1-NN", "logistic": "logistic"}
READINGS = {"canonical": "canonical", "products": "products BA"}


def probes(*records: dict) -> str:
    """Clusters and probes, one row for each kind and control, ARI / 1-NN / logistic for each data set in percent."""
    names = dict(zip(DATA_OF_PROBES.values(), records))
    lines = [
        "| | " + " | ".join(f"{name}: {' / '.join(PROBED.values())}" for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    rows = {kind: (kind,) for kind in KINDS} | {
        "pixels, or D2 histograms": ("pixels", "d2"),
        "mlora_asym, random starts": ("random_start.mlora_asym", "random_start"),
        **{f"{kind}, random starts": (f"random_start.{kind}",) for kind in ("mlora", "lora", "mlp")},
    }
    for reading, title in READINGS.items():
        rows |= {f"{kind}, {title}": (f"{kind}.{reading}",) for kind in KINDS}
        rows |= {f"{kind}, random starts, {title}": (f"random_start.{kind}.{reading}",) for kind in KINDS}
    for title, keys in rows.items():
        cells = [_probed(record, keys) for record in names.values()]
        if any(cells):  # not all records have been read without the gauge
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _probed(record: dict, keys: tuple[str, ...]) -> str:
    key = next((key for key in keys if f"{key}.one_nn" in record), None)
    return "" if key is None else " / ".join(f"{100 * record[f'{key}.{score}']:.1f}" for score in PROBED)


def networks(record: dict) -> str:
    """Barriers between two trained perceptrons, one row for each method of alignment."""
    lines = [
        "| aligned by | barrier, test (nats) | of the one before | barrier, training | accuracy lost, test (points) |",
        "|---|---|---|---|---|",
    ]
    for name in [key.removesuffix(".barrier_ratio") for key in record if key.endswith(".barrier_ratio")]:
        get = {key.removeprefix(f"{name}."): value for key, value in record.items() if key.startswith(f"{name}.")}
        lines.append(
            f"| {'nothing' if name == 'before' else name} | {get['barrier']:.3f} | {get['barrier_ratio']:.3f} "
            f"| {get['train_barrier']:.3f} | {100 * get['accuracy_barrier']:.1f} |"
        )
    return "\n".join(lines)


def zoo(record: dict) -> str:
    """What readers make of a zoo as it was fitted and made canonical, one row for each reader and form."""
    lines = ["| reader | form of the zoo | test accuracy (%) |", "|---|---|---|"]
    for key in [key for key in record if key.count(".") == 1 and key.split(".")[0] in ("flat_mlp", "unf")]:
        reader, form = key.split(".")
        if not form.endswith(("_std", "_seeds")):
            spread = f" ± {100 * record[f'{key}_std']:.1f}" if f"{key}_std" in record else ""
            lines.append(f"| {reader} | {form} | {100 * record[key]:.1f}{spread} |")
    return "\n".join(lines)


COSTS = {"none": "not aligned", "means": "by means", "means_and_stds": "by means and standard deviations"}


def posteriors(*records: dict) -> str:
    """Marginalised barriers between two posteriors, one row for each network, with their standard errors."""
    titles = " | ".join(f"{title} (nats)" for title in COSTS.values())
    lines = [f"| network | parameters | {titles} | after / before |", "|---|---|---|---|---|---|"]
    for name, record in zip(POSTERIORS, records):
        cells = [f"{record[f'barrier_{cost}']:.3f} ± {record[f'barrier_{cost}_stderr']:.3f}" for cost in COSTS]
        ratio = record["barrier_means_and_stds"] / record["barrier_none"]
        lines.append(f"| {name} | {record['network.parameters']:,.0f} | {' | '.join(cells)} | {ratio:.3f} |")
    return "\n".join(lines)


POSTERIORS = ("mlp1_512", "mlp2_64", "mlp2_256", "mlp2_512", "mlp2_1024", "mlp3_512", "cnn", "resnet20", "siren")

TABLES = {
    "structure": (("structure/fashion_mnist", "structure/solids"), structure),
    "probes": (tuple(f"probes/{name}" for name in DATA_OF_PROBES), probes),
    "network_alignment": ("network_alignment/mlp512", networks),
    "zoo_alignment": ("zoo_alignment/fashion_mnist", zoo),
    "posteriors": (tuple(f"posteriors/{name}" for name in POSTERIORS), posteriors),
}
"""Name in a page: record, or several, and function."""
