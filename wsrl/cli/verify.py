"""`wsrl verify DIR`: check a store's files, hashes and rows; optionally refit some fields and compare."""

import argparse


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: Arguments after ``wsrl verify``.

    Returns:
        0 where all is well, 1 where problems are listed.
    """
    parser = argparse.ArgumentParser(prog="wsrl verify", description="Check every row and file of a weight store.")
    parser.add_argument("directory", metavar="DIR", help="the store that `wsrl build` wrote")
    parser.add_argument("--refit", type=int, default=0, metavar="K", help="fit K fields again and compare")
    parser.add_argument("--data", help="for --refit: the source of the store, needed where it was a folder or a file")
    parser.add_argument("--device", default="auto", help="for --refit: auto, cpu or cuda[:i]")
    parser.add_argument("--show", type=int, default=20, metavar="N", help="problems to list")
    options = parser.parse_args(argv)
    from wsrl.store.verify import verify

    report = verify(options.directory)
    for problem in report.problems[: options.show]:
        print(problem)
    hidden = len(report.problems) - options.show
    if hidden > 0:
        print(f"... and {hidden} more (--show {len(report.problems)})")
    verdict = "all is well" if report.ok else f"{len(report.problems)} problems"
    print(f"{options.directory}: {report.num_rows} fields, {report.num_failures} recorded failures: {verdict}")
    if not report.ok:
        print(
            "What to do: delete the damaged shard files and run the same `wsrl build` again; it fits only their rows."
        )
        return 1
    return _refit(options.directory, options.refit, options.data, options.device) if options.refit > 0 else 0


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
