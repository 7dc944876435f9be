"""``wsrl sample`` between stored shapes and from points of a surface, in a model of latents."""

import json

import numpy as np
import pytest
import torch
import trimesh
from safetensors.torch import load_file

from wsrl.cli.main import main
from wsrl.diffusion.decoder import FieldDecoder
from wsrl.diffusion.denoiser import WeightTransformer
from wsrl.diffusion.denoising_loss import training_scheduler
from wsrl.diffusion.pipeline import WeightDiffusionPipeline
from wsrl.diffusion.samplers import sampler
from wsrl.encoders.autoencoder import WeightAutoencoder
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.signals.form import SignalForm
from wsrl.store import FitResult
from wsrl.store.writer import ShardWriter, create_or_resume, finalize

NUM = 4


@pytest.fixture(scope="module")
def representation():
    config = RepresentationConfig(kind="mlp", field=FieldConfig(width=6, depth=2, num_frequencies=3))
    return Representation.build(config, in_features=3, out_features=1)


@pytest.fixture(scope="module")
def fields(representation):
    generator = torch.Generator().manual_seed(0)
    starts = representation.initial().items()
    return {key: start + 0.3 * torch.randn(NUM, *start.shape, generator=generator) for key, start in starts}


@pytest.fixture(scope="module")
def store(representation, fields, tmp_path_factory):
    directory = tmp_path_factory.mktemp("shapes") / "store"
    create_or_resume(
        directory, layout=representation.layout, representation=representation.to_dict(), base_sha256=None, source={},
        fit={}, num_signals=NUM, num_shards=1, label_names=(),
    )  # fmt: skip
    with ShardWriter(directory, 0) as writer:
        rows = [
            FitResult(index=i, id=f"shape/{i}", weights={key: value[i] for key, value in fields.items()}, metrics={})
            for i in writer.indices
        ]
        writer.write_segment(rows)
        writer.finish()
    finalize(directory)
    return directory


@pytest.fixture(scope="module")
def model(representation, fields, tmp_path_factory):
    torch.manual_seed(0)
    small = {"width": 8, "depth": 1, "heads": 2}
    space = WeightAutoencoder(representation.layout.to_json(), latent_tokens=4, latent_channels=8, **small)
    space.statistics.load_state_dict(WeightStatistics.from_batches(representation.layout, [fields]).state_dict())
    for parameter in space.parameters():  # an untrained one writes the mean of all fields
        torch.nn.init.normal_(parameter, std=0.2)
    space.measure_latents([fields])
    pipeline = WeightDiffusionPipeline(
        transformer=WeightTransformer(**space.token_options, local_depth=1, **small),
        scheduler=sampler("ddim", training_scheduler()),
        space=space,
        decoder=FieldDecoder.from_representation(representation, SignalForm(in_features=3, out_features=1)),
    )
    folder = tmp_path_factory.mktemp("latent") / "model"
    pipeline.save_pretrained(folder)
    return folder


def run(model, out, *extra):
    argv = ["sample", model, "--out", out, "--steps", "5", "--resolution", "8", "--device", "cpu", *extra]
    assert main([str(word) for word in argv]) == 0
    return load_file(out / "weights.safetensors"), json.loads((out / "metrics.json").read_text())


def test_a_way_between_shapes_in_latents(model, store, fields, tmp_path):
    options = ["--interpolate", "shape/0", "shape/3", "--num", "3", "--store", store]
    weights, metrics = run(model, tmp_path / "a", *options, "--along", "latents")
    space = WeightAutoencoder.from_pretrained(model / "space")
    with torch.no_grad():
        latents = space.encode({key: value[[0, 3]] for key, value in fields.items()})
        middle = space.decode(latents.mean(dim=0, keepdim=True))
    for key, value in middle.items():
        torch.testing.assert_close(weights[key][1:2], value, atol=1e-4, rtol=1e-4)
    assert max(metrics["error_of_ends"]) > 0.01  # this autoencoder has not been trained
    given, _ = run(model, tmp_path / "b", *options, "--along", "latents", "--autoencoder", model / "space")
    for key, value in weights.items():
        torch.testing.assert_close(given[key], value, atol=1e-4, rtol=1e-4)
    assert (tmp_path / "a" / "strip.png").exists()


def test_shapes_are_completed_from_points(model, tmp_path):
    points = trimesh.creation.icosphere(subdivisions=2, radius=0.6).vertices.astype(np.float32)
    half = points[points[:, 1] > 0]
    np.save(tmp_path / "half.npy", half)
    np.savetxt(tmp_path / "half.xyz", half, fmt="%.9g")
    trimesh.PointCloud(half).export(tmp_path / "half.ply")
    options = ["--num", "2", "--refine", "20", "--complete"]
    one, metrics = run(model, tmp_path / "npy", *options, tmp_path / "half.npy")
    assert 0 < metrics["complete"]["known_distance"] < 0.5 * metrics["plain"]["known_distance"]
    assert (tmp_path / "npy" / "samples.png").exists()
    for kind in ("xyz", "ply"):
        other, _ = run(model, tmp_path / kind, *options, tmp_path / f"half.{kind}")
        assert all(torch.equal(other[key], value) for key, value in one.items())


def test_wrong_points_write_nothing(refused, model, tmp_path):
    def message(name, array=None, text=""):
        path = tmp_path / name
        path.write_text(text) if array is None else np.save(path, array)
        found = refused("sample", model, "--out", tmp_path / "out", "--complete", path)
        assert not (tmp_path / "out").exists()
        return found

    assert "outside of the cube" in message("far.npy", np.full((5, 3), 1.5))
    assert "outside of the cube" in message("nan.npy", np.full((5, 3), np.nan))
    assert "shape (5, 2)" in message("flat.npy", np.zeros((5, 2)))
    assert "no file of points" in message("points.txt", text="0 0 0")
    assert "cannot be read" in message("points.xyz", text="no numbers")
    assert "cannot be read" in message("points.npy", text="no numbers")
    assert "cannot be read" in message("points.ply", text="no numbers")
    assert "does not say which store" in refused("sample", model, "--out", tmp_path / "out", "--variations", "shape/0")
