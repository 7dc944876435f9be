"""Names of sources, and what a name or a path opens."""

import difflib
from collections.abc import Callable
from pathlib import Path

from wsrl.errors import UserError
from wsrl.signals.listing import MESH_EXTENSIONS, list_files
from wsrl.signals.source import Source
from wsrl.signals.source_options import SourceOptions
from wsrl.signals.sources import array, digits, fashion_mnist, folder, noto_emoji

Opener = tuple[Callable[..., Source], type[SourceOptions]]


def _furniture() -> Opener:
    from wsrl.signals.sources.furniture import Furniture, FurnitureOptions  # loads trimesh and libigl, as all shapes do

    return Furniture, FurnitureOptions


def _solids() -> Opener:
    from wsrl.signals.sources.solids import Solids, SolidsOptions

    return Solids, SolidsOptions


SOURCES: dict[str, tuple[Callable[[], Opener], str]] = {
    "digits": (
        lambda: (digits.Digits, digits.DigitsOptions),
        "1,797 grey 8x8 handwritten digits in 10 classes; ships inside scikit-learn",
    ),
    "fashion-mnist": (
        lambda: (fashion_mnist.FashionMnist, fashion_mnist.FashionMnistOptions),
        "60,000 + 10,000 grey 28x28 clothes in 10 classes; Debian package dataset-fashion-mnist",
    ),
    "noto-emoji": (
        lambda: (noto_emoji.NotoEmoji, noto_emoji.NotoEmojiOptions),
        "3,655 colour emoji in 9 groups; Debian packages fonts-noto-color-emoji and unicode-data",
    ),
    "furniture": (_furniture, "820 furniture models in categories; Debian package sweethome3d-furniture"),
    "solids": (_solids, "2,000 procedural shapes of nine families with exact signed distances; nothing to install"),
}


def source_names() -> dict[str, str]:
    """Each named source with a description in one line."""
    return {name: line for name, (_, line) in SOURCES.items()}


def open_source(data: str | Path, **options) -> Source:
    """Open a named source, a folder of pictures or of meshes, or a NumPy file.

    A name goes before a folder of the same name; write ``./digits`` for the folder. A folder with a mesh anywhere in
    it is one of meshes, whose textures are pictures; with ShapeNet's layout it is read as ShapeNet.

    Args:
        data: A name from ``source_names()``, or a path.
        **options: Options of that source; all have ``limit`` and ``split``, pictures ``size`` and ``mode``, shapes
            ``quantity`` and how they are sampled.

    Returns:
        The source; its signals are read when they are asked for.

    Raises:
        UserError: There is no such source, path or option.
    """
    text = str(data)
    if text in SOURCES:
        source, source_options = SOURCES[text][0]()
        return source(source_options.from_mapping(options, text))
    path = Path(text)
    if path.is_dir():
        source, source_options = _folder(path)
        return source(path, source_options.from_mapping(options, text))
    if path.is_file() and path.suffix.lower() in array.EXTENSIONS:
        return array.ArraySource(path, array.ArrayOptions.from_mapping(options, text))
    raise unknown(text, path)


def _folder(path: Path) -> Opener:
    """What reads a folder: as ShapeNet, as meshes, or as pictures."""
    if not list_files(path, MESH_EXTENSIONS)[0]:
        return folder.Folder, folder.FolderOptions
    from wsrl.signals.sources import mesh_folder, shapenet

    if shapenet.is_shapenet(path):
        return shapenet.ShapeNet, shapenet.ShapeNetOptions
    return mesh_folder.MeshFolder, mesh_folder.MeshFolderOptions


def unknown(text: str, path: Path) -> UserError:
    """The error for data that is neither a name nor a usable path."""
    allowed = f"{', '.join(SOURCES)}, a folder of pictures or meshes, or a {' or '.join(array.EXTENSIONS)} file"
    if path.is_file():
        return UserError(f"{text} is a single file of another kind", allowed=allowed, do="give the folder it is in")
    close = difflib.get_close_matches(text.lower().replace("_", "-"), SOURCES, n=1)
    do = f"did you mean {close[0]}?" if close else "check the spelling, or the path"
    return UserError(f"there is no source and no folder called {text!r}", allowed=allowed, do=do)
