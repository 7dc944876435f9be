"""The moving average of parameters."""

import copy

import pytest
import torch
from torch import nn

from wsrl.training.ema import exponential_average


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
