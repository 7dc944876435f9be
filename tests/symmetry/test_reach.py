"""What an example does not reach stays fixed: the spec that a short input gives holds for long ones too."""

import copy

import pytest
import torch
from symmetry_networks import Computed, noise
from torch import Tensor, nn

from wsrl.symmetry import ModuleAxes, PermutationSpec

SHORT, LONG, ROWS = 5, 12, 16


def positions(cut, **tables) -> Computed:
    """Tokens to which what ``cut`` reads of tables is added, between two layers."""

    def run(self, x):
        return self.o(torch.relu(self.h(self.i(x) + cut(self, x.shape[1]))))

    tables = tables or {"pos": nn.Parameter(noise(1, ROWS, 8))}
    return Computed(run, i=nn.Linear(3, 8), h=nn.Linear(8, 8), o=nn.Linear(8, 2), **tables)


def attention(mask_of, **parts) -> Computed:
    """One head whose scores are changed by what ``mask_of`` makes of them."""

    def run(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.o(mask_of(self, q @ k.mT).softmax(-1) @ v)

    net = Computed(run, qkv=nn.Linear(3, 24), o=nn.Linear(8, 2))
    for name, part in parts.items():
        setattr(net, name, part) if isinstance(part, nn.Parameter) else net.register_buffer(name, part)
    return net


def relative(num: int) -> Tensor:
    positions = torch.arange(num)
    return positions[:, None] - positions[None, :] + num - 1  # (num, num)


def nets() -> dict[str, nn.Module]:
    lower = torch.ones(ROWS, ROWS).tril()
    words = {"pos": nn.Embedding(ROWS, 8)}
    networks = {
        "slice": positions(lambda self, t: self.pos[:, :t]),
        "end of the table": positions(lambda self, t: self.pos[:, ROWS - t :]),
        "slice of a slice": positions(lambda self, t: self.pos[:, :14][:, 1 : t + 1]),
        "two tables": positions(
            lambda self, t: self.a[:t] + self.b[:t],
            a=nn.Parameter(noise(ROWS, 8)),
            b=nn.Parameter(noise(ROWS, 8) + 1),
        ),
        "computed, then cut": positions(
            lambda self, t: self.p(torch.tanh(self.pos))[:t], pos=nn.Parameter(noise(ROWS, 6)), p=nn.Linear(6, 8)
        ),
        "split": positions(lambda self, t: self.pos.split([t, ROWS - t], 1)[0]),
        "transposed table": positions(lambda self, t: self.pos[:, :t].T, pos=nn.Parameter(noise(8, ROWS))),
        "rows one by one": positions(
            lambda self, t: torch.stack([self.pos[k] for k in range(t)]), pos=nn.Parameter(noise(ROWS, 8))
        ),
        "mean of rows": positions(lambda self, t: self.pos[:, :t].mean(1, keepdim=True)),
        "largest of rows": positions(lambda self, t: self.pos[:, :t].amax(1, keepdim=True)),
        "memory": positions(
            lambda self, t: (self.q @ self.keys[:t].T).softmax(-1) @ self.values[:t],
            q=nn.Parameter(noise(1, 8)),
            keys=nn.Parameter(noise(ROWS, 8)),
            values=nn.Parameter(noise(ROWS, 8) + 1),
        ),
        "words": positions(lambda self, t: self.pos(torch.arange(t)), **words),
        "gather": positions(
            lambda self, t: self.pos.gather(0, torch.arange(t)[:, None].expand(t, 8)), pos=nn.Parameter(noise(ROWS, 8))
        ),
        "boolean mask": attention(
            lambda self, s: s.masked_fill(~self.seen[: s.shape[1], : s.shape[1]], -1e9), seen=lower > 0
        ),
        "mask as in GPT": attention(
            lambda self, s: s.masked_fill(self.bias[:, : s.shape[-1], : s.shape[-1]] == 0, float("-inf")),
            bias=lower[None],
        ),
        "additive mask": attention(
            lambda self, s: s + self.mask[: s.shape[-1], : s.shape[-1]],
            mask=torch.full((ROWS, ROWS), float("-inf")).triu(1),
        ),
        "relative positions": attention(
            lambda self, s: s + self.table[self.places[: s.shape[-1], : s.shape[-1]]],
            places=relative(ROWS),
            table=nn.Parameter(noise(2 * ROWS - 1)),
        ),
    }
    ids = positions(lambda self, t: self.pos(self.position_ids[:, :t]), **words)
    ids.register_buffer("position_ids", torch.arange(ROWS)[None])
    return {**networks, "numbers of positions in a buffer": ids}


@pytest.mark.parametrize("name", nets())
def test_a_spec_found_on_a_short_input_holds_on_a_long_one(name):
    """Reported as samuela/git-re-basin#5 and #8: rows beyond the example's length were one free permutation."""
    net = nets()[name].eval()
    spec = PermutationSpec.from_module(net, noise(2, SHORT, 3))
    assert len(spec.permutations) >= (1 if name == "gather" else 2), "the channels still move"
    report = spec.verify(net, noise(2, SHORT, 3))
    assert not report.silent
    weights = {key: tensor[None] for key, tensor in net.state_dict().items()}
    moved = {key: t[0] for key, t in spec.augment(weights, torch.Generator().manual_seed(1)).items()}
    assert any(not torch.equal(moved[key], weights[key][0]) for key in moved)
    other = copy.deepcopy(net)
    other.load_state_dict(moved)
    for length in (SHORT - 2, SHORT, LONG):
        x = noise(2, length, 3)
        torch.testing.assert_close(other(x), net(x), rtol=1e-5, atol=1e-5)


def test_channels_of_which_some_are_read_are_fixed():
    """A wider layer of which the first channels are used, and an encoder whose second half training reads."""

    def first_channels(self, x):
        return torch.relu(x @ self.a[:5].T + self.b[:5]) @ self.c[:, :5].T

    def mean_alone(self, x):
        mean, _ = self.encoder(x).chunk(2, -1)
        return self.decoder(torch.relu(self.body(mean)))

    wide = Computed(first_channels, a=nn.Parameter(noise(9, 3)), b=nn.Parameter(noise(9)), c=nn.Parameter(noise(2, 9)))
    assert PermutationSpec.from_module(wide, noise(4, 3)).permutations == ()
    parts = {"encoder": nn.Linear(3, 12), "body": nn.Linear(6, 7), "decoder": nn.Linear(7, 2)}
    assert PermutationSpec.from_module(Computed(mean_alone, **parts), noise(4, 3)).permutations == ("body",)


def test_a_description_by_hand_reads_all_that_it_is_given():
    part = ModuleAxes(tensors={"weight": (None, "c")}, inputs=((None, "c"),), outputs=((None, None),))
    net = Computed(lambda self, x: self.o(self.i(x).chunk(2, -1)[0]) + self.p(self.i(x).chunk(2, -1)[1]))
    net.i, net.o, net.p = nn.Linear(3, 10), nn.Linear(5, 2), nn.Linear(5, 2)
    spec = PermutationSpec.from_module(net, noise(4, 3), described={"o": part, "p": part})
    assert list(spec.sizes.values()) == [5, 5]
