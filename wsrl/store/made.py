"""What a store was made by: every environment that fitted rows of it is kept in its manifest."""

import json
from pathlib import Path

from wsrl.durable import locked
from wsrl.store import schema

ENVIRONMENTS = "environments"
# How far a field that is fitted again may be from the stored one and still count as the same whatever rounding does.
# Another batch size, thread count or processor rounds sums differently, and hundreds of steps magnify that: the weights
# drift apart along directions to which the values hardly react, and at high rates into other minima as good.
PSNR_TOLERANCE = 0.5
LEAST_COSINE = 0.999


def record_environment(directory: Path | str, environment: dict) -> None:
    """Add an environment to the manifest, unless an equal one is there.

    Args:
        directory: The store.
        environment: Plain JSON: code, versions, machine, threads; without times, so that equal ones are equal.
    """
    directory = Path(directory)
    environment = json.loads(json.dumps(environment, default=str))
    with locked(directory / schema.LOCK):
        manifest = schema.read_manifest(directory)
        known = manifest.get(ENVIRONMENTS, [])
        if environment not in known:
            schema.write_manifest(directory, manifest | {ENVIRONMENTS: [*known, environment]})
