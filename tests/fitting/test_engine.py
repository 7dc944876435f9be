"""The fitting engine: every field as if it were alone, the golden loss, and failures that stay with their signal."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contracts

from wsrl.errors import SignalError, UserError
from wsrl.fields.network import FieldConfig, Trunk
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.fitting.engine import FitConfig, field_seed, fit, optimise, read_signals
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import Signal, grid_coords

GRID = (6, 5)
CONFIG = FitConfig(steps=20, learning_rate=0.02, batch_size=3, seed=5)

# A batched product of another size sums in another order: 1e-7 of a value of order 1 in the gradient of a step. Adam
# divides by the gradient's size, so an entry with a tiny gradient turns that into a visible part of a step of 0.02;
# after 20 steps a weight may differ by a tenth of a step, where fields of other signals differ by ten steps.
WEIGHT_TOLERANCE = 2e-3
PSNR_TOLERANCE = 0.02


def make_signal(
    number: int, grid: tuple[int, ...] = GRID, channels: int = 1, value_range=(0.0, 1.0), **changes
) -> Signal:
    """A smooth random picture, a pure function of its number."""
    generator = torch.Generator().manual_seed(number)
    coords = grid_coords(grid)
    phases = coords @ torch.randn(len(grid), channels, generator=generator) * 3
    form = SignalForm(in_features=len(grid), out_features=channels, value_range=value_range, grid=grid)
    given = {"id": f"toy/{number:03d}", "coords": coords, "values": 0.5 + 0.4 * phases.sin(), "form": form}
    return Signal(**given | changes)


def items(numbers) -> list:
    return [(number, f"toy/{number:03d}", make_signal(number)) for number in numbers]


def by_id(results) -> dict:
    return {result.id: result for result in results}


def assert_same_field(found, expected):
    for name, value in expected.weights.items():
        torch.testing.assert_close(found.weights[name], value, rtol=0, atol=WEIGHT_TOLERANCE)
    assert found.metrics["psnr"] == pytest.approx(expected.metrics["psnr"], abs=PSNR_TOLERANCE)
    assert (found.seed, found.signal_sha256, found.index) == (expected.seed, expected.signal_sha256, expected.index)


def test_result_carries_what_a_store_keeps():
    representation = contracts.tiny_representation("mlora_asym")
    signal = make_signal(3, label="cat", split="test")
    (result,) = fit(representation, [(7, signal.id, signal)], CONFIG)
    assert (result.index, result.id, result.status, result.reason) == (7, "toy/003", "ok", "")
    assert (result.label, result.split, result.seed) == ("cat", "test", field_seed(5, "toy/003"))
    assert result.signal_sha256 == signal.sha256()
    assert set(result.metrics) == {"psnr", "ssim", "loss", "steps"} and result.metrics["steps"] == 20
    assert {name: value.shape for name, value in result.weights.items()} == {
        spec.name: spec.shape for spec in representation.layout
    }


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_psnr_and_loss_by_hand(value_range):
    representation = contracts.tiny_representation("mlora", out_features=3)
    signal = make_signal(1, channels=3, value_range=value_range)
    (result,) = fit(representation, [(0, signal.id, signal)], CONFIG)
    weights = {name: value[None] for name, value in result.weights.items()}
    found = representation.evaluate(weights, signal.coords)[0].double().numpy()
    squares = [(a - b) ** 2 for a, b in zip(found.flatten(), signal.values.double().numpy().flatten())]
    error = sum(squares) / len(squares)
    assert result.metrics["loss"] == pytest.approx(error, rel=1e-4)
    peak = value_range[1] - value_range[0]
    assert result.metrics["psnr"] == pytest.approx(10 * math.log10(peak**2 / error), abs=1e-3)


def test_scattered_points_have_no_ssim_and_three_coordinates_work():
    representation = contracts.tiny_representation("mlora_asym", in_features=3)
    places = [contracts.points(20, 3).roll(i, 0) for i in range(3)]
    form = SignalForm(in_features=3, out_features=1)
    scattered = [
        Signal(id=str(i), coords=coords, values=0.5 + 0.4 * (3 * coords[:, :1]).sin(), form=form)
        for i, coords in enumerate(places)
    ]
    results = list(fit(representation, [(i, s.id, s) for i, s in enumerate(scattered)], CONFIG))
    assert all("ssim" not in result.metrics and result.status == "ok" for result in results)
    for i, signal in enumerate(scattered):
        (alone,) = fit(representation, [(i, signal.id, signal)], CONFIG)
        assert_same_field(results[i], alone)


@pytest.mark.parametrize("start", ["shared", "random"])
@pytest.mark.parametrize("kind", ["mlora_asym", "lora", "mlp_asym"])
def test_result_depends_on_nobody_else(kind, start):
    representation = contracts.tiny_representation(kind, start=start)
    expected = by_id(fit(representation, items(range(5)), CONFIG))
    for batch_size, numbers in ((1, range(5)), (5, [4, 2, 0, 1, 3]), (2, [3, 1]), (4, [9, 2, 8, 7])):
        found = by_id(fit(representation, items(numbers), replace(CONFIG, batch_size=batch_size)))
        for name in found.keys() & expected.keys():
            assert_same_field(found[name], expected[name])
    fields = list(expected.values())
    difference = representation.layout.flatten(fields[0].weights) - representation.layout.flatten(fields[1].weights)
    assert difference.abs().max() > 10 * WEIGHT_TOLERANCE, "fields must differ for this to mean anything"


def test_rerun_is_bit_identical():
    representation = contracts.tiny_representation("mlora_asym", start="random")
    first, second = (list(fit(representation, items(range(5)), CONFIG)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.metrics == b.metrics
        assert all(torch.equal(value, b.weights[name]) for name, value in a.weights.items())


def test_golden_loss_of_twenty_steps_of_a_plain_loop():
    """One standalone field against nn.Module and torch.optim.Adam without anything of the engine."""
    representation = contracts.tiny_representation("mlp")
    signal = make_signal(2)
    (result,) = fit(representation, [(0, signal.id, signal)], replace(CONFIG, warmup=0.1))
    trunk = Trunk(contracts.STANDALONE, 2, 1)
    trunk.load_state_dict(trunk.state_dict() | representation.initial())
    optimizer = torch.optim.Adam(trunk.parameters(), lr=1.0)
    for step in range(20):
        cosine = 0.01 * (1 + math.cos(math.pi * (step - 2) / 18))
        optimizer.param_groups[0]["lr"] = 0.02 * (step + 1) / 3 if step < 2 else cosine
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(trunk(signal.coords), signal.values).backward()
        optimizer.step()
    loss = torch.nn.functional.mse_loss(trunk(signal.coords), signal.values).item()
    before = (representation.evaluate(_batched(representation.initial()), signal.coords)[0] - signal.values).square()
    assert result.metrics["loss"] == pytest.approx(loss, rel=1e-3)
    assert loss < 0.8 * float(before.mean())
    for name, value in result.weights.items():
        torch.testing.assert_close(value, trunk.state_dict()[name], rtol=0, atol=WEIGHT_TOLERANCE)


def _batched(weights: dict) -> dict:
    return {name: value[None] for name, value in weights.items()}


def test_slots_of_the_optimiser_are_independent():
    representation = contracts.tiny_representation("mlora")
    coords = grid_coords(GRID)
    targets = torch.stack([make_signal(n).values for n in range(4)])
    starts = {k: v.expand(4, *v.shape).clone() for k, v in representation.initial().items()}
    together = optimise(representation, starts, coords, targets, CONFIG)
    for i in range(4):
        alone = {name: value[i : i + 1] for name, value in starts.items()}
        found = optimise(representation, alone, coords, targets[i : i + 1], CONFIG)
        for name, value in found.items():
            torch.testing.assert_close(together[name][i], value[0], rtol=0, atol=WEIGHT_TOLERANCE)
    expected = representation.initial()
    assert all(torch.equal(value[0], expected[name]) for name, value in starts.items()), "starts are not written to"


def bad_items() -> list:
    """Good signals with bad ones of every sort between them."""
    nan = make_signal(1).values.clone()
    nan[3] = math.nan
    endless = make_signal(1).values.clone()
    endless[0] = math.inf
    return [
        *items([0]),
        (1, "bad/error", SignalError("it is a text file", do="remove it")),
        (2, "bad/nan", make_signal(1, id="bad/nan", values=nan)),
        (3, "bad/inf", make_signal(1, id="bad/inf", values=endless)),
        (4, "bad/channels", make_signal(1, channels=3, id="bad/channels")),
        (5, "bad/coords", make_signal(1, grid=(2, 3, 5), id="bad/coords")),
        *items([6, 7, 8]),
    ]


def test_bad_signals_come_with_their_reason_and_stop_nobody():
    representation = contracts.tiny_representation("mlora_asym")
    results = list(fit(representation, bad_items(), CONFIG))
    found = by_id(results)
    assert sorted(result.index for result in results) == list(range(9))
    reasons = {
        "bad/error": "it is a text file",
        "bad/nan": "not finite",
        "bad/inf": "not finite",
        "bad/channels": "maps 2 coordinates to 3 channels; the representation maps 2 to 1",
        "bad/coords": "maps 3 coordinates to 1 channels",
    }
    for name, reason in reasons.items():
        assert found[name].status == "failed" and reason in found[name].reason and found[name].weights is None
        assert "\n" not in found[name].reason
    expected = by_id(fit(representation, items([0, 6, 7, 8]), CONFIG))
    for name, result in expected.items():
        assert found[name].status == "ok"
        assert_same_field(found[name], result)


def test_reading_turns_errors_into_items():
    class Source:
        ids = ("toy/000", "toy/001", "toy/002")

        def __getitem__(self, index):
            if index == 1:
                raise SignalError("truncated")
            return make_signal(index)

    read = list(read_signals(Source(), [0, 1, 2]))
    assert [(index, name) for index, name, _ in read] == [(0, "toy/000"), (1, "toy/001"), (2, "toy/002")]
    assert isinstance(read[1][2], SignalError) and isinstance(read[2][2], Signal)


def test_divergence_is_reported():
    representation = contracts.tiny_representation("mlora", "exp")
    results = list(fit(representation, items(range(3)), replace(CONFIG, learning_rate=1e3)))
    assert [result.status for result in results] == ["failed"] * 3
    assert all("diverged" in result.reason and "lower fit.learning_rate" in result.reason for result in results)
    assert all(result.weights is None and not result.metrics and result.signal_sha256 for result in results)


def test_neighbour_that_diverges_leaves_the_others_alone():
    """Values beyond what float32 can square diverge at once; the slots beside them do not notice."""
    representation = contracts.tiny_representation("mlora_asym")
    huge = make_signal(1, id="huge", values=torch.full((30, 1), 1e38))
    batch = [*items([0]), (1, "huge", huge), *items([2])]
    found = by_id(fit(representation, batch, CONFIG))
    assert found["huge"].status == "failed" and "diverged" in found["huge"].reason
    for name, result in by_id(fit(representation, items([0, 2]), CONFIG)).items():
        assert found[name].status == "ok"
        assert_same_field(found[name], result)


def test_signals_of_other_sizes_get_batches_of_their_own():
    representation = contracts.tiny_representation("mlora_asym")
    mixed = [(i, f"toy/{i:03d}", make_signal(i, grid=(6, 5) if i < 2 else (4, 7))) for i in range(4)]
    found = by_id(fit(representation, mixed, replace(CONFIG, batch_size=4)))
    for item in mixed:
        (alone,) = fit(representation, [item], CONFIG)
        assert_same_field(found[item[1]], alone)


def test_signals_on_the_same_grid_at_other_places_are_fitted_where_they_are():
    """A grid says how points are ordered; a source may put them elsewhere than at the usual cell centres."""
    representation = contracts.tiny_representation("mlora_asym")
    moved = [make_signal(i, coords=grid_coords(GRID) * (1.0 - 0.3 * i)) for i in range(3)]
    given = [(i, signal.id, signal) for i, signal in enumerate(moved)]
    found = by_id(fit(representation, given, replace(CONFIG, batch_size=4)))
    for item in given:
        (alone,) = fit(representation, [item], CONFIG)
        assert_same_field(found[item[1]], alone)
        weights = {name: value[None] for name, value in found[item[1]].weights.items()}
        error = (representation.evaluate(weights, item[2].coords)[0] - item[2].values).square().mean()
        assert found[item[1]].metrics["loss"] == pytest.approx(float(error), rel=1e-4)


def test_results_stream_batch_by_batch():
    read = []

    def signals():
        for item in items(range(6)):
            read.append(item[0])
            yield item

    results = fit(contracts.tiny_representation("mlp"), signals(), replace(CONFIG, steps=1, batch_size=2))
    assert next(results).index == 0
    assert read == [0, 1]


def test_random_start_of_a_siren():
    """The zoo of the UNF literature: a SIREN 2x32 per picture, each from its own seed."""
    field = FieldConfig(width=32, depth=2, encoding="identity", activation="sine", omega=30.0)
    config = RepresentationConfig(kind="mlp", start="random", field=field)
    representation = Representation.build(config, in_features=2, out_features=1)
    assert representation.layout.num_trainable == (2 * 32 + 32) + (32 * 32 + 32) + (32 + 1)
    fitting = FitConfig(steps=60, learning_rate=5e-3, batch_size=4)
    same = [make_signal(0, id=name) for name in ("a", "b")]
    a, b = fit(representation, [(i, s.id, s) for i, s in enumerate(same)], fitting)
    assert a.seed != b.seed
    assert (a.weights["layers.1.weight"] - b.weights["layers.1.weight"]).abs().max() > 0.05
    assert min(a.metrics["psnr"], b.metrics["psnr"]) > 15
    bound = math.sqrt(6 / 32)
    start = representation.initial(torch.Generator().manual_seed(a.seed))["layers.1.weight"]
    assert start.abs().max() <= bound and start.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_seed_of_a_field():
    assert field_seed(0, "a") == field_seed(0, "a") < 2**63
    assert len({field_seed(seed, name) for seed in range(3) for name in ("a", "b", "1:a")}) == 9


def test_rate_rises_and_decays():
    config = FitConfig(steps=100, learning_rate=1.0, warmup=0.1)
    rates = [config.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11) and rates[10] == 1.0 and rates.index(max(rates)) == 10
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 1e-3
    assert FitConfig(steps=1, warmup=0.0).rate(0) > 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"steps": 0}, "fit.steps is 0"),
        ({"batch_size": 0}, "fit.batch_size is 0"),
        ({"learning_rate": 0.0}, "fit.learning_rate is 0.0"),
        ({"learning_rate": math.nan}, "fit.learning_rate is nan"),
        ({"warmup": 1.0}, "fit.warmup 1.0"),
    ],
)
def test_wrong_configuration_is_refused(change, text):
    with pytest.raises(UserError, match=text):
        FitConfig(**change)
