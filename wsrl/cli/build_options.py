"""The options of ``wsrl build`` and their defaults, which depend on the data."""

from dataclasses import asdict


def make_parser(description: str):
    """The parser of the command line.

    Args:
        description: What the command is for.
    """
    from wsrl.cli import stage
    from wsrl.fields.representation import RepresentationConfig
    from wsrl.fitting.engine import FitConfig

    parser = stage.make_parser("build", description)
    stage.add_source_arguments(parser)
    parser.add_argument("--out", type=str, required=True, help="folder of the store")
    parser.add_argument("--base", type=str | None, default=None, help="folder of a base field; adapters need one")
    parser.add_argument("--shard", type=str | None, default=None, metavar="I/N", help="fit only shard I (from 0) of N")
    parser.add_argument("--shards", type=int | None, default=None, help="number of shards; one per 8,192 signals")
    parser.add_argument(
        "--finish", action="store_true", help="with --out alone: complete a store whose shards were built one by one"
    )
    _add_compute_arguments(parser)
    parser.add_class_arguments(RepresentationConfig, "representation", help="what the weights of one field are")
    parser.add_class_arguments(FitConfig, "fit", help="how every field is fitted")
    return parser


def _add_compute_arguments(parser) -> None:
    add = parser.add_argument
    add("--engine", type=str, default="local", help="local, or ray for the nodes of a cluster that share their files")
    add("--device", type=str, default="auto", help="auto (all visible GPUs, else cpu), cpu or cuda[:i]")
    add("--workers", type=int | None, default=None, help="processes of the local engine; one per GPU")
    add("--threads", type=int | None, default=None, help="threads of each process; the cores shared out, 1 with ray")
    add("--ray-address", type=str | None, default=None, help="auto, HOST:PORT or ray://HOST:PORT of the cluster")
    add("--ray-cpus", type=float | None, default=None, help="cores that Ray keeps for a shard; its threads")
    add("--ray-gpus", type=float | None, default=None, help="GPUs that Ray keeps for a shard; 1 where there are any")


def data_defaults(options, source) -> dict:
    """Defaults by dotted name that fit the kind of representation asked for and the grid of the data."""
    from wsrl.cli.defaults import default_fit, default_representation
    from wsrl.cli.stage import dotted

    kind, grid = options.representation.kind, source.form.grid
    representation = asdict(default_representation(kind))
    del representation["kind"]  # stays what was given
    return dotted("representation", representation) | dotted("fit", asdict(default_fit(kind, grid)))


def spell_out_kind(argv: list[str]) -> list[str]:
    """``--representation KIND`` and ``--representation=KIND`` are short for ``--representation.kind KIND``."""
    short = "--representation"
    return [f"{short}.kind{a[len(short) :]}" if a == short or a.startswith(f"{short}=") else a for a in argv]
