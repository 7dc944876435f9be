"""Export stored fields: as weights that other programs read, or as the pictures and meshes that they show."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsrl.durable import write_bytes
from wsrl.errors import SignalError, UserError
from wsrl.evaluation.features import signals_of_rows
from wsrl.exchange.export_files import (
    RECORD,
    RENDERED_SUFFIXES,
    check_paths,
    field_path,
    write_beside,
    write_fields,
    write_mesh,
)
from wsrl.options import at_least, check, check_values, one_of, option
from wsrl.progress import ShowProgress, silent
from wsrl.provenance import claim_folder
from wsrl.store.field import Field
from wsrl.store.reader import WeightStore
from wsrl.store.source import open_store_source

FORMATS = ("images", "meshes", "turntables", "peft", "state_dict", "safetensors", "numpy")
MESH_FORMATS = ("glb", "ply", "obj")
Transform = tuple[Sequence[float], float]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What fields are written as.

    Attributes:
        format: One of ``FORMATS``; None is ``images``, or ``meshes`` of shapes.
        size: Longer side of a picture in pixels.
        resolution: Cells of a side of the grid that a mesh is found on.
        mesh_format: ``glb``, ``ply`` or ``obj``.
        units: Of meshes: ``normalised`` in the unit ball, or ``file`` as the shape was given.
        data: The source, for ``units="file"`` of a folder.
    """

    format: str | None = option(None, one_of(*FORMATS))
    size: int = option(256, at_least(2))
    resolution: int = option(128, at_least(2))
    mesh_format: str = option("glb", one_of(*MESH_FORMATS))
    units: str = option("normalised", one_of("normalised", "file"))
    data: str | None = None

    def __post_init__(self):
        check(self)
        if self.units == "file" and self.format not in ("meshes", None):
            raise UserError("--units file is for meshes", allowed="--format meshes", do="leave out --units")


def choose_rows(store: WeightStore, ids: Sequence[str] = (), num: int | None = 16) -> list[int] | range:
    """Rows of some fields.

    Args:
        store: The store.
        ids: Ids of the fields.
        num: How many of the first ones, where no ids are given; None is all.

    Raises:
        UserError: An id is unknown or there twice.
    """
    check_values({"num": num}, num=at_least(1))
    if len(set(ids)) != len(ids):
        raise UserError("--ids names a field twice", allowed="each once", do="mend --ids")
    return [store.row(field_id) for field_id in ids] or range(len(store) if num is None else min(num, len(store)))


def export_fields(
    store: WeightStore,
    out: Path | str,
    rows: Sequence[int],
    options: ExportOptions = ExportOptions(),
    *,
    progress: ShowProgress = silent,
) -> list[tuple[str, str]]:
    """Write fields, each under its id, with what is needed to use them beside.

    Args:
        store: The store.
        out: Folder to write to; new, or of the same export.
        rows: Rows of the fields.
        options: What they are written as.
        progress: Shows how many are written.

    Returns:
        Ids of fields that have no mesh, with the reason.

    Raises:
        UserError: The fields cannot be written as that, an id is no name of a file, or the folder holds something else.
    """
    out = Path(out)
    # What cannot be is refused before anything is written.
    format = options.format or _shown_as(store) or "images"
    kind = options.mesh_format if format == "meshes" else format
    _check(store, rows, format, kind)
    transforms = _file_transforms(store, rows, options)
    claim_folder(out, (RECORD,))
    write_beside(store, rows, out, kind, {name: getattr(options, name) for name in _options_of(kind)})
    with progress("export", len(rows)) as shown:
        if kind not in RENDERED_SUFFIXES:
            write_fields(store, rows, out, kind, shown.advance)
            return []
        # What fields show; one without a surface does not stop the others.
        write, failed = _WRITERS.get(kind, _write_mesh), []
        for row, transform in zip(rows, transforms):
            path = out / field_path(store.id_of(row), kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write(store.field(row), path, options, transform)
            except SignalError as error:
                failed.append((store.id_of(row), str(error)))
            shown.advance(1)
    return failed


def _shown_as(store: WeightStore) -> str | None:
    """What the fields of a store can be looked at as: ``images``, ``meshes``, or nothing that we know."""
    if not store.manifest["representation"] or not len(store):
        return None
    return "meshes" if store.form.is_shape else "images" if store.form.is_picture else None


def _check(store: WeightStore, rows: Sequence[int], format: str, kind: str) -> None:
    """Refuse ids that are no names of files, standalone networks as adapters, and fields as what they are not."""
    # ids as names of files
    ids = store.ids
    check_paths(
        [ids[row] for row in rows], kind, kind not in RENDERED_SUFFIXES and store.manifest["base_sha256"] is not None
    )
    if format == "peft" and not (config := store.representation.config).is_adapter:
        raise UserError(
            f"the fields of {store.directory} are {config.kind}: they adapt no base field",
            allowed="a store of lora or mlora fields",
            do="export images or state_dict instead",
        )
    # what the fields can be looked at as
    shown_as = _shown_as(store)
    if kind in RENDERED_SUFFIXES and len(store) and ("images" if format == "images" else "meshes") != shown_as:
        form = store.form
        raise UserError(
            f"the fields of {store.directory}, from {form.in_features} coordinates to {form.out_features} values, "
            f"have no {format}",
            allowed="images of pictures, meshes and turntables of shapes; state_dict, safetensors and numpy of any",
            do=f"choose --format {shown_as or 'state_dict'}",
        )


def _file_transforms(store: WeightStore, rows: Sequence[int], options: ExportOptions) -> Iterator[Transform | None]:
    """Centre and scale of each shape in its file, in the order of the rows; None where meshes stay normalised."""
    if options.units == "normalised":
        return iter([None] * len(rows))
    source = open_store_source(store, options.data)
    return ((signal.center, signal.scale) for signal in signals_of_rows(store, source, rows))


def _options_of(kind: str) -> tuple[str, ...]:
    """The options that change what files of a kind show; a folder holds files of one choice."""
    if kind in MESH_FORMATS:
        return "resolution", "units"
    return ("resolution", "size") if kind == "turntables" else ()


def _write_image(field: Field, path: Path, options: ExportOptions, transform: Transform | None) -> None:
    from wsrl.report.contact_sheet import save_picture

    save_picture(field.image(options.size), path)


def _write_mesh(field: Field, path: Path, options: ExportOptions, transform: Transform | None) -> None:
    write_mesh(field.mesh(options.resolution, transform=transform), path)


def _write_turntable(field: Field, path: Path, options: ExportOptions, transform: Transform | None) -> None:
    from wsrl.report.render import gif, turntable

    write_bytes(path, gif(turntable(field.mesh(options.resolution), size=options.size)))


_WRITERS: dict[str, Callable] = {"images": _write_image, "turntables": _write_turntable}
