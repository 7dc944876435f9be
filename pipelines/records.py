"""Records: the small JSON files that pipelines leave and the README's tables are made from."""

import hashlib
import json
from pathlib import Path

from wsrl.provenance import code_state, machine, versions, write_json_atomic

RECORDS = Path(__file__).parent / "records"


def write_record(pipeline: str, name: str, results: dict[str, float], *, config: dict, elapsed_s: float) -> Path:
    """Write ``records/<pipeline>/<name>.json``: the results and, under ``run.``, what they were made with.

    Args:
        pipeline: Name of the pipeline.
        name: Name of the configuration.
        results: Plain numbers under dotted keys.
        config: The resolved configuration; its hash is recorded.
        elapsed_s: Seconds that the computation took.
    """
    state, computer = code_state(), machine()
    text = json.dumps(config, sort_keys=True, default=str)
    run = {
        "run.commit": state["commit"],
        "run.dirty": state["dirty"],
        **{f"run.versions.{package}": version for package, version in versions().items()},
        "run.machine.cpu": computer["cpu"],
        "run.machine.cores": computer["cores"],
        "run.machine.threads": computer["threads"],
        "run.config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "run.elapsed_s": round(elapsed_s, 1),
    }
    path = RECORDS / pipeline / f"{name}.json"
    write_json_atomic(path, dict(sorted(results.items())) | run)
    return path
