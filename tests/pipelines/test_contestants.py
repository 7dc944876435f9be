"""The benchmark's contestants do the same work: same start, same steps, same field at the end."""

import importlib.util
import multiprocessing
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contracts

from pipelines.rivals import JaxFields, LoopField, fit_by_loop
from pipelines.timing import step_flops
from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.fitting.engine import optimise
from wsrl.fitting.fit_config import FitConfig
from wsrl.signals.signal import grid_coords

CONFIG = FitConfig(steps=12, learning_rate=0.02, warmup=0.0, batch_size=3)
COORDS = grid_coords((6, 5))
# A dozen Adam steps in another order of summation, in dB.
PSNR_TOLERANCE = 0.05


def base(activation: str = "leaky_relu") -> BaseField:
    field = FieldConfig(width=8, depth=2, num_frequencies=6, activation=activation)
    return BaseField(BaseFieldConfig(field=field, latent_size=4), 2, 1, torch.Generator().manual_seed(0)).eval()


def cases() -> list[Representation]:
    siren = FieldConfig(width=8, depth=2, encoding="identity", activation="sine", omega=9.0)
    kinds = [RepresentationConfig(kind="mlp", field=siren)]
    kinds += [RepresentationConfig(kind="mlora_asym", rank=2, form=form) for form in ("exp", "product")]
    kinds += [RepresentationConfig(kind="lora", rank=2)]
    made = [Representation.build(c, base() if c.is_adapter else None, in_features=2, out_features=1) for c in kinds]
    return [*made, Representation.build(RepresentationConfig(kind="mlora_asym", rank=2), base("silu"))]


def setting(representation: Representation):
    start = representation.layout.flatten(representation.initial())
    targets = torch.rand(3, len(COORDS), 1, generator=torch.Generator().manual_seed(1))
    return start, targets


def by_engine(representation: Representation) -> list[float]:
    start, targets = setting(representation)
    weights = optimise(representation, representation.layout.unflatten(start.expand(3, -1)), COORDS, targets, CONFIG)
    errors = (representation.evaluate(weights, COORDS) - targets).square().mean((1, 2))
    return (-10 * errors.log10()).tolist()


def by_jax(number: int) -> list[float]:
    representation = cases()[number]
    start, targets = setting(representation)
    jax = JaxFields(representation, COORDS, [CONFIG.rate(step) for step in range(CONFIG.steps)])
    return jax.fit(start.expand(3, -1).contiguous(), targets)


@pytest.mark.parametrize("representation", cases(), ids=lambda r: f"{r.config.kind}-{r.config.form}")
def test_loop_does_what_the_engine_does(representation):
    start, targets = setting(representation)
    weights = {name: value[None] for name, value in representation.layout.unflatten(start).items()}
    expected = representation.evaluate(weights, COORDS)[0]
    torch.testing.assert_close(LoopField(representation, start)(COORDS), expected, rtol=0, atol=contracts.ROUNDING)
    found = [fit_by_loop(representation, start, COORDS, v, CONFIG.rate, CONFIG.steps).psnr for v in targets]
    assert found == pytest.approx(by_engine(representation), abs=PSNR_TOLERANCE)


def test_loop_stops_at_the_asked_quality():
    representation = cases()[1]
    start, _ = setting(representation)
    easy = torch.full((len(COORDS), 1), 0.3)
    outcome = fit_by_loop(representation, start, COORDS, easy, lambda step: 0.05, 500, target_psnr=25.0)
    assert outcome.psnr >= 25.0 and 0 < outcome.steps < 500
    short = fit_by_loop(representation, start, COORDS, easy, lambda step: 0.05, 2, target_psnr=80.0)
    assert short.psnr < 80.0 and short.steps == 2


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("optax") is None, reason="jax and optax come with the extra [bench]")
def test_jax_does_what_the_engine_does():
    """In a process of its own: once it is loaded, JAX warns of every fork, which other tests do."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(by_jax, range(len(cases())))
    for representation, scores in zip(cases(), found, strict=True):
        assert scores == pytest.approx(by_engine(representation), abs=PSNR_TOLERANCE)


def test_operations_of_a_step_by_hand():
    siren, adapter = cases()[0], cases()[1]
    hidden = 2 * 8 + 8 * 8 + 8
    assert step_flops(siren, 10) == 2 * 10 * (hidden + (8 * 8 + 8) + hidden)
    trunk = 12 * 8 + 8 * 8
    assert step_flops(adapter, 10) == 2 * 10 * (trunk + 8 + (8 * 8 + 8) + trunk)
