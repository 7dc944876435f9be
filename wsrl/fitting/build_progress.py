"""What a build shows while it runs: one bar over all its shards, whoever builds them."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wsrl.fitting.shard_builder import Event
from wsrl.progress import Progress, ShowProgress
from wsrl.store import schema


@contextmanager
def shown_build(out: Path, shards: Sequence[int], progress: ShowProgress) -> Iterator[Callable[[Event], None]]:
    """A function that shows the events of a build.

    Args:
        out: The store.
        shards: Numbers of the shards to build.
        progress: Shows one loop over all of them.
    """
    manifest = schema.read_manifest(out)
    num_shards, num_signals = manifest["num_shards"], manifest["num_signals"]
    names = {shard: schema.shard_name(shard, num_shards) for shard in shards}
    missing = [shard for shard, name in names.items() if not (out / name).exists()]
    total = sum(len(schema.shard_range(shard, num_shards, num_signals)) for shard in missing)
    label = f"shard {shards[0]}" if len(shards) == 1 else f"{len(shards)} shards"
    with progress(label, total) as bar:
        yield _ShownBuild(bar, set(missing))


class _ShownBuild:
    """Turns events into the movement of a bar that counts what this run fits."""

    def __init__(self, bar: Progress, missing: set[int]):
        self.bar, self.missing = bar, missing
        self.begun: dict[int, int] = {}
        self.fitted: Counter[int] = Counter()

    def __call__(self, event: Event) -> None:
        if event.message:
            self.bar.say(event.message)
        if event.shard not in self.missing:
            return  # a finished shard is only looked at
        if event.already_done is not None:
            self._begun(event.shard, event.already_done)
        if event.fitted:
            self.fitted[event.shard] += event.fitted
            scores = event.scores
            self.bar.advance(event.fitted, f"{sum(scores) / len(scores):.1f} dB" if scores else "")

    def _begun(self, shard: int, already_done: int) -> None:
        """A worker opened the shard: the first one tells what earlier runs left, a later one what its first lost."""
        if shard not in self.begun:
            self.begun[shard] = already_done
            self.bar.expect(-already_done)
            return
        difference = already_done - self.begun[shard] - self.fitted[shard]
        self.fitted[shard] += difference
        if difference:
            self.bar.advance(difference)
