"""Sweet Home 3D's furniture: the catalogues of Debian's ``sweethome3d-furniture``, or others of the same form.

A catalogue is a zip archive (``.sh3f``) with a properties file that lists its models. The split is fixed for ever: a
model is a test model when the first 8 bytes of the SHA-256 of its id, read as a big-endian number, leave 0, 1 or 2
when divided by 10.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wsrl.durable import text_number
from wsrl.errors import SignalError, UserError, printable
from wsrl.signals.listing import MESH_TYPES
from wsrl.signals.shapes.archives import Archive
from wsrl.signals.shapes.mesh import MeshLimits, read_mesh
from wsrl.signals.shapes.shape import Content, ShapeOptions
from wsrl.signals.shapes.shape_source import ShapeSource
from wsrl.signals.sources.properties import parse_properties

FURNITURE = Path("/usr/share/sweethome3d/furniture")
CATALOGUE = "PluginFurnitureCatalog.properties"
EXTENSION = ".sh3f"
PACKAGE = "sweethome3d-furniture"


@dataclass(frozen=True, kw_only=True)
class FurnitureOptions(ShapeOptions):
    """Options of ``furniture``: those of all shapes, a category, and where the catalogues are.

    Attributes:
        category: Keep only this category, such as ``Kitchen``. None keeps all.
        path: Folder of the catalogues, or one of them.
    """

    category: str | None = None
    path: str | os.PathLike = FURNITURE

    @classmethod
    def path_options(cls) -> tuple[str, ...]:
        """Names of the options that are paths of this machine."""
        return (*super().path_options(), "path")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model of a catalogue.

    Attributes:
        id: Its id, such as ``furniture/scopia/bathroom3``.
        category: Its category, or None.
        archive: Number of its catalogue.
        member: Name of its file in the catalogue's archive.
    """

    id: str
    category: str | None
    archive: int
    member: str


class Furniture(ShapeSource):
    """Models in the order of the catalogues, these by name; labels are the categories."""

    def __init__(self, options: FurnitureOptions):
        """Read the catalogues; models are read when they are asked for."""
        self._archives = [Archive(path) for path in catalogue_files(options.path)]
        models = list_models(self._archives)
        categories = sorted({model.category for model in models if model.category is not None})
        if options.category is not None and options.category not in categories:
            raise UserError(f"furniture has no category {options.category!r}", allowed=", ".join(categories))
        self._models = [model for model in models if options.category in (None, model.category)]
        super().__init__(
            name="furniture",
            ids=[model.id for model in self._models],
            labels=[model.category for model in self._models],
            splits=[split_of(model.id) for model in self._models],
            options=options,
            details={"listing_sha256": {archive.path.name: archive.listing_sha256() for archive in self._archives}},
        )

    def content(self, position: int) -> Content:
        """See ``ShapeSource``."""
        model = self._models[position]
        file_type = PurePosixPath(model.member).suffix.lower().removeprefix(".")
        if file_type not in MESH_TYPES:
            raise SignalError(f"{printable(model.member)} is no mesh file", allowed=", ".join(MESH_TYPES))
        data = self._archives[model.archive].read(model.member)
        limits = MeshLimits(max_faces=self.options.max_faces)
        name = printable(PurePosixPath(model.member).name)
        return Content(file_type.encode() + b"\0" + data, lambda: read_mesh(data, file_type, name=name, limits=limits))


def catalogue_files(path: str | os.PathLike) -> list[Path]:
    """The catalogues of a folder, sorted by name, or the one that the path is.

    Raises:
        UserError: There is none.
    """
    path = Path(path).absolute()
    if path.is_file():
        return [path]
    files = sorted(file for file in path.glob(f"*{EXTENSION}") if file.is_file()) if path.is_dir() else []
    if not files:
        wrong = f"{path} has no {EXTENSION} files" if path.is_dir() else f"{path} is missing"
        raise UserError(wrong, do=f"apt-get install {PACKAGE}, or give the option path")
    return files


def list_models(archives: list[Archive]) -> list[Model]:
    """The models of all catalogues, in order.

    Raises:
        UserError: One of them lists no model.
    """
    models: list[Model] = []
    taken: Counter = Counter()
    for number, archive in enumerate(archives):
        try:
            properties = parse_properties(archive.read(CATALOGUE))
        except SignalError as error:
            raise UserError(f"{archive.path} is no catalogue of furniture: {error.wrong}") from error
        model_numbers = sorted(int(key[6:]) for key in properties if re.fullmatch(r"model#[0-9]{1,9}", key))
        if not model_numbers:
            raise UserError(f"{archive.path} lists no model")
        for model_number in model_numbers:
            member = properties[f"model#{model_number}"].removeprefix("/")
            text = properties.get(f"id#{model_number}") or PurePosixPath(member).stem
            name = printable(text.rsplit("#", 1)[-1]).replace("/", "-") or str(model_number)
            id = f"furniture/{printable(archive.path.stem.lower())}/{name}"
            taken[id] += 1
            id = id if taken[id] == 1 else f"{id}~{taken[id]}"
            category = printable(properties.get(f"category#{model_number}", "")) or None
            models.append(Model(id=id, category=category, archive=number, member=member))
    return models


def split_of(id: str) -> str:
    """``test`` for about three tenths of all ids, the same on every machine, else ``train``."""
    return "test" if text_number(id) % 10 < 3 else "train"
