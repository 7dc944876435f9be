"""Variational inference against posteriors in closed form, and the layers that may carry their noise on outputs."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from wsrl.errors import UserError
from wsrl.symmetry.matching.posteriors import squared_wasserstein
from wsrl.training.local_noise import LocalNoise, local_layers
from wsrl.training.variational import (
    MeanFieldPosterior,
    VariationalOptions,
    classification_log_likelihood,
    fit_posterior,
    gaussian_divergence,
    gaussian_log_likelihood,
    load_posterior,
    save_posterior,
)

NOISE_SCALE, PRIOR_SCALE, NUM = 0.5, 0.8, 64
GAUSSIAN = gaussian_log_likelihood(NOISE_SCALE)


def regression():
    """Inputs that are correlated, so that the factorised posterior is narrower than the exact marginals."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(NUM, 3, generator=generator) @ torch.tensor(
        [[1.0, 0.7, 0.0], [0.0, 0.7, 0.0], [0.0, 0.0, 0.3]]
    )
    targets = inputs @ torch.tensor([[0.7], [-0.4], [1.1]]) + NOISE_SCALE * torch.randn(NUM, 1, generator=generator)
    return inputs, targets


def linear(seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(3, 1, bias=False, **options)


def closed_form(inputs, targets, kl_weight):
    """Mean and standard deviations of the Gaussian that maximises the bound, and those of the exact posterior."""
    precision = inputs.T @ inputs / NOISE_SCALE**2 + kl_weight * torch.eye(3) / PRIOR_SCALE**2
    mean = torch.linalg.solve(precision, inputs.T @ targets / NOISE_SCALE**2).T
    scale = math.sqrt(kl_weight)
    return mean, scale * precision.diag().rsqrt()[None], scale * torch.linalg.inv(precision).diag().sqrt()[None]


@pytest.mark.parametrize(
    ("noise", "parametrisation", "kl_weight"),
    [
        ("local", "softplus", 1.0),
        ("local", "exp", 0.2),
        pytest.param("weights", "exp", 1.0, marks=pytest.mark.slow),  # its gradients are noisier: more steps
    ],
)
def test_calibrated_on_a_linear_gaussian_model(noise, parametrisation, kl_weight):
    inputs, targets = regression()
    mean, std, exact = closed_form(inputs, targets, kl_weight)
    copies = 50 if noise == "local" else 1  # as many copies of the data under as large a factor give the same bound
    options = VariationalOptions(
        prior="constant",
        prior_scale=PRIOR_SCALE,
        noise=noise,
        parametrisation=parametrisation,
        kl_weight=kl_weight * copies,
        epochs=300 if noise == "local" else 4000,
        batch_size=NUM * copies,
        learning_rate=0.05 if noise == "local" else 0.02,
        samples=1 if noise == "local" else 16,
    )
    data, generator = (inputs.repeat(copies, 1), targets.repeat(copies, 1)), torch.Generator().manual_seed(1)
    found = fit_posterior(linear(), GAUSSIAN, data, options, generator)
    assert ((found.means["weight"] - mean).abs() < 0.02 * mean.abs() + 0.02 * std).all()
    assert ((found.stds["weight"] / std - 1).abs() < 0.02).all()
    assert ((exact / std - 1).abs() > 0.1).any()  # or any posterior would do


def test_divergence_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.randn(4, 5, generator=generator), 0.1 + torch.rand(4, 5, generator=generator)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 0.3)
    )
    torch.testing.assert_close(gaussian_divergence(mean, std, 0.3), expected.sum())
    assert float(gaussian_divergence(torch.zeros(3), torch.full((3,), 0.3), 0.3)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("parametrisation", ["softplus", "exp"])
def test_stds_start_where_options_say_and_priors_know_the_fan_in(parametrisation):
    options = VariationalOptions(parametrisation=parametrisation, initial_std=0.03, prior_scale=2.0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4, 3))
    found = MeanFieldPosterior(module, options)
    assert all(torch.allclose(each, torch.tensor(0.03)) for each in found.stds().values())
    assert found.prior_scales["0.weight"] == pytest.approx(2 / math.sqrt(18))
    assert (found.prior_scales["2.weight"], found.prior_scales["2.bias"]) == (1.0, 2.0)


class Odd(nn.Module):
    """Layers of which only ``plain`` and ``picture`` may carry noise on their outputs."""

    def __init__(self):
        super().__init__()
        self.plain, self.twice, self.looked_at = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.tied, self.also_tied, self.never = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.still, self.picture = nn.Linear(4, 4), nn.Conv1d(1, 2, 3, bias=False)
        self.also_tied.weight = self.tied.weight
        self.still.requires_grad_(False)

    def forward(self, x):
        x = self.still(self.also_tied(self.tied(self.twice(self.twice(self.plain(x))))))
        return self.picture((self.looked_at(x) * self.looked_at.weight.sum())[:, None])


def test_layers_that_may_carry_noise_are_told_from_those_that_may_not():
    module = Odd()
    found = local_layers(module, MeanFieldPosterior(module, VariationalOptions()).means, torch.ones(2, 4))
    assert found == {"plain": {"weight": "plain.weight", "bias": "plain.bias"}, "picture": {"weight": "picture.weight"}}
    assert not module.plain._forward_hooks  # nothing stays behind


def test_noise_on_outputs_has_the_moments_of_noise_on_weights():
    generator = torch.Generator().manual_seed(0)
    module, inputs = nn.Conv1d(2, 3, 3, padding=1), torch.randn(1, 2, 4, generator=generator)
    found = MeanFieldPosterior(module, VariationalOptions(initial_std=0.2))
    stds, posterior = found.stds(), found.posterior()
    layers = local_layers(module, found.means, inputs)
    assert list(layers) == [""]
    with torch.no_grad(), LocalNoise(module, layers, stds, generator):
        many = functional_call(module, found.means, (inputs.expand(4000, -1, -1),))
    with torch.no_grad():
        drawn = torch.cat([functional_call(module, posterior.sample(generator), (inputs,)) for _ in range(1000)])
        assert torch.equal(module(inputs), module(inputs))  # no noise outside the block
    torch.testing.assert_close(many.mean(0), drawn.mean(0), atol=0.06, rtol=0)
    torch.testing.assert_close(many.std(0), drawn.std(0), atol=0, rtol=0.1)
    assert float(drawn.std(0).min()) > 0.3


def test_any_module_learns_and_what_needs_no_gradient_stays():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 2, generator=generator)
    labels = (inputs[:, 0] * inputs[:, 1] > 0).long()
    module = nn.Sequential(nn.Linear(2, 16), nn.GroupNorm(4, 16), nn.ReLU(), nn.Linear(16, 2))
    module[3].bias.requires_grad_(False)
    before = {name: each.clone() for name, each in module.state_dict().items()}
    options = VariationalOptions(epochs=40, batch_size=50, learning_rate=0.03, kl_weight=0.1)
    told = []
    found = fit_posterior(module, classification_log_likelihood, (inputs, labels), options, generator, told.append)
    assert "3.bias" not in found.means and len(told) == 160
    logits = functional_call(module, found.sample(generator), (inputs,))
    assert (logits.argmax(1) == labels).float().mean() > 0.9
    assert all(torch.equal(each, before[name]) for name, each in module.state_dict().items())


def test_posteriors_are_saved_and_files_that_are_none_refused(tmp_path):
    found = MeanFieldPosterior(linear(), VariationalOptions()).posterior()
    path = save_posterior(tmp_path / "a", found, {"seed": 0})
    for place in (path, tmp_path / "a"):
        assert squared_wasserstein(found, load_posterior(place)) == 0
    assert (tmp_path / "a" / "config.json").exists()
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"cut\.safetensors cannot be read"):
        load_posterior(tmp_path / "cut.safetensors")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "network.safetensors")
    with pytest.raises(UserError, match=r"network\.safetensors holds 'weight'"):
        load_posterior(tmp_path / "network.safetensors")


def test_wrong_options_are_refused():
    with pytest.raises(UserError, match="noise is 'flipout'"):
        VariationalOptions(noise="flipout")
    with pytest.raises(UserError, match="prior_scale is 0"):
        VariationalOptions(prior_scale=0)
    with pytest.raises(UserError, match="3 inputs come with 2 targets"):
        fit_posterior(
            linear(), gaussian_log_likelihood(1.0), (torch.ones(3, 3), torch.ones(2, 1)), VariationalOptions(), None
        )
    with pytest.raises(UserError, match="the objective is inf"):
        fit_posterior(
            linear(),
            gaussian_log_likelihood(1e-30),
            (torch.ones(3, 3), torch.ones(3, 1)),
            VariationalOptions(),
            torch.Generator(),
        )
