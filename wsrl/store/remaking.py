"""The part of the data card that says how to make the store again, and how near the result will be."""

import hashlib
import json
import shlex

from wsrl.provenance import RUN_FILE
from wsrl.store import schema
from wsrl.store.source import is_named

MOST_LISTED = 64
GRADIENTS = {"kernel": "the C++ kernel", "autograd": "autograd"}
NOT_OF_CONFIG = ("in_features", "out_features")
# How far a field that is fitted again may be from the stored one and still count as the same whatever rounding does.
# Another batch size, thread count or processor rounds sums differently, and hundreds of steps magnify that: the weights
# drift apart along directions to which the values hardly react, and at high rates into other minima as good.
PSNR_TOLERANCE = 0.5
LEAST_COSINE = 0.999


def how_to_make_again(store) -> list[str]:
    """Sections of the card, as Markdown.

    Args:
        store: An open store, possibly unfinished.
    """
    manifest = store.manifest
    environments = manifest.get(schema.ENVIRONMENTS, [])
    command = manifest.get("command")
    parts = ["## How to make it again\n"] if command or environments else []
    if command:
        parts += ["It was made by\n", _block(command)]
    if not environments:
        return parts
    first = environments[0]
    return [
        *parts,
        *_environments(environments),
        "1. The same code and libraries:\n",
        _block(*_installation(first)),
        *_base(store),
        f"{3 if store.manifest['base_sha256'] else 2}. The configuration, saved as `build.yaml`:\n",
        _block(json.dumps(build_config(manifest), indent=1), language="json"),
        "and the build, from the folder of this store:\n",
        _block(shlex.join(remaking_command(manifest))),
        *_nearness(store),
    ]


def build_config(manifest: dict) -> dict:
    """The configuration file with which `wsrl build` makes the fields again; JSON, which YAML can read."""
    kept = {key: value for key, value in manifest["representation"].items() if key not in NOT_OF_CONFIG}
    batch = {"batch_size": manifest[schema.ENVIRONMENTS][0]["batch_size"]}
    return {"representation": kept, "fit": manifest["fit"] | batch}


def remaking_command(manifest: dict, *, data: str | None = None) -> list[str]:
    """The words of the command that makes the fields again in ``AGAIN``, run in the folder of the store.

    Args:
        manifest: Of the store.
        data: The folder or file it was built from, where the source has no name.
    """
    first = manifest[schema.ENVIRONMENTS][0]
    name, options = schema.source_name(manifest), schema.source_options(manifest)
    words = ["wsrl", "build", name if is_named(manifest) else data or f"PATH/TO/{name}"]
    words += ["--source", json.dumps(options)] if options else []
    words += ["--base", schema.BASE] if manifest["base_sha256"] else []
    words += ["--config", "build.yaml", "--shards", str(manifest["num_shards"])]
    return [*words, "--device", first["device"], "--threads", str(first["machine"]["threads"]), "--out", "AGAIN"]


def signals_sha256(store) -> str:
    """One hash of all signals that have a field: of the hashes of their coordinates and values, in order."""
    digest = hashlib.sha256()
    for shard in store.shards:
        digest.update(shard.column("fields/signal_sha256").tobytes())
    return digest.hexdigest()


def _block(*lines: str, language: str = "") -> str:
    return "\n".join([f"```{language}", *lines, "```\n"])


def _environments(environments: list[dict]) -> list[str]:
    """One line for each code, set of libraries and machine that fitted rows."""
    lines = []
    for environment in environments:
        machine, changed = environment["machine"], " with uncommitted changes" if environment["dirty"] else ""
        where = ", ".join(machine["gpus"]) if environment["device"] == "cuda" else machine["cpu"]
        lines.append(
            f"- wsrl {environment['versions']['wsrl']}, commit {environment['commit'] or 'unknown'}{changed}; "
            f"Python {environment['versions']['python']}, torch {environment['versions']['torch']}; {where}, "
            f"{machine['threads']} thread(s), {environment['batch_size'] or 'the usual number of'} fields a batch, "
            f"gradients by {GRADIENTS[environment.get('gradient', 'autograd')]}; "
            f"{machine['system']}"
        )
    return ["Its rows were fitted by\n", "\n".join(lines) + "\n"]


def _installation(environment: dict) -> list[str]:
    versions = environment["versions"]
    pins = [f"{name}=={v.partition('+')[0]}" for name, v in versions.items() if v and name not in ("python", "wsrl")]
    commit = environment["commit"]
    return [*([f"git checkout {commit}"] if commit else []), shlex.join(["pip", "install", *pins, "-e", "."])]


def _base(store) -> list[str]:
    sha256 = store.manifest["base_sha256"]
    if not sha256:
        return []
    parts = [
        f"2. The base field is in `{schema.BASE}/` (SHA-256 of its configuration and tensors: `{sha256}`). "
        "Take that one: trained again on another machine it differs by rounding, and so do all fields."
    ]
    try:
        record = json.loads((store.directory / schema.BASE / RUN_FILE).read_text())
    except (OSError, ValueError):
        return [parts[0] + "\n"]
    code, machine = f"wsrl {record['versions']['wsrl']}, commit {record['commit']}", record["machine"]
    parts[0] += (
        f" It was made by the command below ({code}; {machine['cpu']}, {machine['threads']} thread(s)); "
        f"`{schema.BASE}/{RUN_FILE}` has its whole configuration.\n"
    )
    return [*parts, _block(record["command"])]


def _nearness(store) -> list[str]:
    """What to expect of the result, and how to check it."""
    entries = store.manifest["shards"]
    listed = [f"{entry['sha256']}  {entry['file']}" for entry in entries[:MOST_LISTED]]
    more = [f"and {len(entries) - MOST_LISTED} more in `{schema.MANIFEST}`.\n"] if len(entries) > MOST_LISTED else []
    return [
        "The same processor and versions give the same files bit for bit (with gradients by autograd: and the same "
        "threads and batch size):\n",
        _block(*listed),
        *more,
        f"Their signals have the SHA-256 `{signals_sha256(store)}` (each row has its own in `signal_sha256`).\n",
        "Elsewhere sums are rounded in another order, and hundreds of steps magnify that: a field then has the same "
        f"PSNR within {PSNR_TOLERANCE:g} dB and weights whose cosine with the stored ones is at least "
        f"{LEAST_COSINE:g}, or, at high learning rates, other weights of the same quality. `--refit` measures how far "
        "rounding alone moves these fields (it disturbs their signals by 6e-8) and accepts no more than that.\n",
        "## How to verify it\n",
        _block(
            "wsrl verify .               # every byte of every row",
            "wsrl verify . --refit 32    # fit 32 random fields again and compare"
            + ("" if is_named(store.manifest) else " (with --data PATH)"),
        ),
    ]
