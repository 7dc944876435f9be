"""The pictures themselves as a store of one tensor, so that the same readers run on pixels as on weights."""

from pathlib import Path

from wsrl.fields import Layout, TensorSpec
from wsrl.fitting.engine import field_seed
from wsrl.store.rows import FitResult
from wsrl.store.writer import ShardWriter, create_or_resume, finalize


def pixel_store(source, directory: Path) -> None:
    """The pictures themselves in a store of one tensor, so that the same readers run on pixels as on weights."""
    points, channels = source[0].values.shape
    spec = TensorSpec(name="pixels", shape=(points, channels), axes=(None, None), group="pixels", token_axis=0)
    create_or_resume(
        directory,
        layout=Layout((spec,)),
        representation={"kind": "pixels"},
        base_sha256=None,
        source=source.description,
        fit={},
        num_signals=len(source),
        num_shards=1,
        label_names=source.label_names,
    )
    # One shard, a thousand pictures at a time; what an earlier run wrote is kept.
    with ShardWriter(directory, 0) as writer:
        todo = [index for index in writer.indices if index not in writer.done]
        for start in range(0, len(todo), 1024):
            rows = []
            for index in todo[start : start + 1024]:
                signal = source[index]
                own = {
                    "index": index,
                    "id": signal.id,
                    "label": signal.label,
                    "split": signal.split,
                    "seed": field_seed(0, signal.id),
                    "signal_sha256": signal.sha256(),
                }
                rows.append(FitResult(**own, weights={"pixels": signal.values}))
            writer.write_segment(rows)
        writer.finish()
    finalize(directory)
