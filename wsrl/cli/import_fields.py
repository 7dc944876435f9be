"""``wsrl import``: make a weight store out of files that other programs wrote; continues what is there."""

import shlex
from collections import Counter
from pathlib import Path

from wsrl.errors import UserError

KINDS = ("state_dicts", "peft", "numpy")
TRIES = 100
SEGMENT = 1024
SEGMENT_BYTES = 32 << 20
_USUAL = (("omega_hidden", 1.0), ("value_scale", [1.0]), ("value_offset", [0.0]))


def main(argv: list[str]) -> int:
    """Run the command; returns 1 where some files hold no field."""
    from wsrl.cli import stage
    from wsrl.cli.build import finished, report

    options = stage.parse(make_parser(), argv)
    kinds = [kind for kind in KINDS if getattr(options, kind)]
    if len(kinds) != 1 or options.unmatched not in ("refuse", "ignore"):
        raise UserError(
            f"{' and '.join(kinds) or 'nothing'} to import, --unmatched {options.unmatched}",
            allowed="one of --state-dicts DIR, --peft DIR, --numpy DIR; --unmatched refuse or ignore",
            do="see wsrl import --help",
        )
    out = Path(options.out)
    folder, network, reader, names = prepare(kinds[0], Path(getattr(options, kinds[0])), options)
    print(told(folder, network, names), flush=True)
    command = shlex.join(["wsrl", "import", *argv])
    create(folder, network, names, kinds[0], out, options.shards, command)
    fill(folder, reader, network.representation.layout.num_weights, out, command)
    return report(finished(out))


def make_parser():
    """The parser of the command line."""
    from wsrl.cli import stage
    from wsrl.exchange.label_columns import FORMS
    from wsrl.exchange.networks import EXAMPLE

    parser = stage.make_parser("import", __doc__)
    parser.formatter_class = raw_help(parser.formatter_class)
    parser.epilog = f"labels:\n  {FORMS}\n\nnetwork.yaml:\n" + "".join(f"  {line}\n" for line in EXAMPLE.splitlines())
    parser.add_argument(
        "--state-dicts",
        type=str,
        help="folder of .pt, .pth or .safetensors files, one per field; numbers in names and sizes order layers, "
        "or else the order of definition that torch files keep",
    )
    parser.add_argument("--peft", type=str, help="folder of PEFT adapter folders, one per field")
    parser.add_argument("--numpy", type=str, help="folder that wsrl export --format numpy wrote")
    parser.add_argument("--out", type=str, required=True, help="folder of the store")
    parser.add_argument("--network", type=str, help="YAML file that describes the network; network.yaml in the folder")
    parser.add_argument("--labels", type=str, help="CSV or JSON file of labels and splits; labels.csv in the folder")
    parser.add_argument("--encoding", type=str, help="encoding of the labels, such as latin-1; UTF-8 if not given")
    parser.add_argument("--base", type=str, help="base field of adapters; base/ in the folder if not given")
    parser.add_argument("--shards", type=int, help="number of shards; one per 8,192 fields if not given")
    parser.add_argument("--unmatched", type=str, default="refuse", help="labels without a file: refuse or ignore")
    parser.add_argument("--rounding", type=bool, default=False, help="round numbers that float32 cannot hold")
    return parser


def raw_help(formatter: type) -> type:
    """A formatter that keeps the lines of the text after the options."""
    import argparse

    return type("RawHelp", (argparse.RawDescriptionHelpFormatter, formatter), {})


def prepare(kind: str, directory: Path, options):
    """What is to be imported and what reads it.

    Args:
        kind: One of ``KINDS``.
        directory: The folder.
        options: The parsed arguments.

    Returns:
        The folder's fields, the description of the network, the reader, and the name in a file of each tensor.

    Raises:
        UserError: Something is missing or does not fit.
    """
    from wsrl.exchange import labels as label_files
    from wsrl.exchange import networks
    from wsrl.exchange.arrays import open_arrays
    from wsrl.exchange.folders import is_base, open_folder
    from wsrl.fields.base import BaseField
    from wsrl.store import schema

    if not directory.is_dir():
        raise UserError(f"there is no folder {directory}", allowed="a folder of weights", do="check the path")
    labels = beside(options.labels, directory / label_files.FILE)
    entries = label_files.read_labels(labels, options.encoding) if labels else None
    found = beside(options.base, directory / schema.BASE if is_base(directory / schema.BASE) else None)
    base = BaseField.from_pretrained(found) if found else None
    described = beside(options.network, directory / networks.FILE)
    network = networks.read_network(described, base) if described else None
    used = [path for path in (labels, described) if path]
    if kind == "numpy":
        network = network or _no_network(directory)
        layout = network.representation.layout
        folder, reader = open_arrays(directory, layout, entries, options.rounding, used)
        return folder, network, reader, {}
    folder = open_folder(directory, kind, entries, options.unmatched == "ignore", used)
    if kind == "peft":
        return *_adapters(folder, network, base, options.rounding), {}
    return _state_dicts(folder, network or _no_network(directory), options.rounding)


def beside(given: str | None, default: Path | None) -> Path | None:
    """The path that was given, or the one in the folder where it is there."""
    if given is not None:
        return Path(given)
    return default if default is not None and default.exists() else None


def _no_network(directory: Path):
    raise UserError(
        f"nothing says what network the weights in {directory} are of",
        allowed="a small YAML file, as wsrl import --help shows it",
        do="write one and pass it with --network",
    )


def _state_dicts(folder, network, rounding: bool):
    """Names by the first file that fits, so that one bad file does not spoil the import."""
    from wsrl.exchange.names import guess_names, map_names
    from wsrl.fields.tensor_files import FileReader, read_tensors

    layout, first = network.representation.layout, None
    for file in folder.files[:TRIES]:
        try:
            tensors = read_tensors(folder.directory / file, network.inside)
            tensors = {name: tensor for name, tensor in tensors.items() if name not in network.ignore}
            if network.names:
                names = map_names(tensors, network.names, layout)
            else:
                names = guess_names(tensors, layout, ordered=not file.lower().endswith(".safetensors"))
                tell_order(file, tensors, layout)
            break
        except UserError as error:
            first = first or UserError(f"{file}: {error.wrong}", allowed=error.allowed, do=error.do)
    else:
        raise first
    reader = FileReader(layout=layout, names=names, inside=network.inside, ignore=network.ignore, rounding=rounding)
    return folder, network, reader, names


def tell_order(file: str, tensors: dict, layout) -> None:
    """Say it where nothing but the order of tensors in a file tells which layer comes first."""
    from wsrl.exchange.names import guess_names

    try:
        guess_names(tensors, layout, ordered=False)
    except UserError:
        print(f"the layers are in the order in which {file} has them: torch keeps the order of definition", flush=True)


def _adapters(folder, network, base, rounding: bool):
    """The representation by the description, or by the first adapter that can be read."""
    from wsrl.exchange.networks import Network
    from wsrl.exchange.peft_folders import AdapterReader, guess_representation

    if base is None:
        raise UserError(
            f"{folder.directory} holds adapters and no base field",
            allowed="the folder of the base field that they adapt",
            do="pass it with --base",
        )
    first = None
    for file in folder.files[:TRIES] if network is None else ():
        try:
            network = Network(representation=guess_representation(folder.directory / file, base), names={})
            break
        except UserError as error:
            first = first or error
    if network is None:
        raise first
    if not network.representation.config.is_adapter:
        raise UserError("the network is described as a mlp", allowed="lora, mlora, ...", do="mend `kind:` in it")
    return folder, network, AdapterReader(representation=network.representation, rounding=rounding)


def told(folder, network, names: dict[str, str]) -> str:
    """What is imported, and how, in a few lines."""
    from wsrl.signals.passed_over import tell_passed_over

    representation = network.representation
    lines = [
        f"{len(folder.files)} fields of kind {representation.config.kind}, {representation.layout.num_weights} numbers"
    ]
    lines += [f"  {theirs} is {ours}" for ours, theirs in names.items() if ours != theirs]
    convention = representation.to_dict().get("convention")
    if convention:
        same = (None, [], "none")
        kept = {k: v for k, v in convention.items() if v not in same and (k, v) not in _USUAL}
        lines.append(f"the numbers stay as they are, nothing is folded into them; the store's convention: {kept}")
    lines += _told_of_labels(folder)
    if passed_over := tell_passed_over(folder.passed_over):
        lines.append(passed_over)
    return "\n".join(lines)


def _told_of_labels(folder) -> list[str]:
    """How much of the labels was used, where there are any."""
    if folder.num_asked is None:
        return []
    used, asked = len(folder.entries), folder.num_asked
    if not used:
        what = f"none of its {asked} entries names a file of the folder" if asked else "it names no field"
        return [f"no label was used: the label file fits nothing, {what}"]
    lines = [f"{asked - used} of {asked} entries of the labels name no file here and were left out"] * (used < asked)
    splits = Counter(entry.split for entry in folder.entries.values() if entry.split is not None)
    lines += [f"splits: {', '.join(f'{number} {name}' for name, number in sorted(splits.items()))}"] * bool(splits)
    return lines + [f"{folder.num_unlabelled} fields have no label"] * bool(folder.num_unlabelled)


def create(folder, network, names: dict[str, str], kind: str, out: Path, num_shards: int | None, command: str) -> None:
    """Make the store, or check that the one there is of the same import."""
    from wsrl.cli.build import FIELDS_PER_SHARD
    from wsrl.cli.display import show_progress
    from wsrl.signals.form import SignalForm
    from wsrl.store.writer import create_or_resume

    representation = network.representation
    with show_progress("hash", len(folder.files)) as shown:
        sha256 = folder.sha256(shown.advance)
    source = {
        "name": f"imported/{folder.directory.resolve().name}",
        "imported": kind,
        "num_signals": len(folder.files),
        "channels": representation.out_features,
        "files_sha256": sha256,
        "labels_sha256": folder.labels_sha256(),
        "names": names,
    }
    sizes = {"in_features": representation.in_features, "out_features": representation.out_features}
    base = representation.base
    create_or_resume(
        out,
        layout=representation.layout,
        representation=representation.to_dict(),
        base_sha256=base.sha256() if base else None,
        source=source | ({"grid": list(network.grid)} if network.grid else {}),
        form=SignalForm(**sizes, grid=network.grid),
        fit={},
        num_signals=len(folder.files),
        num_shards=-(-len(folder.files) // FIELDS_PER_SHARD) if num_shards is None else num_shards,
        label_names=folder.label_names,
        save_base=base.save_pretrained if base else None,
        command=command,
        passed_over=folder.passed_over,
        mended="files_sha256" if only_failures_changed(folder, out, sha256) else None,
    )


def only_failures_changed(folder, out: Path, sha256: str) -> bool:
    """Whether a store's import is of other files now, but every field in it is still what its file holds.

    Args:
        folder: The fields' folder.
        out: Folder of the store, new or not.
        sha256: Hash of all files.
    """
    from wsrl.store import rows, schema
    from wsrl.store.shard import ShardFile

    if not (out / schema.MANIFEST).is_file() or schema.read_manifest(out)["source"].get("files_sha256") == sha256:
        return False
    for path in [*out.glob("shard-*.h5"), *out.glob(f"{schema.SEGMENTS}/*/segment-*.h5")]:
        with ShardFile(path) as shard:
            ids, hashes = (rows.decode(shard.column(f"fields/{name}")) for name in ("id", "signal_sha256"))
            indices = shard.column("fields/index").tolist()
        for index, name, found in zip(indices, ids, hashes):
            if index >= len(folder.ids) or folder.ids[index] != name or folder.hash_or_reason(index) != found:
                return False
    return True


def fill(folder, reader, num_weights: int, out: Path, command: str) -> None:
    """Write every field of ``num_weights`` numbers that has no row yet; what failed before is tried again.

    The command that made a field of what failed before is the one that makes the store again.
    """
    from wsrl.cli.display import show_progress
    from wsrl.durable import locked
    from wsrl.fitting.shards import segments
    from wsrl.store import schema
    from wsrl.store.writer import ShardWriter

    mended = False
    size = max(1, min(SEGMENT, SEGMENT_BYTES // (4 * num_weights)))
    with show_progress("import", len(folder.files)) as shown:
        for shard in range(schema.read_manifest(out)["num_shards"]):
            with ShardWriter(out, shard, retry=True) as writer:
                todo = [index for index in writer.indices if index not in writer.done]
                shown.advance(len(writer.indices) - len(todo))
                for segment in segments(folder.results(todo, reader.read), size):
                    writer.write_segment(segment)
                    mended |= any(r.weights is not None and r.index in writer.failed for r in segment)
                    shown.advance(len(segment))
                writer.finish()
    if mended:
        with locked(out / schema.LOCK):
            schema.write_manifest(out, schema.read_manifest(out) | {"command": command})
