"""A zoo as others publish it: SIRENs of plain torch modules, one ``state_dict`` file per picture.

Written after the module of Sitzmann et al. (NeurIPS 2020): omega in every sine layer, values in [-1, 1], coordinates
from end to end of the picture. Nothing of wsrl is used to fit or to evaluate them.
"""

import json

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

OMEGA = 30.0
NETWORK = """\
kind: mlp
in_features: 2
out_features: 1
field: {width: 16, depth: 2, encoding: identity, activation: sine, omega: 30, omega_hidden: 30}
coordinates: {range: [-1, 1], ends: corners}
values: {range: [-1, 1]}
signal: {grid: [8, 8]}
"""


class SineLayer(nn.Module):
    """A linear layer and a sine of thirty times its output."""

    def __init__(self, num_in, num_out, first):
        super().__init__()
        self.linear = nn.Linear(num_in, num_out)
        bound = 1 / num_in if first else np.sqrt(6 / num_in) / OMEGA
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x):
        return torch.sin(OMEGA * self.linear(x))


class Siren(nn.Module):
    """Two sine layers and a linear one."""

    def __init__(self, width=16):
        super().__init__()
        last = nn.Linear(width, 1)
        bound = np.sqrt(6 / width) / OMEGA
        nn.init.uniform_(last.weight, -bound, bound)
        self.net = nn.Sequential(SineLayer(2, width, True), SineLayer(width, width, False), last)

    def forward(self, coords):
        return self.net(coords)


def mgrid(side):
    """Coordinates (down, right) from -1 to 1, both ends included."""
    axis = torch.linspace(-1, 1, side)
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2)


def write_zoo(directory, num=40, steps=30):
    """Fit digits 0 and 1 and save them as ``weights/image_000000.pt``, with labels and splits in ``split.json``."""
    digits = load_digits(n_class=2)
    (directory / "weights").mkdir(parents=True)
    records = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = Siren().state_dict()
    for i in range(num):
        siren = Siren()
        siren.load_state_dict(start)
        target = torch.tensor(digits.images[i] / 8 - 1, dtype=torch.float32).reshape(-1, 1)
        optimizer = torch.optim.Adam(siren.parameters(), lr=1e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            (siren(mgrid(8)) - target).square().mean().backward()
            optimizer.step()
        torch.save(siren.state_dict(), directory / "weights" / f"image_{i:06d}.pt")
        split = "test" if i % 4 == 0 else "train"
        records.append({"id": f"image_{i:06d}", "label": int(digits.target[i]), "split": split})
    (directory / "split.json").write_text(json.dumps(records))
    (directory / "siren.yaml").write_text(NETWORK)
    return directory
