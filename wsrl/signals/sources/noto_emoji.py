"""Noto Color Emoji: every fully-qualified sequence of Unicode's emoji-test.txt, drawn by Pillow.

A sequence is used only if the font draws it as one glyph. Joined sequences (families, professions, flags) need a Pillow
with raqm; without it they come out as several glyphs and are reported as bad signals, never drawn side by side.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from wsrl.durable import file_sha256
from wsrl.errors import SignalError, UserError
from wsrl.signals.pictures.image import resize_and_crop, to_values
from wsrl.signals.pictures.picture_source import PictureOptions, PictureSource

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMOJI_TEST = Path("/usr/share/unicode/emoji/emoji-test.txt")
BITMAP_SIZE = 109  # the only size the font's bitmaps have
LABELS = ("group", "subgroup")
LINE = re.compile(r"(?P<points>[0-9A-F ]+?)\s*;\s*fully-qualified\b")


@dataclass(frozen=True, kw_only=True)
class NotoEmojiOptions(PictureOptions):
    """Options of ``noto-emoji``: the common ones (32x32 RGB without them), which emoji, and where its files are.

    Attributes:
        group: Keep only this group, such as ``People & Body``. None keeps all nine.
        subgroups: Keep only these subgroups, such as ``person-role``. None keeps all.
        label: What the classes are: ``group`` or ``subgroup``.
        font: The font file.
        emoji_test: Unicode's list of sequences and groups.
    """

    group: str | None = None
    subgroups: tuple[str, ...] | None = None
    label: str = "group"
    font: str | os.PathLike = FONT
    emoji_test: str | os.PathLike = EMOJI_TEST

    def __post_init__(self):
        super().__post_init__()
        if self.label not in LABELS:
            raise UserError(f"label is {self.label!r}", allowed=", ".join(LABELS))
        if self.subgroups is not None:
            object.__setattr__(self, "subgroups", tuple(self.subgroups))

    @classmethod
    def path_options(cls) -> tuple[str, ...]:
        """Names of the options that are paths of this machine."""
        return ("font", "emoji_test")


class NotoEmoji(PictureSource):
    """Emoji in the order of emoji-test.txt, ids such as ``noto-emoji/1f468-200d-1f9b0``; labels are (sub)groups."""

    def __init__(self, options: NotoEmojiOptions):
        """Read the list; glyphs are drawn when they are asked for."""
        font = existing(options.font, "fonts-noto-color-emoji")
        listing = existing(options.emoji_test, "unicode-data")
        sequences = read_sequences(listing)
        _check_known("group", () if options.group is None else (options.group,), {one.group for one in sequences})
        _check_known("subgroup", options.subgroups or (), {one.subgroup for one in sequences})
        kept = [
            one
            for one in sequences
            if options.group in (None, one.group) and (options.subgroups is None or one.subgroup in options.subgroups)
        ]
        if not kept:
            raise UserError(
                f"no emoji of the group {options.group!r} is in the subgroups {', '.join(options.subgroups)}",
                do="choose subgroups of that group, or leave the group out",
            )
        self._font_path = font
        self._font: ImageFont.FreeTypeFont | None = load_font(font)
        self._texts = [one.text for one in kept]
        super().__init__(
            name="noto-emoji",
            ids=[f"noto-emoji/{'-'.join(f'{ord(point):x}' for point in text)}" for text in self._texts],
            labels=[getattr(one, options.label) for one in kept],
            splits=[None] * len(kept),
            grid=options.size or (32, 32),
            channels=1 if options.mode == "L" else 3,
            options=options,
            details={
                "sha256": {"font": file_sha256(font), "emoji_test": file_sha256(listing)},
                "joined_sequences": features.check("raqm"),
            },
        )

    def read_values(self, position: int) -> np.ndarray:
        """Values ``(H, W, C)`` of one emoji, over white.

        Raises:
            SignalError: It is not one glyph of the font.
        """
        picture = draw_glyph(self.font(), self._texts[position])
        picture = picture.convert("L") if self.options.mode == "L" else picture
        return to_values(resize_and_crop(picture, self.form.grid))

    def font(self) -> ImageFont.FreeTypeFont:
        """The font, opened on first use in each process."""
        if self._font is None:
            self._font = load_font(self._font_path)
        return self._font

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_font": None}  # an open font cannot be sent to another process


def draw_glyph(font: ImageFont.FreeTypeFont, text: str) -> Image.Image:
    """Draw the glyph of the code points of one emoji over white at the bitmap's own size.

    Raises:
        SignalError: The font draws it as several glyphs or as none.
    """
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    if bottom <= top:
        raise SignalError(f"{spell(text)}: the font has no glyph for it")
    num_glyphs = round(font.getlength(text) / font.getlength("\U0001f600"))
    if num_glyphs != 1:
        do = "" if features.check("raqm") else "use a Pillow built with raqm (pip's wheels are)"
        raise SignalError(f"{spell(text)}: drawn as {num_glyphs} glyphs, not as one", do=do)
    picture = Image.new("RGB", (right - left, bottom - top), "white")
    ImageDraw.Draw(picture).text((-left, -top), text, font=font, embedded_color=True)
    return picture


class Emoji(NamedTuple):
    """One emoji: its code points, and where it stands in Unicode's order."""

    text: str
    group: str
    subgroup: str


def _check_known(what: str, asked: tuple[str, ...], known: set[str]) -> None:
    for name in asked:
        if name not in known:
            raise UserError(f"noto-emoji has no {what} {name!r}", allowed=", ".join(sorted(known)))


def read_sequences(path: Path) -> list[Emoji]:
    """The fully-qualified sequences, in the order of the file."""
    group = subgroup = ""
    sequences = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text", allowed="Unicode's emoji-test.txt") from error
    for line in lines:
        if line.startswith("# group:"):
            group = line.removeprefix("# group:").strip()
        elif line.startswith("# subgroup:"):
            subgroup = line.removeprefix("# subgroup:").strip()
        elif match := LINE.match(line):
            text = "".join(chr(int(point, 16)) for point in match["points"].split())
            sequences.append(Emoji(text, group, subgroup))
    if not sequences:
        raise UserError(f"{path} lists no fully-qualified emoji", allowed="Unicode's emoji-test.txt")
    return sequences


def load_font(path: Path) -> ImageFont.FreeTypeFont:
    """Open the font at the size of its bitmaps."""
    try:
        return ImageFont.truetype(str(path), BITMAP_SIZE)
    except OSError as error:
        raise UserError(f"{path} is not the bitmap font expected ({error})", allowed="NotoColorEmoji.ttf") from error


def existing(path: str | os.PathLike, package: str) -> Path:
    """The path, if it is a file."""
    if not Path(path).is_file():
        raise UserError(f"{path} is missing", do=f"apt-get install {package}, or give the option with its path")
    return Path(path)


def spell(text: str) -> str:
    """Code points of a text as Unicode writes them."""
    return " ".join(f"U+{ord(point):04X}" for point in text)
