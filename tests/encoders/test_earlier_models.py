"""Models that commit e5837f8 saved, before the networks shared one attention, still load and give the same numbers."""

from pathlib import Path

import torch
from encoder_contract import factor_layout, random_fields
from safetensors.torch import load_file

from wsrl.diffusion.denoiser import WeightTransformer
from wsrl.encoders.autoencoder import open_autoencoder
from wsrl.encoders.registry import load_encoder

FOLDER = Path(__file__).parent / "earlier_models"


@torch.no_grad()
def test_models_saved_earlier_give_the_same_outputs():
    layout = factor_layout()
    fields = random_fields(layout, 3, seed=1)
    autoencoder = open_autoencoder(FOLDER / "autoencoder", layout)
    denoiser = WeightTransformer.from_pretrained(FOLDER / "denoiser").eval()
    vector, timesteps = autoencoder.statistics.normalise(fields), torch.tensor([3, 500, 900])
    outputs = {
        "encoder": load_encoder(FOLDER / "encoder")(fields),
        "autoencoder": layout.flatten(autoencoder(fields)),
        "denoiser": denoiser(vector, timesteps, torch.tensor([0, 1, -1])),
    }
    for name, expected in load_file(FOLDER / "expected.safetensors").items():
        torch.testing.assert_close(outputs[name], expected, msg=name)
