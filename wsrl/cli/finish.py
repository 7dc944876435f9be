"""``wsrl build --finish --out DIR``: complete a store whose shards were built one by one, without its data."""

import argparse
from pathlib import Path


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: Arguments after ``wsrl build``, with ``--finish`` among them.

    Returns:
        0 where the store is complete, 1 where shards are missing or signals have no field; both are listed.
    """
    from wsrl.cli.build import finished, report

    parser = argparse.ArgumentParser(prog="wsrl build --finish", description=__doc__, allow_abbrev=False)
    parser.add_argument("--finish", action="store_true", help="complete the store, or say which shards are missing")
    parser.add_argument("--out", required=True, metavar="DIR", help="the store")
    out = Path(parser.parse_args(argv).out)
    missing = assemble_or_list(out)
    if missing:
        print(f"{out}: {len(missing)} shards are missing:", *missing, sep="\n  ")
        print("What to do: run the same `wsrl build ... --shard I/N` for these; what they have finished is kept.")
        return 1
    return report(finished(out))


def assemble_or_list(out: Path) -> list[str]:
    """Assemble the shards all of whose signals are done; the others as text, with how far they are.

    Args:
        out: The store.
    """
    from wsrl.store import schema
    from wsrl.store.writer import ShardBusy, ShardWriter

    num_shards, missing = schema.read_manifest(out)["num_shards"], []
    for shard in range(num_shards):
        if (out / schema.shard_name(shard, num_shards)).exists():
            continue
        try:
            with ShardWriter(out, shard) as writer:
                if writer.done == set(writer.indices):
                    writer.finish()
                    continue
                state = f"{len(writer.done)} of {len(writer.indices)} signals done"
        except ShardBusy:
            state = "another process is at work on it"
        missing.append(f"{shard}/{num_shards}: {state}")
    return missing
