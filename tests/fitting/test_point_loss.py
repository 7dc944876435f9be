"""The losses of a value: their slopes are their derivatives, and what each of them forgives."""

import math

import pytest
import torch

from wsrl.fitting.loss import LOSSES, PointLoss, loss_of
from wsrl.signals.form import SignalForm


@pytest.mark.parametrize("kind", LOSSES)
def test_the_slope_is_the_derivative(kind):
    loss = PointLoss(kind=kind, low=-0.1, high=0.1)
    outputs = torch.linspace(-0.5, 0.5, 41, dtype=torch.float64).requires_grad_()
    for target in (-0.1, -0.03, 0.0, 0.1, 1.0 if kind != "clamped" else 0.05):
        targets = torch.full_like(outputs, target)
        (derivative,) = torch.autograd.grad(loss(outputs, targets).sum(), outputs)
        assert torch.allclose(loss.slope(outputs.detach(), targets), derivative, atol=1e-12)


def test_the_clamped_loss_forgives_only_what_lies_beyond_a_clamped_target():
    loss = PointLoss(kind="clamped", low=-0.1, high=0.1)
    outputs = torch.tensor([0.3, 0.05, -0.3, 0.3, -0.4])
    targets = torch.tensor([0.1, 0.1, 0.1, 0.05, -0.1])
    assert torch.allclose(loss(outputs, targets), torch.tensor([0.0, 0.05**2, 0.4**2, 0.25**2, 0.0]))
    assert loss.slope(outputs, targets)[0] == 0 and loss.slope(outputs, targets)[2] < 0


def test_the_logistic_loss_is_the_cross_entropy_of_inside():
    loss = loss_of(SignalForm(in_features=3, out_features=1, quantity="occupancy"))
    outputs = torch.tensor([-3.0, 0.5, 40.0, -40.0])
    for inside in (0.0, 1.0):
        targets = torch.full_like(outputs, inside)
        expected = torch.nn.functional.binary_cross_entropy_with_logits(-outputs, targets, reduction="none")
        assert torch.allclose(loss(outputs, targets), expected)
    assert loss(torch.tensor(0.0), torch.tensor(1.0)).item() == pytest.approx(math.log(2))
