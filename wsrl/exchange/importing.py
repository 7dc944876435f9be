"""Plan an import: which files of a folder are fields, of which network, under which names and labels."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from wsrl.errors import UserError
from wsrl.exchange import labels as label_files
from wsrl.exchange import networks
from wsrl.exchange.arrays import ArrayReader, open_arrays
from wsrl.exchange.folders import ImportFolder, is_base, open_folder
from wsrl.exchange.names import guess_names, map_names
from wsrl.exchange.networks import Network
from wsrl.exchange.peft_folders import AdapterReader, guess_representation
from wsrl.fields.layout import Layout
from wsrl.fields.modulated_base import BaseField
from wsrl.fields.tensor_files import FileReader, read_tensors
from wsrl.options import check_values, one_of
from wsrl.signals.passed_over import describe_passed_over
from wsrl.store import schema

IMPORT_KINDS = ("state_dicts", "peft", "numpy")
TRIES = 100
# What a convention says where it says nothing of its own.
_USUAL = (("omega_hidden", 1.0), ("value_scale", [1.0]), ("value_offset", [0.0]))
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What describes the weights, and what becomes of that which does not fit exactly.

    Attributes:
        network: YAML file that describes the network; None takes ``network.yaml`` in the folder.
        labels: CSV or JSON file of labels and splits; None takes ``labels.csv`` in the folder.
        encoding: Encoding of the labels, such as ``latin-1``; None is UTF-8.
        base: Folder of the base field of adapters; None takes ``base`` in the folder.
        unmatched: What to do with labels without a file: ``refuse`` or ``ignore`` them.
        rounding: Round numbers that float32 cannot hold.
    """

    network: Path | str | None = None
    labels: Path | str | None = None
    encoding: str | None = None
    base: Path | str | None = None
    unmatched: str = "refuse"
    rounding: bool = False

    def __post_init__(self):
        check_values({"--unmatched": self.unmatched}, **{"--unmatched": one_of("refuse", "ignore")})


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """What is to be imported and what reads it.

    Attributes:
        kind: One of ``IMPORT_KINDS``.
        folder: The fields of the folder.
        network: What they are weights of.
        reader: Reads the weights of one field.
        names: Name in a file of each tensor of the layout; empty where it is not asked.
        notes: What a person should know of how the files are read.
    """

    kind: str
    folder: ImportFolder
    network: Network
    reader: FileReader | AdapterReader | ArrayReader
    names: dict[str, str]
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """What is imported, and how, in a few lines."""
        representation = self.network.representation
        num_weights = representation.layout.num_weights
        lines = [
            *self.notes,
            f"{len(self.folder.files)} fields of kind {representation.config.kind}, {num_weights} parameters",
            *(f"  {theirs} is {ours}" for ours, theirs in self.names.items() if ours != theirs),
        ]
        if convention := representation.to_dict().get("convention"):
            same = (None, [], "none")
            kept = {k: v for k, v in convention.items() if v not in same and (k, v) not in _USUAL}
            note = "the parameters stay as they are, nothing is folded into them; the store's convention"
            lines.append(f"{note}: {kept}")
        return "\n".join([*lines, *self.left_out])

    @property
    def left_out(self) -> list[str]:
        """What of the folder and of its labels is not used, a line each."""
        passed_over = describe_passed_over(self.folder.passed_over)
        return [*_label_notes(self.folder), *([passed_over] if passed_over else [])]


def plan_import(kind: str, directory: Path | str, options: ImportOptions = ImportOptions()) -> ImportPlan:
    """Look through a folder of weights and decide how to read it; nothing is written.

    Args:
        kind: ``state_dicts`` (torch or safetensors files), ``peft`` (adapter folders) or ``numpy`` (one array).
        directory: The folder.
        options: What describes it.

    Raises:
        UserError: Something is missing or does not fit.
    """
    check_values({"kind": kind}, kind=one_of(*IMPORT_KINDS))
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"there is no folder {directory}", allowed="a folder of weights", do="check the path")
    # What stands beside the fields: labels, the base field, the description of the network.
    labels = _beside(options.labels, directory / label_files.LABELS_FILE)
    entries = label_files.read_labels(labels, options.encoding) if labels else None
    there = directory / schema.BASE
    base_folder = _beside(options.base, there if is_base(there) else None)
    base = BaseField.from_pretrained(base_folder) if base_folder else None
    described = _beside(options.network, directory / networks.DESCRIPTION_FILE)
    network = networks.read_network(described, base) if described else None
    used = [path for path in (labels, described) if path]
    # The fields, and what reads them.
    if kind == "numpy":
        network = network or _no_network(directory)
        folder, reader = open_arrays(directory, network.representation.layout, entries, options.rounding, used)
        return ImportPlan(kind=kind, folder=folder, network=network, reader=reader, names={})
    folder = open_folder(directory, kind, entries, options.unmatched == "ignore", used)
    if kind == "peft":
        return _plan_adapters(folder, network, base, options.rounding)
    return _plan_state_dicts(folder, network or _no_network(directory), options.rounding)


def _beside(path: Path | str | None, default: Path | None) -> Path | None:
    """The path that was given, or the one in the folder where it is there."""
    if path is not None:
        return Path(path)
    return default if default is not None and default.exists() else None


def _no_network(directory: Path) -> Network:
    raise UserError(
        f"nothing says what network the weights in {directory} are of",
        allowed="a small YAML file, as wsrl import --help shows it",
        do="write one and pass it with --network",
    )


def _first_that_fits(files: Iterable[str], read: Callable[[str], Result]) -> Result:
    """What the first readable file says, so that one bad file does not spoil the import.

    Raises:
        UserError: None can be read; the message is of the first.
    """
    first = None
    for file in files:
        try:
            return read(file)
        except UserError as error:
            wrong = error.wrong if Path(file).name in error.wrong else f"{file}: {error.wrong}"
            first = first or UserError(wrong, allowed=error.allowed, do=error.do)
    raise first


def _plan_state_dicts(folder: ImportFolder, network: Network, rounding: bool) -> ImportPlan:
    """Names by the first file that fits."""
    layout = network.representation.layout

    def read(file: str) -> tuple[dict[str, str], tuple[str, ...]]:
        tensors = read_tensors(folder.directory / file, network.inside)
        tensors = {name: tensor for name, tensor in tensors.items() if name not in network.ignore}
        if network.names:
            return map_names(tensors, network.names, layout), ()
        names = guess_names(tensors, layout, ordered=not file.lower().endswith(".safetensors"))
        return names, _notes_of_order(file, tensors, layout)

    names, notes = _first_that_fits(folder.files[:TRIES], read)
    reader = FileReader(layout=layout, names=names, inside=network.inside, ignore=network.ignore, rounding=rounding)
    return ImportPlan(kind="state_dicts", folder=folder, network=network, reader=reader, names=names, notes=notes)


def _notes_of_order(file: str, tensors: dict, layout: Layout) -> tuple[str, ...]:
    """A line where nothing but the order of tensors in a file tells which layer comes first."""
    try:
        guess_names(tensors, layout, ordered=False)
    except UserError:
        return (f"the layers are in the order in which {file} has them: torch keeps the order of definition",)
    return ()


def _plan_adapters(folder: ImportFolder, network: Network | None, base: BaseField | None, rounding: bool) -> ImportPlan:
    """The representation by the description, or by the first adapter that can be read."""
    if base is None:
        raise UserError(
            f"{folder.directory} holds adapters and no base field",
            allowed="the folder of the base field that they adapt",
            do="pass it with --base",
        )
    if network is None:
        network = _first_that_fits(
            folder.files[:TRIES],
            lambda file: Network(representation=guess_representation(folder.directory / file, base), names={}),
        )
    if not network.representation.config.is_adapter:
        raise UserError("the network is described as a mlp", allowed="lora, mlora, ...", do="mend `kind:` in it")
    reader = AdapterReader(representation=network.representation, rounding=rounding)
    return ImportPlan(kind="peft", folder=folder, network=network, reader=reader, names={})


def _label_notes(folder: ImportFolder) -> list[str]:
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
