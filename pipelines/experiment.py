"""What every experiment shares: its configuration, its base field and stores, what earlier runs left, and its record.

An experiment is one module with a configuration, a subclass of :class:`Experiment`, and a function ``run`` from it to
the numbers of the record; the module ends with ``sys.exit(main(run))``.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_type_hints

from wsrl.cli.parser import make_parser as make_command_parser
from wsrl.cli.parser import parse, show_progress
from wsrl.errors import UserError
from wsrl.fields import RepresentationConfig
from wsrl.fitting.build import build_store
from wsrl.fitting.engine import FitConfig
from wsrl.provenance import RUN_FILE, code_state, machine, versions, write_json_atomic
from wsrl.signals import open_source
from wsrl.signals.source import Source
from wsrl.store import WeightStore
from wsrl.training.base import train_base
from wsrl.training.base_field import BaseTrainingConfig

RECORDS = Path(__file__).parent / "records"
REST = "rest"
"""The part that stands for what the last run did outside all others."""


class Parts:
    """The parts of an experiment, each with the commit that made it and the seconds that it took.

    Args:
        path: JSON file in which the parts of all runs are noted.
    """

    def __init__(self, path: Path):
        self.path = path
        self.noted = self._read()
        self.used: list[str] = []
        self._inside: list[float] = []

    def _read(self) -> dict[str, dict]:
        return json.loads(self.path.read_text()) if self.path.is_file() else {}

    @cached_property
    def _commit(self) -> str | None:
        return code_state()["commit"]

    @contextmanager
    def timed(self, name: str, *, there: bool, folder: Path | None = None) -> Iterator[None]:
        """Note what is done inside as a part, without the seconds of the parts inside it.

        Args:
            name: Name of the part.
            there: An earlier run finished it: what is noted of it stays.
            folder: Where that run's ``run.json`` may be, for a part that another experiment made.
        """
        started, finished = time.monotonic(), False
        self._inside.append(0.0)
        try:
            yield
            finished = True
        finally:
            seconds = time.monotonic() - started
            own = seconds - self._inside.pop()
            if self._inside:
                self._inside[-1] += seconds
            self._note(name, own, there=there, finished=finished, folder=folder)

    def _note(self, name: str, seconds: float, *, there: bool, finished: bool, folder: Path | None) -> None:
        self.used = [*(used for used in self.used if used != name), name]
        known = self.noted.get(name, {})
        if there and not known:
            known = _run_of(folder) if folder is not None else {"commit": None, "elapsed_s": 0.0}
        elif not there:
            before = 0.0 if known.get("finished", True) else known["elapsed_s"]  # of a run that was interrupted
            known = {"commit": self._commit, "elapsed_s": before + seconds}
        self.noted = self._read() | {name: {**known, "finished": finished}}  # another run may have noted others
        write_json_atomic(self.path, self.noted)

    def entries(self) -> dict[str, Any]:
        """Commit and seconds of every part of the last run, and the sum of the seconds."""
        numbers: dict[str, Any] = {}
        for name in sorted(self.used):
            numbers[f"run.parts.{name}.commit"] = self.noted[name]["commit"]
            numbers[f"run.parts.{name}.elapsed_s"] = round(self.noted[name]["elapsed_s"], 1)
        return numbers | {"run.elapsed_s": round(sum(self.noted[name]["elapsed_s"] for name in self.used), 1)}


def _run_of(folder: Path) -> dict[str, Any]:
    """Commit and seconds of the run that a folder holds, as far as it says them."""
    path = folder / RUN_FILE
    run = json.loads(path.read_text()) if path.is_file() else {}
    return {"commit": run.get("commit"), "elapsed_s": run.get("elapsed_s") or 0.0}


def fingerprint(value: Any) -> str:
    """Eight letters that change with plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What has a record.

    Attributes:
        folder: Folder of the record; None for the name of the pipeline.
        shared: Name of a record that several experiments share, where the keys of each begin with its name; None for
            one of its own.
        name: Name of the experiment, and of a record of its own.
        out: Folder for what is kept between runs.
    """

    folder: ClassVar[str | None] = None
    shared: ClassVar[str | None] = None

    name: str
    out: str = "runs"

    @cached_property
    def parts(self) -> Parts:
        """What this run and earlier ones made, and how long it took."""
        return Parts(Path(self.out) / f"{self.name}.parts.json")

    def known(self, path: Path, how: Any = None) -> dict | None:
        """What an earlier run left in a file, without what it was made with; None where :meth:`kept` would make it."""
        known = json.loads(path.read_text()) if path.exists() else None
        if known is not None and how is not None and known.pop("how", None) != json.loads(json.dumps(how)):
            return None
        return known

    def kept(self, part: str, path: Path, make: Callable[[], dict], how: Any = None) -> dict:
        """What an earlier run made and left, or what is made and left there now.

        Args:
            part: Name of the part.
            path: JSON file.
            make: Makes it.
            how: What it was made with; something made with anything else is made anew. None: nothing to compare.
        """
        known = self.known(path, how)
        with self.parts.timed(part, there=known is not None):
            if known is None:
                known = make()
                write_json_atomic(path, known if how is None else {"how": how} | known)
        return known


@dataclass(frozen=True, kw_only=True)
class FieldExperiment(Experiment):
    """An experiment on fields of a data set.

    Attributes:
        data: Named source or folder.
        source: Options of the source.
        base: Training of the base field of adapters.
        base_source: Options of the source of the base field; None for those of the source.
        base_dir: Folder of the base field; None for ``base`` in ``out``.
        seed: Seed of what is drawn.
    """

    data: str
    source: dict[str, Any] = field(default_factory=dict)
    base: BaseTrainingConfig | None = BaseTrainingConfig()
    base_source: dict[str, Any] | None = None
    base_dir: str | None = None
    seed: int = 0

    @property
    def base_folder(self) -> Path:
        """Folder of the base field."""
        return self.base_folder_of(0)

    def base_folder_of(self, number: int) -> Path:
        """Folder of one of several base fields, of which the first one is that of ``base_dir``."""
        if number:
            return Path(self.out) / f"base_{number}"
        return Path(self.out) / "base" if self.base_dir is None else Path(self.base_dir)

    def open(self, **options: Any) -> Source:
        """The source of the signals.

        Args:
            **options: Options beside those of the experiment.
        """
        return open_source(self.data, **(self.source | options))

    def train_base(self, number: int = 0) -> dict[str, float]:
        """Train the base field, or keep the one that an earlier run left; returns how good it is.

        Args:
            number: Which of several that differ by their seeds, counted from that of the configuration.
        """
        folder, name = self.base_folder_of(number), f"base_{number}" if number else "base"
        source = open_source(self.data, **(self.source if self.base_source is None else self.base_source))
        training = replace(self.base, seed=self.base.seed + number)
        there = (folder / "metrics.json").is_file() and (folder / "model.safetensors").is_file()
        with self.parts.timed(name, there=there, folder=folder):
            metrics = train_base(source, training, out=folder, progress=show_progress).metrics
        return {key.replace("base.", f"{name}.", 1): value for key, value in metrics.items()}

    def build(
        self,
        name: str,
        representation: RepresentationConfig,
        fit: FitConfig,
        *,
        source: Source | None = None,
        folder: Path | None = None,
    ) -> WeightStore:
        """Fit the store of one kind; what is there is continued.

        Args:
            name: Name of the kind, and of its part.
            representation: What the weights are.
            fit: How they are fitted.
            source: The signals; None for those of the experiment.
            folder: Folder of the store; None for one of that name in ``out``.

        Returns:
            The store.
        """
        folder = Path(self.out) / name if folder is None else folder
        base = self.base_folder if representation.is_adapter else None
        with self.parts.timed(f"fields.{name}", there=is_complete(folder), folder=folder):
            source = self.open() if source is None else source
            command = f"python -m {_module(type(self)).__spec__.name} (kind {name})"
            return build_store(
                source, representation, fit, base=base, out=folder, command=command, progress=show_progress
            )


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a whole store."""
    try:
        WeightStore.open(folder).close()
    except (OSError, ValueError):
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A representation and how its fields are fitted.

    Attributes:
        representation: What the weights are.
        fit: How fields are fitted.
    """

    representation: RepresentationConfig
    fit: FitConfig


Config = TypeVar("Config", bound=Experiment)


def _module(made_there: Callable) -> Any:
    return sys.modules[made_there.__module__]


def pipeline_of(run: Callable) -> str:
    """Name of the pipeline that an experiment is: that of its module, also where that is the program."""
    return _module(run).__spec__.name.rpartition(".")[2]


def make_parser(run: Callable[[Config], dict[str, float]]):
    """The parser of ``python -m pipelines.<module>``.

    Args:
        run: The experiment; its module says what it does, its parameter has the type of the configuration.
    """
    module, name = _module(run), pipeline_of(run)
    parser = make_command_parser(name, module.__doc__.splitlines()[0])
    parser.prog = f"python -m pipelines.{name}"
    parser.add_class_arguments(get_type_hints(run)["config"], as_group=False)
    return parser


def read_config(run: Callable[[Config], dict[str, float]], argv: Sequence[str]) -> Config:
    """The configuration of an experiment as its command line says.

    Args:
        run: The experiment.
        argv: Arguments.
    """
    parser, config = make_parser(run), get_type_hints(run)["config"]
    made = parser.instantiate(parse(parser, list(argv)))
    return config(**{entry.name: made[entry.name] for entry in fields(config)})


def record_of(run: Callable[[Config], dict[str, float]], argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run an experiment as the command line says, and write its record.

    Args:
        run: The experiment: from its configuration to plain numbers under dotted keys.
        argv: Arguments; None for those of the process.

    Returns:
        The experiment's numbers.
    """
    config = read_config(run, sys.argv[1:] if argv is None else argv)
    with config.parts.timed(REST, there=False):
        results = run(config)
    print(f"record: {write_record(run, config, results)}")
    return results


def main(
    run: Callable[[Config], dict[str, float]],
    check: Callable[[dict[str, float]], list[str]] = lambda results: [],
    argv: Sequence[str] | None = None,
) -> int:
    """Run an experiment as the command line says, and write its record.

    Args:
        run: The experiment.
        check: What makes its results worthless, a line each.
        argv: Arguments; None for those of the process.

    Returns:
        The exit status: 1 where the check has something to say, 2 where the input is wrong.
    """
    try:
        problems = check(record_of(run, argv))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def write_record(run: Callable, config: Experiment, results: dict[str, float]) -> Path:
    """Write ``records/<pipeline>/<name>.json``: the results and, under ``run.``, what they were made with.

    In a shared record the numbers of the other experiments stay.

    Args:
        run: The experiment; its module is the name of the pipeline.
        config: Its resolved configuration, whose hash is recorded, with the parts that it made.
        results: Plain numbers under dotted keys.
    """
    state, computer = code_state(), machine()
    text = json.dumps(asdict(config), sort_keys=True, default=str)
    facts = {
        "run.commit": state["commit"],
        "run.dirty": state["dirty"],
        **{f"run.versions.{package}": version for package, version in versions().items()},
        "run.machine.cpu": computer["cpu"],
        "run.machine.cores": computer["cores"],
        "run.machine.threads": computer["threads"],
        "run.config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        **config.parts.entries(),
    }
    folder = RECORDS / (config.folder or pipeline_of(run))
    if config.shared is None:
        path = folder / f"{config.name}.json"
        write_json_atomic(path, dict(sorted(results.items())) | facts)
        return path
    path, prefix = folder / f"{config.shared}.json", f"{config.name}."
    others = json.loads(path.read_text()) if path.is_file() else {}
    kept = {key: value for key, value in others.items() if not key.startswith(prefix)}
    own = {f"{prefix}{key}": value for key, value in (results | facts).items()}
    write_json_atomic(path, dict(sorted((kept | own).items())))
    return path
