"""Label files as zoos and other tools publish them: forms, encodings, spellings, and what contradicts itself."""

import json

import pytest

from wsrl.errors import UserError
from wsrl.exchange.labels import assign, id_of, read_labels

FILES = ["sub/a.pt", "sub/B.PT"]
EXPECTED = {"sub/a.pt": ("cat", "train"), "sub/B.PT": ("dog", "val")}
SPLITS = {
    "train": {"path": ["sub/a.pt"], "label": ["cat"]},
    "val": {"path": ["sub/B.PT"], "label": ["dog"]},
    "test": {"path": [], "label": []},
}
RECORDS = [{"id": "a", "label": "cat", "split": "train"}, {"id": "B", "label": "dog", "split": "valid"}]

TEXTS = {
    "spaces.csv": "id, label , split\n a , cat, Train\nB, dog ,VALID\n",
    "quotes.csv": 'id, label, split\n"a", "cat", "train"\n\n"B", dog, "dev"\n',
    "semicolons.csv": "id;label;split\na;cat;training\nB;dog;validation\n",
    "excel.csv": "sep=;\r\nid;label;split\r\na;cat;train\r\nB;dog;val\r\n",
    "tabs.csv": "file\tclass\tset\nsub/a.pt\tcat\ttrain\nsub/B.PT\tdog\tval\n",
    "pandas.csv": ",label,split\na,cat,train\nB,dog,val\n",
    "both_names.csv": "key,id,label,split\n7,a,cat,train\n8,B,dog,val\n",
    "huggingface.csv": "file_name,label,split\na.pt,cat,train\nB.PT,dog,val\n",
    "no_ending.txt": "id|label|split\na|cat|train\nB|dog|val\n",
    "dwsnets.json": json.dumps(SPLITS),
    "absolute.json": json.dumps(
        {s: {"path": [f"/home/x/zoo/{p}" for p in c["path"]], "label": c["label"]} for s, c in SPLITS.items()}
    ),
    "moved.json": json.dumps(
        {s: {"path": [f"/h/old/{p[4:]}" for p in c["path"]], "label": c["label"]} for s, c in SPLITS.items()}
    ),
    "windows.json": json.dumps(
        {
            s: {"path": [f"C:\\zoo\\{p}".replace("/", "\\") for p in c["path"]], "label": c["label"]}
            for s, c in SPLITS.items()
        }
    ),
    "dots.json": json.dumps(
        {s: {"path": [f"./{p}" for p in c["path"]], "label": c["label"]} for s, c in SPLITS.items()}
    ),
    "columns.json": json.dumps({key: [record[key] for record in RECORDS] for key in RECORDS[0]}),
    "pandas.json": json.dumps({key: {str(i): record[key] for i, record in enumerate(RECORDS)} for key in RECORDS[0]}),
    "pandas_index.json": json.dumps({str(i): record for i, record in enumerate(RECORDS)}),
    "pandas_split.json": json.dumps({"columns": list(RECORDS[0]), "data": [list(r.values()) for r in RECORDS]}),
    "pandas_table.json": json.dumps({"schema": {}, "data": RECORDS}),
    "lines.jsonl": "".join(json.dumps(record) + "\n" for record in RECORDS),
    "lines.json": "\n".join(json.dumps(record, indent=None) for record in RECORDS),
    "pairs.json": json.dumps({"train": [["a", "cat"]], "Val": [["B", "dog"]]}),
    "records_by_split.json": json.dumps({"train": [{"id": "a", "label": "cat"}], "val": [{"id": "B", "label": "dog"}]}),
    "ids_by_label.json": json.dumps({"seed": 3, "train": {"cat": ["a"]}, "valid": {"dog": ["B"]}}),
}


def assigned_labels(path, **options):
    return {f: (e.label, e.split) for f, e in assign(read_labels(path, **options), FILES, (".pt",)).items()}


@pytest.mark.parametrize("name", TEXTS)
def test_forms_of_other_tools(tmp_path, name):
    """AvivNavon/DWSNets ``generate_data_splits.py``, opendp/dp-wizard#79, pandas' ``to_json`` and ``to_csv``."""
    (tmp_path / name).write_text(TEXTS[name])
    assert assigned_labels(tmp_path / name) == EXPECTED


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["spaces.csv", "dwsnets.json", "lines.jsonl"])
def test_marks_at_the_beginning(tmp_path, name, encoding):
    """pandas-dev/pandas#22610: what Excel and PowerShell write."""
    (tmp_path / name).write_text(TEXTS[name], encoding=encoding)
    assert assigned_labels(tmp_path / name) == EXPECTED


def test_latin_1_is_refused_with_its_line_or_read_as_such(tmp_path):
    """pandas-dev/pandas#22610, h5py/h5py#135."""
    path = tmp_path / "labels.csv"
    path.write_bytes("id,label\na,dog\nB,café\n".encode("latin-1"))
    with pytest.raises(
        UserError, match=r"labels\.csv: line 3 .*no UTF-8: the label caf\\xe9\. Allowed.*--encoding latin-1"
    ):
        read_labels(path)
    assert assigned_labels(path, encoding="latin-1")["sub/B.PT"] == ("café", None)
    with pytest.raises(UserError, match="cannot be read as latin-17"):
        read_labels(path, "latin-17")
    path.write_bytes("id,label\na,dog\n".encode("utf-16-le"))
    with pytest.raises(UserError, match="zero bytes"):
        read_labels(path)
    path.with_suffix(".json").write_bytes('{"a": "dog",\n"B": "café"}'.encode("latin-1"))
    with pytest.raises(UserError, match="line 2 holds bytes that are no UTF-8"):
        read_labels(path.with_suffix(".json"))
    path.with_suffix(".json").write_text('{"a": "\\udce9"}')
    with pytest.raises(UserError, match="no UTF-8: the label"):
        read_labels(path.with_suffix(".json"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", {"train": {"path": ["a", "B"], "label": ["cat"]}}, "its columns differ in length: file 2, label 1"),
        ("a.json", {"cat": ["a"], "dog": ["B"]}, "its lists stand under 'cat', 'dog', which are no splits"),
        ("a.json", {"a": ["cat", "grey"], "train": ["B"]}, "no file"),
        ("a.json", {"a": {"colour": "grey"}}, "'a' has 'colour'"),
        ("a.json", [{"id": "a", "label": ["cat", "grey"]}], r"entry 1: the label is \['cat', 'grey'\]"),
        ("a.json", {"train": ["a"], "test": ["a"]}, r"'a' twice: train: entry 1 \(.*split train\) and test: entry 1"),
        ("a.csv", "id,label\na,cat\na,dog\n", r"'a' twice: line 2 \(label cat, split None\) and line 3 \(label dog"),
        ("a.csv", "id,label,label\na,cat,dog\n", "the column label twice"),
        ("a.csv", "id,metrics.psnr\na,3\nB,high\n", "line 3: metrics.psnr is 'high'"),
        ("a.csv", "id,label\na,cat\nB\n", "line 3 has another number of columns"),
        ("a.csv", "id,label\na,cat\n,dog\n", "line 3: the entry has neither id nor file"),
        ("a.csv", "id,label\na,cat\nsub/a,dog\n", "name sub/a.pt twice, as 'a' and as 'sub/a'"),
        ("a.jsonl", '{"id": "a"}\n{"id": \n', "line 2: "),
    ],
)  # fmt: skip
def test_what_is_unclear_is_refused_by_name(tmp_path, name, text, message):
    (tmp_path / name).write_text(text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(UserError, match=message) as caught:
        assigned_labels(tmp_path / name)
    assert caught.value.allowed and caught.value.do


def test_a_json_key_that_is_there_twice_is_not_dropped(tmp_path):
    (tmp_path / "a.json").write_text('{"a": "cat", "a": "dog"}')
    with pytest.raises(UserError, match="the key 'a' twice"):
        read_labels(tmp_path / "a.json")


def test_the_same_said_twice_is_taken_once_and_numbers_are_texts(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("id,label,split\na,3,train\na,3,Train\nB, ,\n")
    assert assigned_labels(path) == {"sub/a.pt": ("3", "train"), "sub/B.PT": (None, None)}
    path.with_suffix(".json").write_text('{"a": 3.0, "B": NaN}')
    assert assigned_labels(path.with_suffix(".json")) == {"sub/a.pt": ("3", None), "sub/B.PT": (None, None)}


def test_a_path_with_another_end_is_not_taken_for_a_file():
    """Fields of two classes with equal names: a contradicting folder is no moved one."""
    from wsrl.exchange.labels import Entry

    with pytest.raises(UserError, match="no file"):
        assign([Entry(file="cat/a.pt", label="cat")], ["dog/a.pt"], (".pt",))
    two = [Entry(file="/x/cat/a.pt", label="cat"), Entry(file="/y/dog/b.pt", label="dog")]
    with pytest.raises(UserError, match=r"/x/cat/a\.pt \(no file\)"):
        assign(two, ["1/a.pt", "2/b.pt"], (".pt",))
    assert assign(two[:1], ["dog/a.pt", "cat/a.pt"], (".pt",)) == {"cat/a.pt": two[0]}


def test_accents_have_one_form():
    """macOS spells the names of files with combining marks."""
    from wsrl.exchange.labels import Entry

    assert list(assign([Entry(id="caf\u00e9")], ["cafe\u0301.pt"], (".pt",))) == ["cafe\u0301.pt"]


def test_an_id_that_is_a_path_of_elsewhere_does_not_become_one_here():
    from wsrl.exchange.labels import Entry

    assert id_of(Entry(id="/home/x/sub/a.pt"), "sub/a.pt", (".pt",)) == "sub/a"
    assert id_of(Entry(id="a"), "sub/a.pt", (".pt",)) == "a"
    assert id_of(Entry(id="own", file="a.pt"), "sub/a.pt", (".pt",)) == "own"
