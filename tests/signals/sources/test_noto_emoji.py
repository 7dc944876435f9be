"""Emoji are drawn as one glyph each, over white, or reported."""

import numpy as np
import pytest
from PIL import ImageFont, features

from wsrl.errors import SignalError, UserError
from wsrl.signals import open_source
from wsrl.signals.form import SignalForm
from wsrl.signals.pictures.image import values_to_image
from wsrl.signals.sources.noto_emoji import BITMAP_SIZE, EMOJI_TEST, FONT, draw_glyph, read_sequences

needs_data = pytest.mark.skipif(
    not (FONT.is_file() and EMOJI_TEST.is_file()), reason="fonts-noto-color-emoji and unicode-data are not installed"
)
MAN_RED_HAIR = "\U0001f468\u200d\U0001f9b0"


@needs_data
def test_listing():
    source = open_source("noto-emoji")
    assert source.ids[0] == "noto-emoji/1f600"
    assert source.form == SignalForm(in_features=2, out_features=3, grid=(32, 32))
    assert (
        len(source.label_names) == 9 and "People & Body" in source.label_names and "Component" not in source.label_names
    )
    assert len(source) > 3000 and set(source.splits()) == {None}


@needs_data
def test_group_filter():
    people = open_source("noto-emoji", group="People & Body")
    assert set(people.labels()) == {"People & Body"} and people.label_names == ("People & Body",)
    assert people.ids == [id for id, label in zip(*both(open_source("noto-emoji"))) if label == "People & Body"]
    with pytest.raises(UserError, match=r"no group 'Robots'\. Allowed: Activities, Animals & Nature"):
        open_source("noto-emoji", group="Robots")


@needs_data
def test_subgroups_are_chosen_and_can_be_the_classes():
    chosen = {"subgroups": ["person", "person-role"], "label": "subgroup"}
    people = open_source("noto-emoji", group="People & Body", **chosen)
    assert people.label_names == ("person", "person-role") and "noto-emoji/1f468-200d-1f9b0" in people.ids
    with pytest.raises(UserError, match="no subgroup 'robot'"):
        open_source("noto-emoji", subgroups=["robot"])
    with pytest.raises(UserError, match="label is 'name'"):
        open_source("noto-emoji", label="name")
    with pytest.raises(UserError, match="choose subgroups of that group"):
        open_source("noto-emoji", group="Flags", subgroups=["person"])


def both(source):
    return source.ids, source.labels()


@needs_data
def test_a_yellow_face_on_white():
    signal = open_source("noto-emoji", size=64)[0]
    pixels = np.asarray(values_to_image(signal.values, signal.form.grid)).astype(int)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    red, green, blue = pixels[20:44, 20:44].reshape(-1, 3).mean(axis=0)
    assert red > 180 and green > 120 and blue < 120


@needs_data
@pytest.mark.skipif(not features.check("raqm"), reason="this Pillow has no raqm")
def test_joined_sequence_is_one_glyph():
    font = ImageFont.truetype(str(FONT), BITMAP_SIZE)
    assert draw_glyph(font, MAN_RED_HAIR).size == draw_glyph(font, "\U0001f600").size == (136, 128)


@needs_data
def test_several_glyphs_and_no_glyph_are_reported():
    basic = ImageFont.truetype(str(FONT), BITMAP_SIZE, layout_engine=ImageFont.Layout.BASIC)
    with pytest.raises(SignalError, match=r"U\+1F468 U\+200D U\+1F9B0: drawn as 2 glyphs, not as one"):
        draw_glyph(basic, MAN_RED_HAIR)
    with pytest.raises(SignalError, match=r"U\+10FFFD: the font has no glyph for it"):
        draw_glyph(basic, "\U0010fffd")


def test_only_fully_qualified_lines_count(tmp_path):
    listing = tmp_path / "emoji-test.txt"
    listing.write_text(
        "# group: Faces\n"
        "263A FE0F ; fully-qualified # ☺️ E0.6 smiling face\n"
        "263A ; unqualified # ☺ E0.6 smiling face\n"
        "# group: Hands\n"
        "# subgroup: hand-open\n"
        "1F44B ; fully-qualified # wave\n",
        encoding="utf-8",
    )
    assert read_sequences(listing) == [("\u263a\ufe0f", "Faces", ""), ("\U0001f44b", "Hands", "hand-open")]


def test_wrong_and_missing_files(tmp_path):
    with pytest.raises(UserError, match=r"none\.ttf is missing\. What to do: apt-get install fonts-noto-color-emoji"):
        open_source("noto-emoji", font=tmp_path / "none.ttf")
    text = tmp_path / "some.txt"
    text.write_text("nothing here\n")
    with pytest.raises(UserError, match=r"none\.txt is missing\. What to do: apt-get install unicode-data"):
        open_source("noto-emoji", font=text, emoji_test=tmp_path / "none.txt")
    with pytest.raises(UserError, match=r"some\.txt lists no fully-qualified emoji"):
        open_source("noto-emoji", font=text, emoji_test=text)
    text.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=r"some\.txt is no text"):
        read_sequences(text)


@needs_data
def test_another_font_is_refused_at_once(tmp_path):
    text = tmp_path / "some.ttf"
    text.write_text("no font\n")
    with pytest.raises(UserError, match=r"some\.ttf is not the bitmap font expected"):
        open_source("noto-emoji", font=text)
