"""ShapeNetCore as it unpacks: ``synset/model/models/model_normalized.obj`` (v2) or ``synset/model/model.obj`` (v1).

Splits come from ``all.csv`` of ShapeNet (columns ``synsetId``, ``modelId``, ``split``) in the folder, or from lists of
models ``train.lst``, ``val.lst``, ``test.lst`` in each synset's folder; without either there are none. Models that no
list names have no split.
"""

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wsrl.durable import text_sha256
from wsrl.errors import UserError, printable
from wsrl.signals.listing import scan
from wsrl.signals.shapes.mesh import MeshLimits
from wsrl.signals.shapes.mesh_files import mesh_content
from wsrl.signals.shapes.shape import Content, ShapeOptions
from wsrl.signals.shapes.shape_source import ShapeSource
from wsrl.signals.split_names import SPLITS, split_name

SYNSET = re.compile(r"[0-9]{8}")
FILES = ("models/model_normalized.obj", "model.obj")
SPLIT_FILE = "all.csv"
# The 55 synsets of ShapeNetCore, by the first of their names in its taxonomy, the plain one where that is a rare word.
NAMES = {
    "02691156": "airplane",
    "02747177": "trash bin",
    "02773838": "bag",
    "02801938": "basket",
    "02808440": "bathtub",
    "02818832": "bed",
    "02828884": "bench",
    "02843684": "birdhouse",
    "02871439": "bookshelf",
    "02876657": "bottle",
    "02880940": "bowl",
    "02924116": "bus",
    "02933112": "cabinet",
    "02942699": "camera",
    "02946921": "can",
    "02954340": "cap",
    "02958343": "car",
    "02992529": "cellphone",
    "03001627": "chair",
    "03046257": "clock",
    "03085013": "keyboard",
    "03207941": "dishwasher",
    "03211117": "display",
    "03261776": "earphone",
    "03325088": "faucet",
    "03337140": "file cabinet",
    "03467517": "guitar",
    "03513137": "helmet",
    "03593526": "jar",
    "03624134": "knife",
    "03636649": "lamp",
    "03642806": "laptop",
    "03691459": "loudspeaker",
    "03710193": "mailbox",
    "03759954": "microphone",
    "03761084": "microwave",
    "03790512": "motorbike",
    "03797390": "mug",
    "03928116": "piano",
    "03938244": "pillow",
    "03948459": "pistol",
    "03991062": "flowerpot",
    "04004475": "printer",
    "04074963": "remote control",
    "04090263": "rifle",
    "04099429": "rocket",
    "04225987": "skateboard",
    "04256520": "sofa",
    "04330267": "stove",
    "04379243": "table",
    "04401088": "telephone",
    "04460130": "tower",
    "04468005": "train",
    "04530566": "watercraft",
    "04554684": "washing machine",
}


@dataclass(frozen=True, kw_only=True)
class ShapeNetOptions(ShapeOptions):
    """Options of a folder in ShapeNet's layout: those of all shapes, and the classes that are taken.

    Attributes:
        synsets: Keep only these, by id (``03001627``) or name (``chair``). None keeps all.
    """

    synsets: tuple[str, ...] | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.synsets is None:
            return
        asked = (self.synsets,) if isinstance(self.synsets, str) else self.synsets
        ids = {name: id for id, name in NAMES.items()}
        synsets = tuple(ids.get(str(synset), str(synset)) for synset in asked)
        wrong = [synset for synset in synsets if not SYNSET.fullmatch(synset)]
        if wrong or not synsets:
            allowed = f"ids of eight digits, or {', '.join(sorted(ids))}"
            raise UserError(f"synsets is {self.synsets!r}", allowed=allowed)
        object.__setattr__(self, "synsets", synsets)


class ShapeNet(ShapeSource):
    """Models by synset and model id, sorted; ids such as ``03001627/1a6f615e8b1b5ae4dbbc9440457e303e``.

    Labels are the names of the known synsets, and the ids of others.

    Attributes:
        root: The folder.
    """

    def __init__(self, root: str | os.PathLike, options: ShapeNetOptions):
        """List the folder; no mesh is read yet.

        Raises:
            UserError: It has none of the asked models, or its lists of splits cannot be read.
        """
        self.root = Path(root).absolute()
        present = synset_folders(self.root)
        asked = present if options.synsets is None else options.synsets
        missing = sorted(set(asked) - set(present))
        if missing:
            raise UserError(f"{root} has no synset {', '.join(missing)}", allowed=", ".join(present))
        models = [model for synset in sorted(set(asked)) for model in list_models(self.root, synset)]
        if not models:
            raise UserError(f"the folder {root} has no models", allowed=f"synset/model/ with {' or '.join(FILES)}")
        self._paths = [path for _, _, path in models]
        splits = read_splits(self.root, sorted(set(asked)))
        ids = [f"{synset}/{printable(model)}" for synset, model, _ in models]
        super().__init__(
            name=self.root.resolve().name or "root",
            ids=ids,
            labels=[NAMES.get(synset, synset) for synset, _, _ in models],
            splits=[splits.get((synset, model)) for synset, model, _ in models],
            options=options,
            details={"listing_sha256": text_sha256(*ids)},
        )

    def content(self, position: int) -> Content:
        """See ``ShapeSource``."""
        return mesh_content(self.root, self._paths[position], MeshLimits(max_faces=self.options.max_faces))


def is_shapenet(root: Path) -> bool:
    """Whether a folder has ShapeNet's layout: a model of it in a folder with a synset's name."""
    return any(True for synset in synset_folders(root) for _ in list_models(root, synset))


def synset_folders(root: Path) -> list[str]:
    """Names of the folders that are called like synsets, sorted."""
    return sorted(entry.name for entry in scan(root) if SYNSET.fullmatch(entry.name) and entry.is_dir())


def list_models(root: Path, synset: str) -> Iterator[tuple[str, str, str]]:
    """Synset, model id and relative path of the models of a synset, sorted."""
    for name in sorted((entry.name for entry in scan(root / synset) if entry.is_dir()), key=os.fsencode):
        for file in FILES:
            if (root / synset / name / file).exists():
                yield synset, name, f"{synset}/{name}/{file}"
                break


def read_splits(root: Path, synsets: list[str]) -> dict[tuple[str, str], str]:
    """Split by synset and model id.

    Raises:
        UserError: A list cannot be read.
    """
    if (root / SPLIT_FILE).is_file():
        return read_csv(root / SPLIT_FILE)
    splits = {}
    for synset in synsets:
        for split in SPLITS:
            path = root / synset / f"{split}.lst"
            if path.is_file():
                splits |= {(synset, line.strip()): split for line in read_text(path).splitlines() if line.strip()}
    return splits


def read_csv(path: Path) -> dict[tuple[str, str], str]:
    """Split by synset and model id, from ShapeNet's table."""
    rows = csv.DictReader(read_text(path).splitlines())
    wanted = ("synsetId", "modelId", "split")
    absent = [column for column in wanted if column not in (rows.fieldnames or ())]
    if absent:
        raise UserError(f"{path} has no column {', '.join(absent)}", allowed=f"a table with {', '.join(wanted)}")
    # Some copies of the table have lost the leading zero of the synset.
    return {
        ((row["synsetId"] or "").zfill(8), row["modelId"]): split_name(row["split"]) for row in rows if row["split"]
    }


def read_text(path: Path) -> str:
    """The text of a list."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text", do="mend it, or take it away to go without splits") from error
