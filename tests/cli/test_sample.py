"""``wsrl sample``: the same seed gives the same pictures, and wrong options write nothing."""

import itertools
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from wsrl.cli.main import main
from wsrl.diffusion.pipeline import WeightDiffusionPipeline
from wsrl.store import WeightStore


@pytest.fixture(scope="module")
def model(digits_store, tmp_path_factory):
    run = tmp_path_factory.mktemp("diffusion") / "run"
    argv = [
        "train", "diffusion", "--data.store", digits_store, "--data.num_workers", "0", "--model.width", "8",
        "--model.depth", "1", "--model.local_depth", "1", "--model.heads", "2", "--trainer.max_epochs", "1",
        "--trainer.accelerator", "cpu", "--trainer.default_root_dir", run,
    ]  # fmt: skip
    assert main([str(word) for word in argv]) == 0
    return run


def draw(model, out, seed, num=3):
    argv = ["sample", model, "--out", out, "--seed", seed, "--num", num, "--steps", "2", "--device", "cpu"]
    assert main([str(word) for word in argv]) == 0
    return {path.name: path.read_bytes() for path in out.iterdir() if path.suffix != ".json"}


def test_the_same_seed_gives_the_same_pictures(model, tmp_path):
    one, two, other = (draw(model, tmp_path / name, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert set(one) == {"00000.png", "00001.png", "00002.png", "samples.png", "weights.safetensors"}
    assert one == two and one["weights.safetensors"] != other["weights.safetensors"]
    with Image.open(tmp_path / "a" / "00000.png") as image:
        assert image.size == (8, 8)
    assert all(len(tensor) == 3 for tensor in load_file(tmp_path / "a" / "weights.safetensors").values())
    assert json.loads((tmp_path / "a" / "run.json").read_text())["results"] == {"num": 3}


def test_fewer_pictures_in_the_same_folder_leave_no_old_ones(model, tmp_path):
    draw(model, tmp_path, 1)
    assert "00002.png" not in draw(model, tmp_path, 1, num=2)


@pytest.mark.parametrize(
    "extra, wrong",
    [
        (["--num", "0"], "--num is 0"),
        (["--steps", "0"], "--steps is 0"),
        (["--size", "1"], "--size is 1"),
        (["--nmu", "3"], "--nmu"),
        (["--device", "cuda:99"], "cuda:99"),
    ],
)
def test_wrong_options_write_nothing(refused, model, tmp_path, extra, wrong):
    assert wrong in refused("sample", model, "--out", tmp_path / "out", *extra)
    assert not (tmp_path / "out").exists()


def test_folders_that_are_no_model_or_not_ours(refused, model, tmp_path):
    assert "holds no diffusion model" in refused("sample", tmp_path, "--out", tmp_path / "out")
    assert "not ours" in refused("sample", model, "--out", model, "--num", "1", "--steps", "1")


@pytest.fixture(scope="module")
def conditional(digits_store, tmp_path_factory):
    run = tmp_path_factory.mktemp("conditional") / "run"
    argv = [
        "train", "diffusion", "--data.store", digits_store, "--data.num_workers", "0", "--model.width", "8",
        "--model.depth", "1", "--model.local_depth", "1", "--model.heads", "2", "--model.conditional", "true",
        "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.default_root_dir", run,
    ]  # fmt: skip
    assert main([str(word) for word in argv]) == 0
    pipeline = WeightDiffusionPipeline.from_pretrained(run / "model")
    torch.manual_seed(0)
    for parameter in pipeline.transformer.parameters():  # after one epoch the classes make no difference yet
        torch.nn.init.normal_(parameter, std=0.2)
    pipeline.save_pretrained(run / "model")
    return run


def run(model, out, *extra):
    argv = ["sample", model, "--out", out, "--steps", "3", "--device", "cpu", *extra]
    assert main([str(word) for word in argv]) == 0
    return load_file(out / "weights.safetensors")


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_classes_are_drawn_in_turn(conditional, tmp_path):
    asked = (["--class", "3,1"], ["--class", "3", "--class", "1"], ["--class", "3,1,3"], ["--class", "1"])
    mixed, again, whole, one = (
        run(conditional, tmp_path / str(i), "--num", "3", *extra) for i, extra in enumerate(asked)
    )
    assert same(mixed, again) and same(mixed, whole)
    name = next(iter(mixed))
    torch.testing.assert_close(mixed[name][1], one[name][1])
    assert not torch.allclose(mixed[name][0], one[name][0])


def test_guidance_and_the_sampler_change_the_fields(conditional, tmp_path):
    plain, guided, other, third = (
        run(conditional, tmp_path / str(i), "--num", "2", "--class", "3", *extra)
        for i, extra in enumerate(([], ["--guidance", "3"], ["--sampler", "dpm++"], ["--sampler", "ddpm"]))
    )
    assert not any(same(one, two) for one, two in itertools.combinations([plain, guided, other, third], 2))


def test_a_way_between_two_fields_ends_at_both(model, digits_store, tmp_path):
    with WeightStore.open(digits_store) as store:
        ids, ends = [store.id_of(2), store.id_of(5)], [store[2], store[5]]
    for along, exact in (("weights", True), ("ode", False)):
        out = tmp_path / along
        weights = run(model, out, "--interpolate", *ids, "--along", along, "--num", "5")
        if exact:
            assert all(
                torch.equal(weights[name][[0, -1]], torch.stack([end[name] for end in ends])) for name in weights
            )
        metrics = json.loads((out / "metrics.json").read_text())
        assert metrics["ids"] == ids and {len(values) for values in metrics["steps"].values()} == {5}
        assert metrics["mean_loss"] == pytest.approx(sum(metrics["steps"]["loss"]) / 5)
        assert max(metrics["error_of_ends"]) < 1e-3 < metrics["mean_loss_of_ends"]
        assert {path.name for path in out.iterdir()} == {
            *(f"{i:05d}.png" for i in range(5)), "strip.png", "metrics.json", "run.json", "weights.safetensors"
        }  # fmt: skip
        with Image.open(out / "strip.png") as strip:
            assert strip.width > 5 * strip.height / 2


def test_ids_may_be_rows_and_the_store_given(model, digits_store, tmp_path):
    with WeightStore.open(digits_store) as store:
        ids = [store.id_of(2), store.id_of(5)]
    by_id = run(model, tmp_path / "a", "--interpolate", *ids, "--num", "3")
    assert same(by_id, run(model, tmp_path / "b", "--interpolate", 2, 5, "--num", "3", "--store", digits_store))


def test_variations_go_from_the_field_to_new_samples(model, digits_store, tmp_path, capsys):
    with WeightStore.open(digits_store) as store:
        field, name = store[4], store.id_of(4)
    found, distances = {}, []
    for strength in ("0", "0.4", "1"):
        found[strength] = run(model, tmp_path / strength, "--variations", name, "--strength", strength, "--num", "3")
        distances.append(json.loads((tmp_path / strength / "metrics.json").read_text())["mean_distance"])
        assert f"{distances[-1]:.4g}" in capsys.readouterr().out
    assert all(torch.equal(found["0"][key][1], field[key]) for key in field)
    assert same(found["1"], run(model, tmp_path / "plain", "--num", "3"))
    assert distances[0] == 0 < distances[1] < distances[2]
    assert (tmp_path / "1" / "samples.png").exists()


def half_a_picture(path, size=(8, 8), alpha=True):
    picture = Image.linear_gradient("L").resize(size).convert("RGBA")
    if alpha:
        picture.putalpha(Image.new("L", size, 0))
        picture.paste(Image.linear_gradient("L").resize(size).convert("RGBA").crop((0, 0, size[0], 4)), (0, 0))
    picture.save(path)
    return path


def test_a_picture_is_completed(model, tmp_path):
    half = half_a_picture(tmp_path / "half.png")
    one = run(model, tmp_path / "a", "--complete", half, "--num", "3")
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["complete"]["known_psnr"] > metrics["plain"]["known_psnr"] + 3
    assert metrics["complete"]["unknown_deviation"] > 0.01
    assert same(one, run(model, tmp_path / "b", "--complete", half, "--num", "3"))
    mask = Image.new("L", (8, 8), 0)
    mask.paste(255, (0, 0, 8, 4))
    mask.save(tmp_path / "mask.png")
    whole = half_a_picture(tmp_path / "whole.png", alpha=False)
    assert same(one, run(model, tmp_path / "c", "--complete", whole, "--mask", tmp_path / "mask.png", "--num", "3"))
    with Image.open(tmp_path / "a" / "samples.png") as sheet:
        assert sheet.width > sheet.height


@pytest.mark.parametrize(
    "extra, wrong",
    [
        (["--sampler", "euler"], "sampler 'euler' is unknown"),
        (["--steps", "1001"], "--steps is 1001"),
        (["--class", "3"], "no classes"),
        (["--guidance", "2"], "--guidance needs a class"),
        (["--interpolate", "1", "digits/none"], "has no field 'digits/none'"),
        (["--interpolate", "1", "2", "--along", "air"], "--along is 'air'"),
        (["--interpolate", "1", "2", "--along", "latents"], "no latents"),
        (["--interpolate", "1", "2", "--num", "1"], "--num is 1"),
        (["--interpolate", "1", "2", "--store", "nowhere"], "nowhere"),
        (["--interpolate", "1", "2", "--variations", "1"], "given together"),
        (["--interpolate", "1", "2", "--strength", "1"], "--strength means nothing here"),
        (["--variations", "1", "--strength", "1.5"], "--strength is 1.5"),
        (["--variations", "none"], "has no field 'none'"),
        (["--mask", "mask.png"], "--mask means nothing here"),
        (["--complete", "nowhere.png"], "cannot be read"),
    ],
)
def test_wrong_ways_write_nothing(refused, model, tmp_path, extra, wrong):
    assert wrong in refused("sample", model, "--out", tmp_path / "out", *extra)
    assert not (tmp_path / "out").exists()


def test_wrong_parts_write_nothing(refused, model, tmp_path):
    def message(path, *extra):
        found = refused("sample", model, "--out", tmp_path / "out", "--complete", path, *extra)
        assert not (tmp_path / "out").exists()
        return found

    assert "8x8 pixels" in message(half_a_picture(tmp_path / "large.png", size=(16, 9)))
    whole = half_a_picture(tmp_path / "whole.png", alpha=False)
    assert "all of" in message(whole)
    Image.open(whole).convert("L").save(tmp_path / "grey.png")
    assert "does not say what is unknown" in message(tmp_path / "grey.png")
    mask = half_a_picture(tmp_path / "mask.png", size=(9, 8), alpha=False)
    assert "9x8 pixels" in message(whole, "--mask", mask)
    (tmp_path / "text.png").write_text("no picture")
    assert "not a picture" in message(tmp_path / "text.png")
    half = half_a_picture(tmp_path / "half.png")
    assert "--strength is -1" in message(half, "--strength=-1")


def test_a_store_of_other_fields_is_refused(refused, model, make_store, tmp_path):
    other = make_store(tmp_path / "other")
    assert "kind" in refused("sample", model, "--out", tmp_path / "out", "--variations", "1", "--store", other)
    assert not (tmp_path / "out").exists()
