"""The perceptual loss, and the autoencoder that is trained with it."""

import pytest
import torch

from wsrl.errors import UserError
from wsrl.evaluation.picture_classifier import ClassifierOptions
from wsrl.evaluation.picture_features import LabelledPictures, kept_classifier
from wsrl.training.stored_signals import PerceptualLoss

SIDE = 8


@pytest.fixture(scope="module")
def pictures():
    """Stripes along either axis, with noise: two classes that local features tell apart."""
    generator, labels = torch.Generator().manual_seed(0), torch.arange(32) % 2
    stripes = (torch.arange(SIDE) % 2).float().expand(SIDE, SIDE)
    clean = torch.stack([stripes if label else stripes.T for label in labels.tolist()])
    noise = 0.2 * torch.rand(32, SIDE, SIDE, generator=generator)
    return LabelledPictures((0.8 * clean + noise)[:, None], labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pictures):
    options = ClassifierOptions(width=4, num_epochs=2, num_steps=20)
    return kept_classifier(pictures, pictures, ("down", "across"), tmp_path_factory.mktemp("kept"), options)


def test_the_same_pictures_have_no_loss_and_others_do(folder, pictures):
    loss = PerceptualLoss(folder)
    loss.measure(pictures.pictures)
    assert loss(pictures.pictures, pictures.pictures) == 0
    assert loss(pictures.pictures.flip(0), pictures.pictures) > 0.1


def test_errors_are_shares_of_the_variance_between_pictures(folder, pictures):
    loss = PerceptualLoss(folder)
    loss.measure(pictures.pictures)
    with torch.no_grad():
        levels = loss.levels(pictures.pictures)
    shares = [(level - level.mean(0)).square().mean() / variance for level, variance in zip(levels, loss.variances)]
    torch.testing.assert_close(torch.stack(shares), torch.ones(len(shares)))


def test_it_grows_with_blur(folder, pictures):
    loss = PerceptualLoss(folder)
    loss.measure(pictures.pictures)
    wanted = pictures.pictures
    blurred = wanted.mean(dim=(2, 3), keepdim=True).expand_as(wanted)
    found = [float(loss(wanted.lerp(blurred, share), wanted)) for share in (0.0, 0.25, 0.5, 1.0)]
    assert found == sorted(found) and found[1] > 0.1


def test_gradients_reach_the_pictures_alone(folder, pictures):
    loss = PerceptualLoss(folder)
    found = (0.5 * pictures.pictures).requires_grad_()
    loss(found, pictures.pictures).backward()
    assert found.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in loss.parameters())


def test_pictures_of_other_channels_are_refused(folder):
    with pytest.raises(UserError, match="reads pictures of 1 channels and the fields have 3"):
        PerceptualLoss(folder).levels(torch.zeros(1, 3, SIDE, SIDE))
