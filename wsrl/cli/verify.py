"""``wsrl verify DIR``: check a store's files, hashes and rows; optionally refit some fields and compare."""


def main(argv: list[str]) -> int:
    """Run the command; returns 0 where all is well, 1 where problems are listed."""
    from wsrl.cli import parser as parsers
    from wsrl.store.verifying import verify

    options = parsers.parse(make_parser(), argv)
    report = verify(options.directory)
    for problem in report.problems[: options.show]:
        print(problem)
    hidden = len(report.problems) - options.show
    if hidden > 0:
        print(f"... and {hidden} more (--show {len(report.problems)})")
    verdict = "all is well" if report.ok else f"{len(report.problems)} problems"
    print(f"{options.directory}: {report.num_rows} fields, {report.num_failures} recorded failures: {verdict}")
    if not report.ok:
        do = "delete the damaged shard files and run the same `wsrl build` again; it fits only their rows."
        print(f"What to do: {do}")
        return 1
    return _refit(options.directory, options.refit, options.data, options.device) if options.refit > 0 else 0


def make_parser():
    """The parser of the command line."""
    from wsrl.cli import parser as parsers

    parser = parsers.make_parser("verify", __doc__)
    add = parser.add_argument
    add("directory", type=str, help="the store that `wsrl build` wrote")
    add("--refit", type=int, default=0, help="fit so many fields again and compare")
    add("--data", type=str, help="for --refit: the source of the store, needed where it was a folder or a file")
    add("--device", type=str, default="auto", help="for --refit: auto, cpu or cuda[:i]")
    add("--show", type=int, default=20, help="problems to list")
    return parser


def _refit(directory: str, count: int, data: str | None, device: str) -> int:
    """Fit ``count`` fields again; 1 where one of them differs."""
    from wsrl.fitting.devices import choose_device
    from wsrl.fitting.refit import refit_fields
    from wsrl.store import WeightStore
    from wsrl.store.source import open_store_source

    with WeightStore.open(directory) as store:
        source = None if data is None else open_store_source(store, data)
        outcomes = refit_fields(store, count, source=source, device=choose_device(device))
    print(*outcomes, sep="\n")
    same, identical = sum(o.same for o in outcomes), sum(o.identical for o in outcomes)
    print(f"{len(outcomes)} fields fitted again: {same} the same, {identical} of them bit for bit")
    return 0 if same == len(outcomes) else 1
