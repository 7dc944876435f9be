"""The classifier of pictures: what it learns, that it is kept, and what is said where it cannot be trained."""

import builtins

import pytest
import torch
from safetensors.torch import load_file

from wsrl.errors import UserError
from wsrl.evaluation.picture_classifier import (
    ClassifierOptions,
    PictureClassifier,
    shifted,
    shrunk,
    train_picture_classifier,
    training_sha256,
)
from wsrl.evaluation.picture_features import (
    LabelledPictures,
    default_features_folder,
    kept_classifier,
    read_classifier,
    timm_features,
)

SMALL = ClassifierOptions(width=8, num_epochs=1, num_steps=60)
NAMES = ("across", "down", "flat")


def pictures(num, seed, channels=1, size=8):
    """Stripes across, stripes down and nothing, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % 3
    wave = torch.arange(size) % 2 * 0.5
    kinds = torch.stack(
        [wave[:, None].expand(size, size), wave[None].expand(size, size), torch.full((size, size), 0.25)]
    )
    noise = 0.1 * torch.rand(num, channels, size, size, generator=generator)
    return LabelledPictures(pictures=kinds[labels][:, None] + noise, labels=labels)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder that keeps a classifier, and its features."""
    folder = tmp_path_factory.mktemp("features")
    return folder, read_classifier(kept_classifier(pictures(150, 0), pictures(60, 1), NAMES, folder, SMALL))


def test_the_classes_are_learned_and_the_accuracy_is_that_of_unseen_pictures(kept):
    features, unseen = kept[1], pictures(90, 2)
    assert features.accuracy > 0.95 and features.num_test == 60
    assert features(unseen.pictures).shape == (90, 4 * SMALL.width)
    assert features.agreement(unseen.pictures, unseen.labels) > 0.95
    assert features.agreement(unseen.pictures, (unseen.labels + 1) % 3) < 0.05
    assert torch.allclose(features.probabilities(unseen.pictures).sum(dim=1), torch.ones(90))


def untouched(what, total):
    raise AssertionError("it was trained again")


def test_a_classifier_that_is_kept_is_not_trained_again(kept):
    folder, features = kept
    again = read_classifier(kept_classifier(pictures(150, 0), pictures(60, 1), NAMES, folder, SMALL, untouched))
    assert (again.sha256, again.accuracy) == (features.sha256, features.accuracy)
    assert torch.equal(again(pictures(5, 3).pictures), features(pictures(5, 3).pictures))
    (directory,) = folder.iterdir()
    assert read_classifier(directory).sha256 == features.sha256
    assert (
        load_file(directory / "model.safetensors").keys()
        == PictureClassifier(channels=1, num_classes=3, width=8, largest_side=64).state_dict().keys()
    )


def test_other_pictures_or_options_are_another_classifier(kept):
    folder, features = kept
    other = read_classifier(kept_classifier(pictures(150, 7), pictures(60, 1), NAMES, folder, SMALL))
    assert other.sha256 != features.sha256 and len(list(folder.iterdir())) == 2
    part = pictures(150, 0)
    hashes = {training_sha256(part.pictures, labels, SMALL) for labels in (part.labels, (part.labels + 1) % 3)}
    assert len(hashes | {training_sha256(part.pictures, part.labels, ClassifierOptions())}) == 3


def test_training_repeats_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    part = pictures(60, 0)
    first, second = (train_picture_classifier(part.pictures, part.labels, 3, SMALL) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 100), (3, 2), (1, 5)])
def test_any_picture_has_features(channels, size):
    network = PictureClassifier(channels=channels, num_classes=2, width=4, largest_side=64).eval()
    generator = torch.Generator().manual_seed(0)
    assert network.features(torch.rand(3, channels, size, size, generator=generator)).shape == (3, 16)


def test_large_pictures_are_shrunk_by_averaging():
    generator = torch.Generator().manual_seed(0)
    large = torch.rand(2, 1, 128, 64, generator=generator)
    assert torch.allclose(shrunk(large, 64), large.unflatten(2, (64, 2)).unflatten(4, (32, 2)).mean(dim=(3, 5)))
    assert shrunk(large, 128) is large


def test_shifts_keep_edges():
    picture = torch.arange(25.0).reshape(1, 1, 5, 5)
    found = {tuple(shifted(picture, 0.2, torch.Generator().manual_seed(i)).flatten().tolist()) for i in range(200)}
    moved = {tuple(picture[0, 0][rows][:, columns].flatten().tolist()) for rows in MOVES for columns in MOVES}
    assert found == moved


MOVES = ([0, 1, 2, 3, 4], [0, 0, 1, 2, 3], [1, 2, 3, 4, 4])


def test_too_few_pictures_and_classes_are_refused(tmp_path):
    part = pictures(30, 0)
    with pytest.raises(UserError, match="timm:NAME"):
        train_picture_classifier(part.pictures, torch.zeros(30, dtype=torch.long), 1, SMALL)
    with pytest.raises(UserError, match="cannot train features"):
        kept_classifier(pictures(5, 0), pictures(5, 1), NAMES, tmp_path, SMALL)
    with pytest.raises(UserError, match="does not hold a classifier"):
        read_classifier(tmp_path)


def test_without_timm_the_message_says_what_to_do(monkeypatch):
    really = builtins.__import__

    def without(name, *rest):
        if name == "timm":
            raise ImportError("No module named 'timm'")
        return really(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"timm:resnet18 needs timm.*pip install timm"):
        timm_features("timm:resnet18")


def test_classifiers_are_kept_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("WSRL_CACHE", str(tmp_path))
    assert default_features_folder() == tmp_path / "features"
