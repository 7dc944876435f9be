"""``wsrl info DIR --nearest ID``: a table of the nearest fields, and a strip of what they show."""

import numpy as np
import pytest
from PIL import Image

from wsrl.cli.main import main
from wsrl.evaluation.retrieval import nearest_fields
from wsrl.store import WeightStore

QUERY = "digits/00007"


def test_a_table_and_a_strip(digits_store, tmp_path, capsys):
    out = tmp_path / "new" / "strip.png"
    assert main(["info", str(digits_store), "--nearest", QUERY, "-k", "3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    with WeightStore.open(digits_store) as store:
        found = nearest_fields(store, store.row(QUERY), 3)
        ids = [store.id_of(int(row)) for row in found.rows]
        own = np.asarray(store.field(QUERY).image(96))
    lines = [line.split() for line in printed.splitlines() if "digits/" in line]
    listed = [(words[1], words[-1]) for words in lines if words[0] in ("query", "1", "2", "3")]
    assert listed == [(QUERY, "0.0000"), *zip(ids, [f"{distance:.4f}" for distance in found.distances])]
    with Image.open(out) as strip:
        pixels = np.asarray(strip.convert("L"))
    height, width = own.shape
    places = [
        (top, left)
        for top in range(pixels.shape[0] - height + 1)
        for left in range(pixels.shape[1] // 3)
        if np.array_equal(pixels[top : top + height, left : left + width], own)
    ]
    assert len(places) == 1 and places[0][1] < 96  # the one asked about comes first
    assert strip.width > 4 * width


def test_other_metrics_and_all_others(digits_store, capsys):
    assert main(["info", str(digits_store), "--nearest", QUERY, "-k", "500", "--metric", "euclidean"]) == 0
    printed = capsys.readouterr().out
    assert "euclidean" in printed and sum("digits/" in line for line in printed.splitlines()) == 100


@pytest.mark.parametrize(
    "more, wrong",
    [
        (("--nearest", "digits/none"), "no field 'digits/none'"),
        (("--nearest", QUERY, "-k", "0"), "k is 0"),
        (("--nearest", QUERY, "--metric", "l1"), "metric is 'l1'"),
        (("--nearest", QUERY, "--out", "strip.gif"), "--out is strip.gif"),
        (("--out", "strip.png"), "--out is given without --nearest"),
    ],
)
def test_wrong_questions_are_refused(digits_store, refused, more, wrong):
    assert wrong in refused("info", digits_store, *more)


def test_without_a_question_the_store_is_described(digits_store, capsys):
    assert main(["info", str(digits_store)]) == 0
    assert "Counts" in capsys.readouterr().out


def test_neighbours_by_canonical_factors(make_store, tmp_path, capsys):
    path = make_store(tmp_path / "store")
    with WeightStore.open(path) as store:
        query = store.id_of(3)
        found = nearest_fields(store, 3, 4, gauge="canonical")
        ids = [store.id_of(int(row)) for row in found.rows]
        assert found.rows.tolist() != nearest_fields(store, 3, 4).rows.tolist()
    assert main(["info", str(path), "--nearest", query, "-k", "4", "--gauge", "canonical"]) == 0
    printed = capsys.readouterr().out
    assert "standardised canonical weights" in printed
    listed = [line.split()[1] for line in printed.splitlines() if line.split()[:1] and line.split()[0] in "1234"]
    assert listed == ids
