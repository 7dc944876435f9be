"""Any folder of meshes; order, ids, classes and splits are those of ``wsrl.signals.listing``.

A mesh may be a link to anywhere; what it refers to (the buffers of a ``.gltf``) must stand inside the folder.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from wsrl.durable import text_sha256
from wsrl.errors import UserError, printable
from wsrl.signals.listing import MESH_EXTENSIONS, describe_skipped, list_files, splits_and_labels
from wsrl.signals.shapes.mesh import MeshLimits
from wsrl.signals.shapes.mesh_files import mesh_content
from wsrl.signals.shapes.shape import Content, ShapeOptions
from wsrl.signals.shapes.shape_source import ShapeSource


@dataclass(frozen=True, kw_only=True)
class MeshFolderOptions(ShapeOptions):
    """Options of a folder of meshes: those of all shapes."""


class MeshFolder(ShapeSource):
    """Meshes below a folder, read one at a time.

    Attributes:
        root: The folder.
        num_skipped: Number of entries that are no meshes, by reason; not part of the description.
    """

    def __init__(self, root: str | os.PathLike, options: MeshFolderOptions):
        """List the folder; no mesh is read yet.

        Raises:
            UserError: It has no meshes, or a folder in it cannot be listed.
        """
        self.root = Path(root).absolute()
        others: Counter = Counter()
        self._paths, skipped = list_files(self.root, MESH_EXTENSIONS, others)
        if not self._paths:
            raise UserError(
                f"the folder {root} has no meshes ({describe_skipped(skipped)})",
                allowed=f"files ending in {' '.join(MESH_EXTENSIONS)}, in class sub-folders or not",
                do="give the folder that holds the meshes",
            )
        self.num_skipped = dict(sorted(skipped.items()))
        if any(path.lower().endswith(".gltf") for path in self._paths):
            others.pop(".bin", None)  # their buffers
        self.passed_over = dict(sorted(others.items()))
        ids = [printable(path) for path in self._paths]
        names = splits_and_labels(self._paths)
        self.notes = names.notes
        super().__init__(
            name=self.root.resolve().name or "root",
            ids=ids,
            labels=names.labels,
            splits=names.splits,
            options=options,
            details={"listing_sha256": text_sha256(*ids)},
        )

    def content(self, position: int) -> Content:
        """See ``ShapeSource``."""
        return mesh_content(self.root, self._paths[position], MeshLimits(max_faces=self.options.max_faces))
