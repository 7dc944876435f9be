"""``wsrl import``: make a weight store out of files that other programs wrote; continues what is there."""

import shlex

from wsrl.errors import UserError

STATE_DICTS = (
    "folder of .pt, .pth or .safetensors files, one per field; numbers in names and sizes order layers, or else the "
    "order of definition that torch files keep"
)


def main(argv: list[str]) -> int:
    """Run the command; returns 1 where some files hold no field."""
    from wsrl.cli import parser as parsers
    from wsrl.cli.build import report
    from wsrl.cli.display import say, show_progress
    from wsrl.exchange.import_store import import_store
    from wsrl.exchange.importing import IMPORT_KINDS, ImportOptions, plan_import

    options = parsers.parse(make_parser(), argv)
    kinds = [kind for kind in IMPORT_KINDS if options[kind]]
    if len(kinds) != 1:
        allowed = "one of --state-dicts DIR, --peft DIR, --numpy DIR"
        raise UserError(f"{' and '.join(kinds) or 'nothing'} to import", allowed=allowed, do="see wsrl import --help")
    names = ("network", "labels", "encoding", "base", "unmatched", "rounding")
    plan = plan_import(kinds[0], options[kinds[0]], ImportOptions(**{name: options[name] for name in names}))
    print(plan.summary(), flush=True)
    command = shlex.join(["wsrl", "import", *argv])
    with import_store(plan, options.out, num_shards=options.shards, command=command, progress=show_progress) as store:
        status = report(store)
    for line in plan.left_out:  # said before the work, and again where it has scrolled away
        say(line)
    return status


def make_parser():
    """The parser of the command line."""
    from wsrl.cli import parser as parsers
    from wsrl.exchange.label_columns import LABEL_FORMS
    from wsrl.exchange.networks import EXAMPLE

    parser = parsers.make_parser("import", __doc__)
    parser.formatter_class = raw_help(parser.formatter_class)
    parser.epilog = f"labels:\n  {LABEL_FORMS}\n\nnetwork.yaml:\n" + "".join(
        f"  {line}\n" for line in EXAMPLE.splitlines()
    )
    add = parser.add_argument
    add("--state-dicts", type=str, help=STATE_DICTS)
    add("--peft", type=str, help="folder of PEFT adapter folders, one per field")
    add("--numpy", type=str, help="folder that wsrl export --format numpy wrote")
    add("--out", type=str, required=True, help="folder of the store")
    add("--network", type=str, help="YAML file that describes the network; network.yaml in the folder")
    add("--labels", type=str, help="CSV or JSON file of labels and splits; labels.csv in the folder")
    add("--encoding", type=str, help="encoding of the labels, such as latin-1; UTF-8 if not given")
    add("--base", type=str, help="base field of adapters; base/ in the folder if not given")
    add("--shards", type=int, help="number of shards; one per 8,192 fields if not given")
    add("--unmatched", type=str, default="refuse", help="labels without a file: refuse or ignore")
    add("--rounding", type=bool, default=False, help="round numbers that float32 cannot hold")
    return parser


def raw_help(formatter: type) -> type:
    """A formatter that keeps the lines of the text after the options."""
    import argparse

    return type("RawHelp", (argparse.RawDescriptionHelpFormatter, formatter), {})
