"""The step size over a run, and the moving average of parameters."""

import copy

import pytest
import torch
from torch import nn

from wsrl.training.optimisation import exponential_average, warmup_cosine


@pytest.mark.parametrize("decay", [0.0, 0.15, 0.999])
def test_it_follows_the_recurrence(decay):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average = exponential_average(model, decay)
    expected = None
    for step in range(6):
        nn.init.normal_(model.weight)
        average.update_parameters(model)
        current = model.weight.detach().clone()
        kept = min(decay, (1 + step) / (10 + step))
        expected = current if step == 0 else kept * expected + (1 - kept) * current
    torch.testing.assert_close(average.module.weight, expected)


def test_it_is_frozen_apart_from_the_network_and_resumes_from_its_state():
    model = nn.Linear(3, 2)
    average = exponential_average(model, 0.9)
    assert not any(parameter.requires_grad for parameter in average.parameters())
    average.update_parameters(model)
    resumed = exponential_average(copy.deepcopy(model), 0.9)
    resumed.load_state_dict(average.state_dict())
    nn.init.ones_(model.weight)
    for one in (average, resumed):
        one.update_parameters(model)
    assert torch.equal(average.module.weight, resumed.module.weight)
    assert not torch.equal(average.module.weight, model.weight)


def rates(warmup, total, steps):
    """The step size before each of some steps, over its peak."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, found = warmup_cosine(optimizer, warmup, total), []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0] / 2.0)
        optimizer.step()
        schedule.step()
    return found


def test_the_step_size_rises_and_falls():
    found = rates(10.9, 200, 201)
    assert found[:11] == pytest.approx([step / 10 for step in range(11)])
    assert found[105] == pytest.approx(0.5) and found[200] == pytest.approx(0.0)
    assert max(found) == found[10] == 1.0


def test_without_a_rise_the_first_step_is_taken_at_the_peak():
    assert rates(0.3, 3, 4) == pytest.approx([1.0, 0.75, 0.25, 0.0])


def test_without_an_end_the_step_size_stays_at_its_peak():
    assert rates(4, float("inf"), 30)[2:] == [0.5, 0.75, *[1.0] * 26]
