"""What commands end with: few lines, figures beside what to hold them against, warnings in words."""

import json

import pytest

from pipelines.experiment import RECORDS
from wsrl.cli.summary import MOST_LINES, WIDTH, summary

RUN = {
    "base.train_psnr_mean": 13.1, "base.heldout_psnr_mean": 16.6, "base.mean_field_psnr": 10.9,
    "reconstruction.num_fields": 314, "reconstruction.num_failures": 2, "reconstruction.psnr_mean": 29.1,
    "reconstruction.psnr_p05": 25.0, "reconstruction.test.psnr_mean": 28.8, "reconstruction.ssim_mean": 0.994,
    "classifier.test_accuracy": 0.95, "probe.largest_class": 0.16, "probe.weights_accuracy": 0.96,
    "probe.weights_one_nn": 0.99, "probe.pixels_accuracy": 0.92, "probe.pixels_one_nn": 0.98,
    "diffusion.val_loss": 0.41, "generation.fd": 25.2, "generation.fitted_test.fd": 0.6,
    "generation.noise_fd_at_equal_distance": 4.1, "generation.gaussian.fd": 17.0, "generation.precision": 0.4,
    "generation.recall": 0.01, "generation.fitted_test.precision": 0.98, "generation.fitted_test.recall": 0.9,
    "generation.nearest_ratio": 0.3, "generation.num_train": 314, "generation.num_classes_seen": 4,
    "generation.num_classes": 10, "generation.top_probability": 0.61, "generation.top_probability_real": 0.96,
}  # fmt: skip


def text(metrics):
    return " ".join(" ".join(summary(metrics)).split())


def test_figures_stand_beside_what_they_are_held_against():
    found = text(RUN)
    assert "FD 25.2; held-out fields 0.6; copies with noise 4.1; Gaussian of the weights 17" in found
    assert "PSNR 29.1 dB" in found
    read = text({name: value for name, value in RUN.items() if name.startswith("probe")})
    assert (
        "96.0% by logistic regression" in read
        and "from pixels: 92.0%" in read
        and "always the largest class: 16.0%" in read
    )


def test_warnings_are_words():
    found = text(RUN)
    assert "samples are far from the data (42 times the FD of held-out fields): 314 training fields are few" in found
    assert "2 signals have no field" in found and "may be copying" in found
    assert "training fields with noise are as new as the samples, and closer" in found
    good = {**RUN, "generation.fd": 0.9, "generation.nearest_ratio": 1.0, "reconstruction.num_failures": 0}
    assert "warning" not in text(good)
    assert "blurred" in text({**good, "reconstruction.psnr_mean": 20.0})
    assert "blurred" not in text({**good, "reconstruction.psnr_mean": 20.0, "reconstruction.sign_agreement_mean": 1})


@pytest.mark.parametrize("metrics", [RUN, {}, {"reconstruction.num_fields": 3, "reconstruction.num_failures": 0}])
def test_lines_are_few_and_short(metrics):
    lines = summary(metrics)
    assert len(lines) <= MOST_LINES and all(len(line) <= WIDTH for line in lines)
    assert (not lines) == (not metrics)


@pytest.mark.parametrize("data", ["fashion_mnist", "solids"])
def test_many_kinds_of_weights_are_cut(data):
    record = json.loads((RECORDS / "structure" / f"{data}.json").read_text())
    lines = summary({f"structure.{name}": value for name, value in record.items() if ".lambda_" in name})
    assert len(lines) == MOST_LINES and "more lines: see metrics.json" in lines[-1]
    assert lines[0].startswith("lora 0") and "cosine 1" in lines[0]
