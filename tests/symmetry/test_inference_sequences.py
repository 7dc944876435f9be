"""The symmetry of recurrent networks and transformers, axis by axis."""

import pytest
import torch
import torch.nn.functional as F
from symmetry_networks import Computed, attention_by_hand, inferred_spec, noise
from torch import nn

from wsrl.symmetry.spec.axes import Concat, Product


def gates(name: str, num: int) -> Concat:
    return Concat((name,) * num)


@pytest.mark.parametrize(("kind", "num"), [(nn.GRU, 3), (nn.LSTM, 4), (nn.RNN, 1)])
def test_gates_of_a_recurrent_layer_share_its_permutation(kind, num):
    net = Computed(lambda self, x: self.out(self.rnn(x)[0]), rnn=kind(3, 5, 2), out=nn.Linear(5, 2))
    spec = inferred_spec(net, noise(4, 2, 3))
    first, second = ("rnn.l0", "rnn.l1") if num == 1 else (gates("rnn.l0", num), gates("rnn.l1", num))
    assert spec.axes["rnn.weight_ih_l0"] == (first, None)
    assert spec.axes["rnn.weight_hh_l0"] == (first, "rnn.l0")
    assert spec.axes["rnn.bias_hh_l0"] == (first,)
    assert spec.axes["rnn.weight_ih_l1"] == (second, "rnn.l0")
    assert spec.axes["rnn.weight_hh_l1"] == (second, "rnn.l1")
    assert spec.axes["out.weight"] == (None, "rnn.l1")
    assert spec.sizes == {"rnn.l0": 5, "rnn.l1": 5}


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("batch_first", [False, True])
def test_directions_have_permutations_of_their_own(kind, batch_first):
    rnn = kind(3, 4, 2, bidirectional=True, batch_first=batch_first)
    net = Computed(lambda self, x: self.out(self.rnn(x)[0]), rnn=rnn, out=nn.Linear(8, 2))
    spec = inferred_spec(net, noise(4, 2, 3))
    assert spec.axes["rnn.weight_ih_l1"][1] == Concat(("rnn.l0", "rnn.l0_reverse"))
    assert spec.axes["rnn.weight_ih_l1_reverse"][1] == Concat(("rnn.l0", "rnn.l0_reverse"))
    assert spec.axes["out.weight"] == (None, Concat(("rnn.l1", "rnn.l1_reverse")))
    assert spec.axes["rnn.weight_hh_l0_reverse"][1] == "rnn.l0_reverse"
    assert len(spec.permutations) == 4


def test_last_states_of_two_layers_read_apart():
    net = Computed(
        lambda self, x: self.a(self.rnn(x)[1][0]) + self.b(self.rnn(x)[1][1]),
        rnn=nn.GRU(3, 4, 2),
        a=nn.Linear(4, 2),
        b=nn.Linear(4, 2),
    )
    spec = inferred_spec(net, noise(4, 2, 3))
    assert spec.axes["a.weight"] == (None, "rnn.l0") and spec.axes["b.weight"] == (None, "rnn.l1")


def test_a_recurrent_layer_whose_states_are_the_output_has_no_symmetry():
    assert inferred_spec(nn.GRU(3, 4, 2), noise(4, 2, 3)).permutations == ()


def test_projected_states_permute_too():
    net = Computed(lambda self, x: self.out(self.rnn(x)[0]), rnn=nn.LSTM(3, 5, proj_size=4), out=nn.Linear(4, 2))
    spec = inferred_spec(net, noise(4, 2, 3))
    cells, states = spec.axes["rnn.weight_hr_l0"][1], spec.axes["rnn.weight_hr_l0"][0]
    assert spec.axes["rnn.weight_hh_l0"] == (gates(cells, 4), states)
    assert spec.sizes == {cells: 5, states: 4}


def test_cells_that_write_into_a_constant():
    def run(self, x):
        hidden, state, out = x.new_zeros(2, 4), None, x.new_zeros(3, 2, 5)
        for step in range(3):
            hidden = self.gru(x[step], hidden)
            state = self.lstm(hidden, state)
            out[step] = state[0]
        return self.out(out)

    spec = inferred_spec(
        Computed(run, gru=nn.GRUCell(3, 4), lstm=nn.LSTMCell(4, 5), out=nn.Linear(5, 2)), noise(3, 2, 3)
    )
    assert spec.axes["gru.weight_hh"] == (gates("gru", 3), "gru")
    assert spec.axes["lstm.weight_ih"] == (gates("lstm", 4), "gru")
    assert spec.axes["out.weight"] == (None, "lstm")


def multihead(spec, path: str, stream: str | None) -> None:
    """Check the axes of a ``MultiheadAttention`` whose queries, keys and values come from one stream."""
    heads, qk, v = f"{path}.heads", f"{path}.qk", f"{path}.v"
    rows = Concat((Product((heads, qk)), Product((heads, qk)), Product((heads, v))))
    assert spec.axes[f"{path}.in_proj_weight"] == (rows, stream)
    assert spec.axes[f"{path}.in_proj_bias"] == (rows,)
    assert spec.axes[f"{path}.out_proj.weight"] == (stream, Product((heads, v)))
    assert spec.axes[f"{path}.out_proj.bias"] == (stream,)
    assert spec.within[qk] == spec.within[v] == (heads,)


@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoder_with_tied_embeddings(norm_first):
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=norm_first)
    net = Computed(
        lambda self, words: self.out(self.encoder(self.words(words) + self.places)),
        words=nn.Embedding(11, 8),
        places=nn.Parameter(noise(1, 5, 8)),
        encoder=nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        out=nn.Linear(8, 11, bias=False),
    )
    net.out.weight = net.words.weight
    spec = inferred_spec(net, torch.arange(10).view(2, 5))
    assert spec.axes["words.weight"] == spec.axes["out.weight"] == (None, "words")
    assert spec.axes["places"] == (None, None, "words")
    for k in range(2):
        path = f"encoder.layers.{k}"
        multihead(spec, f"{path}.self_attn", "words")
        assert spec.axes[f"{path}.linear1.weight"] == (f"{path}.linear1", "words")
        assert spec.axes[f"{path}.linear2.weight"] == ("words", f"{path}.linear1")
        assert spec.axes[f"{path}.norm1.weight"] == spec.axes[f"{path}.norm2.bias"] == ("words",)
    assert len(spec.permutations) == 1 + 2 * 4


def test_a_whole_transformer():
    net = Computed(
        lambda self, x, y: self.out(self.body(self.source(x), self.target(y))),
        source=nn.Linear(3, 8), target=nn.Linear(4, 8), body=nn.Transformer(8, 2, 1, 1, 10, batch_first=True),
        out=nn.Linear(8, 2),
    )  # fmt: skip
    spec = inferred_spec(net, noise(2, 5, 3), noise(2, 4, 4))
    # the columns of the cross-attention's one matrix read the target in its first rows and the source in the others
    stream = spec.axes["target.weight"][0]
    assert spec.axes["source.weight"][0] == stream
    multihead(spec, "body.encoder.layers.0.self_attn", stream)
    multihead(spec, "body.decoder.layers.0.self_attn", stream)
    multihead(spec, "body.decoder.layers.0.multihead_attn", stream)
    assert len(spec.permutations) == 1 + 3 * 3 + 2


def test_attention_by_hand_with_queries_and_values_of_different_sizes():
    spec = inferred_spec(attention_by_hand(6, 2, 4, 5), noise(2, 3, 3))
    inside, values = Product(("q.heads", "q.channels")), Product(("q.heads", "v.channels"))
    assert spec.axes["q.weight"] == spec.axes["k.weight"] == (inside, "before")
    assert spec.axes["v.weight"] == (values, "before") and spec.axes["o.weight"] == ("before", values)
    assert spec.sizes == {"before": 6, "q.heads": 2, "q.channels": 4, "v.channels": 5}
    assert spec.within == {"q.channels": ("q.heads",), "v.channels": ("q.heads",)}


def test_one_matrix_for_queries_keys_and_values():
    def run(self, x):
        x = self.before(x)
        queries, keys, values = self.qkv(x).reshape(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return self.after(x + self.o(out.transpose(1, 2).reshape(2, 5, 8)))

    net = Computed(run, before=nn.Linear(3, 8), qkv=nn.Linear(8, 24), o=nn.Linear(8, 8), after=nn.Linear(8, 2))
    spec = inferred_spec(net, noise(2, 5, 3))
    qk, v = Product(("qkv.heads", "qkv.qk")), Product(("qkv.heads", "qkv.v"))
    assert spec.axes["qkv.weight"] == (Concat((qk, qk, v)), "before")
    assert spec.axes["o.weight"] == ("before", v)


def test_one_matrix_cut_by_chunks():
    def run(self, x):
        queries, keys, values = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return self.o((queries @ keys.mT).softmax(-1).matmul(values).transpose(1, 2).flatten(2))

    spec = inferred_spec(Computed(run, qkv=nn.Linear(3, 24), o=nn.Linear(8, 2)), noise(2, 5, 3))
    qk, v = Product(("qkv.heads", "qkv.qk")), Product(("qkv.heads", "qkv.v"))
    assert spec.axes["qkv.weight"] == (Concat((qk, qk, v)), None)


def test_queries_in_groups_that_share_keys():
    def run(self, x):
        queries = self.q(x).view(2, 5, 4, 3).transpose(1, 2)
        keys, values = (part.view(2, 5, 2, 3).transpose(1, 2) for part in self.kv(x).chunk(2, -1))
        keys, values = keys.repeat_interleave(2, 1), values[:, :, None].expand(2, 2, 2, 5, 3).reshape(2, 4, 5, 3)
        return self.o(F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).reshape(2, 5, 12))

    spec = inferred_spec(Computed(run, q=nn.Linear(3, 12), kv=nn.Linear(3, 12), o=nn.Linear(12, 2)), noise(2, 5, 3))
    groups, members, qk = spec.axes["q.weight"][0].factors
    keys, values = spec.axes["kv.weight"][0].parts
    assert keys == Product((groups, qk)) and values.factors[0] == groups
    assert spec.axes["o.weight"] == (None, Product((groups, members, values.factors[1])))
    assert spec.within == {members: (groups,), qk: (groups,), values.factors[1]: (groups,)}


def test_gated_feed_forward_layers_cut_by_chunk_or_glu():
    for function in (lambda a: F.glu(a, -1), lambda a: a.chunk(2, -1)[0] * F.silu(a.chunk(2, -1)[1])):
        net = Computed(lambda self, x, f=function: self.b(f(self.a(x))), a=nn.Linear(3, 8), b=nn.Linear(4, 2))
        spec = inferred_spec(net, noise(2, 3))
        assert spec.axes["a.weight"] == (Concat(("a", "a")), None) and spec.axes["b.weight"] == (None, "a")


@pytest.mark.parametrize("as_input", [False, True])
def test_heads_under_a_mask_of_padded_steps_permute(as_input):
    """One mask for all heads of an item, which PyTorch repeats for each head."""
    padded = torch.tensor([[False, False, True, True, True], [False] * 5])

    def run(self, x, mask=padded):
        x = self.before(x)
        return self.after(x + self.attention(x, x, x, key_padding_mask=mask)[0])

    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    net = Computed(run, before=nn.Linear(3, 8), attention=attention, after=nn.Linear(8, 2))
    spec = inferred_spec(net, noise(2, 5, 3), *([padded] if as_input else []))
    multihead(spec, "attention", "before")


def test_a_mask_repeated_for_each_head_leaves_heads_free():
    def run(self, x):
        q, k, v = (layer(x).unflatten(-1, (2, 4)).transpose(1, 2).flatten(0, 1) for layer in (self.q, self.k, self.v))
        mask = torch.stack([torch.ones(5, 5).tril(), torch.ones(5, 5)]).repeat_interleave(2, 0)
        scores = (q @ k.mT).masked_fill(mask == 0, -9).softmax(-1)
        return self.o((scores @ v).unflatten(0, (2, 2)).transpose(1, 2).flatten(2))

    net = Computed(run, **{name: nn.Linear(3, 8) for name in "qkv"}, o=nn.Linear(8, 2))
    assert inferred_spec(net, noise(2, 5, 3)).sizes == {"q.heads": 2, "q.channels": 4, "v.channels": 4}
