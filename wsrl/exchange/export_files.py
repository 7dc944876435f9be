"""Write stored fields as files that other programs read; every file appears whole or not at all.

Beside the fields stand ``labels.csv``, the description of the network and, where fields adapt one, the base field: all
that ``wsrl import`` needs to make an equal store. No more than one field is in memory, and the names of all.
"""

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsrl.durable import disk_errors, publish, whole_file, write_bytes
from wsrl.errors import UserError
from wsrl.exchange import labels as label_files
from wsrl.exchange import networks
from wsrl.exchange.arrays import ARRAY
from wsrl.exchange.labels import METRICS
from wsrl.store import schema
from wsrl.store.reader import WeightStore

RECORD = "export.json"
LAYOUT = "layout.json"
FIELD_SUFFIXES = {"state_dict": ".pt", "safetensors": ".safetensors", "peft": "", "numpy": ""}
RENDERED_SUFFIXES = {"images": ".png", "glb": ".glb", "ply": ".ply", "obj": ".obj", "turntables": ".gif"}
"""What shows the fields and cannot be read back as their weights."""
Advance = Callable[[int], None]


def field_path(field_id: str, format: str) -> str:
    """Path of a field in the folder of an export."""
    return field_id.lstrip("/") + (FIELD_SUFFIXES | RENDERED_SUFFIXES)[format]


def check_paths(ids: Sequence[str], format: str, with_base: bool) -> None:
    """Refuse ids that cannot be names of files.

    Args:
        ids: Ids of fields.
        format: One of ``FIELD_SUFFIXES`` or ``RENDERED_SUFFIXES``.
        with_base: Whether the base field will lie beside them.

    Raises:
        UserError: An id leads out of the folder or to a file of another one.
    """
    seen: dict[str, str] = {}
    for field_id in ids if format != "numpy" else ():
        path = os.path.normpath(field_path(field_id, format))
        do = "leave it out, or choose --format numpy"
        if ".." in Path(field_id).parts or path == ".":
            raise UserError(f"the id {field_id!r} leads out of the folder", allowed="ids without ..", do=do)
        if path in seen or (with_base and path.split(os.sep)[0] == schema.BASE):
            other = seen.get(path, "the base field")
            raise UserError(f"the ids {field_id!r} and {other!r} are one file", allowed="ids that differ", do=do)
        seen[path] = field_id


def write_beside(
    store: WeightStore, rows: Sequence[int], out: Path, format: str, rendering: Mapping[str, object] | None = None
) -> None:
    """Write what is needed beside the fields: record, labels, description of the network, base field.

    Args:
        store: The store.
        rows: Rows that are exported.
        out: The folder.
        format: One of ``FIELD_SUFFIXES`` or ``RENDERED_SUFFIXES``.
        rendering: How the fields are shown, as plain JSON; kept in the record.

    Raises:
        UserError: The folder holds another export, or the disk refuses.
    """
    all_ids = store.ids
    ids = [all_ids[row] for row in rows]
    _claim(store, ids, out, {"format": format, **(rendering or {})})
    if format in RENDERED_SUFFIXES:
        return
    _write_labels(store, rows, ids, out / label_files.LABELS_FILE, format)
    if store.manifest["representation"]:
        write_bytes(out / networks.DESCRIPTION_FILE, networks.describe(store.representation, store.form.grid).encode())
        if store.base is not None:
            store.base.save_pretrained(out / schema.BASE)
    if format == "numpy":
        write_bytes(out / LAYOUT, (json.dumps(store.layout.to_json(), indent=1) + "\n").encode())


def _claim(store: WeightStore, ids: list[str], out: Path, form: dict) -> None:
    """Say in the folder what it holds; an interrupted export may go on, another one may not mix with it."""
    digest = hashlib.sha256("\0".join(ids).encode("utf-8", "surrogateescape")).hexdigest()
    record = {"store": str(store.directory), **form, "num_fields": len(ids), "ids_sha256": digest}
    path = out / RECORD
    there = json.loads(path.read_text()) if path.exists() else record
    if there | {"store": os.path.abspath(there.get("store", ""))} != record:
        raise UserError(
            f"{out} holds another export", allowed="a new folder, or the same export again", do="choose another --out"
        )
    write_bytes(path, (json.dumps(record, indent=1) + "\n").encode("utf-8", "surrogateescape"))


def _write_labels(store: WeightStore, rows: Sequence[int], ids: list[str], path: Path, format: str) -> None:
    labels, splits = store.labels(), store.splits()
    metrics = {name: store.metrics(name) for name in store.metric_names}
    file = () if format == "numpy" else ("file",)
    with whole_file(path) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("id", *file, "label", "split", *(METRICS + name for name in metrics)))
        for row, field_id in zip(rows, ids):
            label = store.label_names[labels[row]] if labels[row] >= 0 else ""
            values = ("" if np.isnan(column[row]) else repr(float(column[row])) for column in metrics.values())
            path_cell = () if format == "numpy" else (field_path(field_id, format),)
            writer.writerow((field_id, *path_cell, label, splits[row], *values))
        text.flush()
        text.detach()


def write_state_dict(weights: dict[str, Tensor], path: Path) -> None:
    """Write a field as ``torch.save`` does, or as safetensors where the path ends so."""
    if path.suffix == ".safetensors":
        from safetensors.torch import save

        data = save(weights)
    else:
        buffer = io.BytesIO()
        torch.save(weights, buffer)
        data = buffer.getvalue()
    write_bytes(path, data)


def write_mesh(mesh, path: Path) -> None:
    """Write a ``trimesh.Trimesh``, with or without faces, in the format that the path ends in: GLB, PLY or OBJ."""
    data = mesh.export(file_type=path.suffix[1:])
    write_bytes(path, data.encode() if isinstance(data, str) else data)


def write_adapter(store: WeightStore, weights: dict[str, Tensor], folder: Path) -> None:
    """Write a field as a PEFT adapter of the base field's trunk."""
    from wsrl.exchange.adapter_export import export_field

    config = store.representation.config
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with disk_errors(folder):
        try:
            export_field(
                weights,
                form="add" if config.kind.startswith("lora") else config.form,
                trunk=store.base.trunk,
                out_dir=temporary,
                masks={spec.name: spec.trainable() for spec in store.layout if spec.frozen is not None},
            )
            folder.mkdir(exist_ok=True)
            for file in sorted(temporary.iterdir(), reverse=True):  # the configuration, by which a folder counts, last
                publish(file, folder / file.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_array(store: WeightStore, rows: Sequence[int], path: Path, advance: Advance) -> None:
    """Write the weights of fields as one array ``(N, W)`` in float32, a row at a time.

    Args:
        store: The store.
        rows: Rows in the order of the array.
        path: The ``.npy`` file.
        advance: Called with the number of rows written since the last call.
    """
    head = {"descr": "<f4", "fortran_order": False, "shape": (len(rows), store.layout.num_weights)}
    with whole_file(path) as file:
        np.lib.format.write_array_header_1_0(file, head)
        for row in rows:
            file.write(store.layout.flatten(store[row]).numpy().astype("<f4").tobytes())
            advance(1)


def write_fields(store: WeightStore, rows: Sequence[int], out: Path, format: str, advance: Advance) -> None:
    """Write fields, each under its id, or all in one array.

    Args:
        store: The store.
        rows: Their rows.
        out: The folder, with what :func:`write_beside` wrote.
        format: ``state_dict``, ``safetensors``, ``peft`` or ``numpy``.
        advance: Called with the number of fields written since the last call.
    """
    if format == "numpy":
        write_array(store, rows, out / ARRAY, advance)
        return
    for row in rows:
        path = out / field_path(store.id_of(row), format)
        path.parent.mkdir(parents=True, exist_ok=True)
        if format == "peft":
            write_adapter(store, store[row], path)
        else:
            write_state_dict(store[row], path)
        advance(1)
