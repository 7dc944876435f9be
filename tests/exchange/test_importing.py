"""Reading files of other programs: names, wrappers, labels, and bytes that are no file at all."""

import csv
import json
import pickle
import random

import pytest
import torch

from wsrl.errors import SignalError, UserError
from wsrl.exchange.labels import assign, read_labels
from wsrl.exchange.names import guess_names, map_names
from wsrl.exchange.networks import EXAMPLE, describe, read_network
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.fields.tensor_files import FileReader, as_weights, read_tensors, unwrap


@pytest.fixture(scope="module")
def layout():
    """Three layers of 4 neurons on 2 coordinates: their hidden shapes are equal, so only names tell their order."""
    field = FieldConfig(width=4, depth=3, encoding="identity", activation="sine")
    config = RepresentationConfig(kind="mlp", field=field)
    return Representation.build(config, in_features=2, out_features=1).layout


def tensors(layout, modules):
    """Tensors as the layout's under other names of modules, which stand in the order given."""
    by_layer = list(layout.groups().values())
    return {
        f"{module}.{spec.name.rpartition('.')[2]}": torch.full(spec.shape, float(index))
        for index, module in modules
        for spec in by_layer[index]
    }


@pytest.mark.parametrize(
    "modules",
    [
        ["layers.0", "layers.1", "layers.2", "layers.3"],
        ["module.layers.0", "module.layers.1", "module.layers.2", "module.layers.3"],
        ["seq.0", "seq.2", "seq.4", "seq.10"],
        ["net.0.linear", "net.1.linear", "net.2.linear", "net.3"],
        ["model.net.0.linear", "model.net.1.linear", "model.net.2.linear", "model.net.3"],
        ["first", "hidden.0", "hidden.1", "out"],
        ["fc1", "fc2", "fc3", "fc4"],
    ],
)
def test_a_plain_stack_is_guessed(layout, modules):
    names = guess_names(tensors(layout, enumerate(modules)), layout)
    assert [names[f"layers.{i}.weight"] for i in range(4)] == [f"{module}.weight" for module in modules]


def test_numbers_decide_where_the_order_of_the_file_is_lost(layout):
    modules = [(3, "net.10"), (0, "net.7"), (1, "net.8"), (2, "net.9")]  # as an alphabet sorts them
    names = guess_names(tensors(layout, modules), layout, ordered=False)
    assert [names[f"layers.{i}.bias"] for i in range(4)] == ["net.7.bias", "net.8.bias", "net.9.bias", "net.10.bias"]


@pytest.mark.parametrize(
    "modules",
    [
        ["a_in", "b_one", "b_two", "z_out"],
        ["decoder.0", "decoder.2", "encoder.0", "encoder.2"],
        ["l.0.fc_in", "l.0.fc_out", "l.0.fc_mid", "l.1.fc_in"],
    ],
)
def test_an_order_that_would_be_a_guess_is_refused(layout, modules):
    """Reported as AvivNavon/DWSNets#2: layers were ordered by the alphabet, and the field was another one."""
    there = tensors(layout, enumerate(modules))
    with pytest.raises(UserError, match=r"more than one order.*Allowed: .*`names:`.*What to do: .*names: \{"):
        guess_names(there, layout, ordered=False)


def test_a_file_that_keeps_the_order_of_definition_may_tell_it(layout):
    there = tensors(layout, enumerate(["z_in", "b_two", "b_one", "a_out"]))
    names = guess_names(there, layout)
    assert [names[f"layers.{i}.weight"] for i in range(4)] == [
        "z_in.weight",
        "b_two.weight",
        "b_one.weight",
        "a_out.weight",
    ]
    by_alphabet = {name: there[name] for name in sorted(there)}  # such as a file that was made from safetensors
    with pytest.raises(UserError, match="more than one order"):
        guess_names(by_alphabet, layout)


@pytest.mark.parametrize(
    "modules",
    [
        ["fc1", "fc2", "fc3", "fc12"],
        ["first", "hidden.9", "hidden.10", "a_last"],
        ["layers.0", "layers.2", "layers.10", "out"],
    ],
)
def test_numbers_and_sizes_need_no_order_of_the_file(layout, modules):
    there = tensors(layout, enumerate(modules))
    names = guess_names(dict(sorted(there.items())), layout, ordered=False)
    assert [names[f"layers.{i}.weight"] for i in range(4)] == [f"{module}.weight" for module in modules]


def test_what_is_no_such_stack_is_refused_with_both_sides(layout):
    for spoil in (lambda t: t.pop("a.0.bias"), lambda t: t.update({"b.weight": torch.zeros(1)})):
        spoilt = tensors(layout, enumerate(["a.0", "a.1", "a.2", "a.3"]))
        spoil(spoilt)
        with pytest.raises(UserError, match=r"In the file: a\.0\.weight 4x2.*Allowed: layers\.0\.weight 4x2.*do: mend"):
            guess_names(spoilt, layout)


def test_a_map_counts_the_numbers_of_the_file(layout):
    there = tensors(layout, enumerate(["net.1", "net.3", "net.12", "last"]))
    name_map = {"net.{i}.weight": "layers.{i}.weight", "net.{i}.bias": "layers.{i}.bias"}
    last = {"last.weight": "layers.3.weight", "last.bias": "layers.3.bias"}
    names = map_names(there, name_map | last, layout)
    assert names["layers.2.weight"] == "net.12.weight" and names["layers.3.bias"] == "last.bias"
    with pytest.raises(UserError, match=r"net\.1\.weight -> layers\.0\.weight.*exactly one"):
        map_names(there, name_map, layout)


def test_the_state_dict_is_found_in_what_wraps_it(tmp_path):
    state, other = {"a.weight": torch.zeros(1)}, {"a.weight": torch.ones(1)}
    path = tmp_path / "x.pt"
    for content in (state, {"state_dict": state}, {"g_ema": state, "d": other}, {"runs": {"net": state}}, {"x": state}):
        assert unwrap(content, path) == state
    assert unwrap({"d": other, "g": state}, path, inside="d") is not None
    with pytest.raises(SignalError, match="holds no state_dict but d, g"):
        unwrap({"d": other, "g": state}, path)
    with pytest.raises(SignalError, match="has no 'ema'"):
        unwrap({"d": other}, path, inside="ema")


class Loud:
    """Fails the test when anything unpickles it."""

    def __reduce__(self):
        return pytest.fail, ("the pickle was executed",)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, protocol):
    path = tmp_path / "field.pth"
    path.write_bytes(pickle.dumps({"a.weight": torch.zeros(1), "x": Loud()}, protocol=protocol))
    with pytest.raises(SignalError, match=r"field\.pth .*(code: it wants|no pickle of tensors alone).*Allowed: .*do: "):
        read_tensors(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_any_damage_is_an_error_of_that_file_or_leaves_finite_numbers(layout, tmp_path, suffix):
    from safetensors.torch import save_file

    there = {name: tensor.clone() for name, tensor in tensors(layout, enumerate(["a.0", "a.1", "a.2", "a.3"])).items()}
    path = tmp_path / f"field{suffix}"
    torch.save(there, path) if suffix == ".pt" else save_file(there, path)
    reader = FileReader(layout=layout, names=guess_names(there, layout))
    assert torch.equal(reader.read(path)["layers.3.weight"], there["a.3.weight"])
    data, generator, refused = path.read_bytes(), random.Random(0), 0
    for trial in range(150):
        spoilt = bytearray(data)
        for _ in range(1 + trial % 8):
            spoilt[generator.randrange(len(data) if trial % 2 else 200)] = generator.randrange(256)
        path.write_bytes(spoilt[: generator.randrange(len(data))] if trial % 5 == 0 else spoilt)
        try:
            assert all(torch.isfinite(tensor).all() for tensor in reader.read(path).values())
        except SignalError as error:
            refused += 1
            assert error.allowed and error.do
    assert refused > 30


def test_numbers_are_taken_only_where_float32_holds_them(layout):
    good = {spec.name: torch.ones(spec.shape) for spec in layout}
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert all(
            map(torch.equal, as_weights({k: v.to(dtype) for k, v in good.items()}, layout, "x").values(), good.values())
        )
    wide = {name: tensor.double() + 1e-12 for name, tensor in good.items()}
    with pytest.raises(SignalError, match=r"float32 cannot hold.*--rounding"):
        as_weights(wide, layout, "x")
    assert torch.equal(as_weights(wide, layout, "x", rounding=True)["layers.0.bias"], good["layers.0.bias"])
    for dtype, changed in ((torch.complex64, "complex"), (torch.float32, "infinity")):
        wrong = good | {"layers.0.bias": torch.full((4,), float("inf"), dtype=dtype)}
        with pytest.raises(SignalError, match=changed):
            as_weights(wrong, layout, "x")


FORMS = {
    "a.csv": "name,class,subset,ignored\na,cat,train,1\nb,dog,test,2\n",
    "a.tsv": "file\tlabel\tsplit\na\tcat\ttrain\nb\tdog\ttest\n",
    "records.json": json.dumps(
        [{"id": "a", "label": "cat", "split": "train"}, {"id": "b", "label": "dog", "split": "test"}]
    ),
    "by_id.json": json.dumps({"a": {"label": "cat", "split": "train"}, "b": {"label": "dog", "split": "test"}}),
    "by_split.json": json.dumps({"train": {"a": "cat"}, "test": {"b": "dog"}}),
}


@pytest.mark.parametrize("name", FORMS)
def test_labels_of_every_form(tmp_path, name):
    (tmp_path / name).write_text(FORMS[name])
    found = assign(read_labels(tmp_path / name), ["b.pt", "a.pt"], (".pt",))
    assert {file: (e.label, e.split) for file, e in found.items()} == {
        "a.pt": ("cat", "train"),
        "b.pt": ("dog", "test"),
    }


def test_labels_alone_and_splits_alone(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"a": 3, "b": None}))
    assert [(entry.id, entry.label, entry.split) for entry in read_labels(path)] == [
        ("a", "3", None),
        ("b", None, None),
    ]
    path.write_text(json.dumps({"train": ["a"], "test": ["b"]}))
    assert [(entry.id, entry.label, entry.split) for entry in read_labels(path)] == [
        ("a", None, "train"),
        ("b", None, "test"),
    ]


@pytest.mark.parametrize(
    "text", ["", "label\ncat\n", "id,label\na\n", "id,label\na,b,c\n", 'id,label\n"a,b\n', "id,label\n,b\n"]
)
def test_a_spoilt_csv_is_refused(tmp_path, text):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=r"the labels .*labels\.csv: .*Allowed: CSV with a header.*do: mend"):
        read_labels(tmp_path / "labels.csv")


@pytest.mark.parametrize("text", ["", "3", '["a"]', '[{"label": 1}]', "{", '{"train": {"a": [1]}, "x"'])
def test_a_spoilt_json_is_refused(tmp_path, text):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(UserError, match=r"the labels .*labels\.json: .*Allowed: CSV with a header.*do: mend"):
        read_labels(tmp_path / "labels.json")


def test_texts_in_a_csv_are_kept(tmp_path):
    names = ['a, "quoted"', "line\nbreak", "non-utf8 \udcff", "日本"]
    with open(tmp_path / "labels.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "label", "metrics.psnr"))
        writer.writerows((name, "cat, grey", 1 / 3) for name in names)
    entries = read_labels(tmp_path / "labels.csv")
    assert [entry.id for entry in entries] == names and entries[0].metrics == {"psnr": 1 / 3}
    assert {entry.label for entry in entries} == {"cat, grey"}


def test_the_example_of_the_help_is_a_description(tmp_path):
    (tmp_path / "network.yaml").write_text(EXAMPLE)
    network = read_network(tmp_path / "network.yaml")
    assert (
        network.grid == (28, 28) and network.inside == "g_ema" and network.representation.convention.omega_hidden == 30
    )
    (tmp_path / "again.yaml").write_text(describe(network.representation, network.grid))
    again = read_network(tmp_path / "again.yaml")
    assert again.representation.to_dict() == network.representation.to_dict() and again.grid == network.grid
