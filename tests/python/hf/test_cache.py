"""The cache of dmc.hf against its definition, token by token in plain Python."""

import copy
import random

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
from dmc.hf.cache import DmcLayer, Slots, Tokens, rotate  # noqa: E402

BATCH, HEADS, PAIRS, DIM, COUNT = 2, 4, 2, 8, 24
SLOTS = [
    Slots(0, 12, False), Slots(0, 1, False), Slots(0, 3, False), Slots(0, 0, False),  # dmc
    Slots(0, 1), Slots(1, 1), Slots(7, 1),  # dms
    Slots(5, 4), Slots(1, 0), Slots(7, 12), Slots(5, 4, False, True),  # delayed merging
]  # fmt: skip


def tokens(seed, merging=0.6):
    draw = torch.Generator().manual_seed(seed)
    angles = torch.rand(BATCH, 1, COUNT, DIM // 2, generator=draw).repeat(1, 1, 1, 2)
    q = torch.randn(BATCH, HEADS, COUNT, DIM, generator=draw)
    scalars = (BATCH, PAIRS, COUNT)
    return q, Tokens(
        torch.randn(*scalars, DIM, generator=draw), torch.randn(*scalars, DIM, generator=draw),
        torch.rand(scalars, generator=draw) >= merging, torch.rand(scalars, generator=draw) + 0.1,
        torch.ones(scalars, dtype=torch.bool), angles.cos(), angles.sin(),
    )  # fmt: skip


def mean(slots, segment, values):
    """Of the segment's last tokens, the newest weighing 1 or its importance."""
    last = segment[-slots.window :] if slots.window else segment
    weights = [w for _, w in last[:-1]] + [1.0 if slots.newest_weighs_one else last[-1][1]]
    return sum(w * values[j] for (j, _), w in zip(last, weights)) / sum(weights)


def definition(slots, q, given, scaling):
    """What each token's query reads, and how many slots each head has at the end."""
    out, lengths = torch.zeros_like(q), np.zeros((BATCH, PAIRS), int)
    for b in range(BATCH):
        for h in range(PAIRS):
            k, v, cos, sin = given.k[b, h], given.v[b, h], given.cos[b, 0], given.sin[b, 0]

            def turned(key, j, cos=cos, sin=sin):
                key = rotate(key, cos[j], sin[j])
                return torch.cat([key[:-1], torch.zeros(1)]) if slots.zero_last else key

            segments = []
            for i in range(COUNT):
                joining = i - slots.delay
                if joining >= 0 and not (segments and not given.opens[b, h, joining]):
                    segments.append([])
                if joining >= 0:
                    segments[-1].append((joining, float(given.weight[b, h, joining])))
                pairs = [(turned(mean(slots, s, k), s[-1][0]), mean(slots, s, v)) for s in segments]
                pairs += [(turned(k[j], j), v[j]) for j in range(max(0, joining + 1), i + 1)]
                keys, values = (torch.stack(x) for x in zip(*pairs))
                for g in range(h * HEADS // PAIRS, (h + 1) * HEADS // PAIRS):
                    out[b, g, i] = (keys @ q[b, g, i] * scaling).softmax(0) @ values
                lengths[b, h] = len(pairs)
    return out, lengths


def in_parts(layer, q, given, cuts):
    read = []
    for first, last in zip([0, *cuts], [*cuts, COUNT]):
        read.append(layer.attend(q[:, :, first:last], given.part(first, last), 0.3))
    return torch.cat(read, 2)


@pytest.mark.parametrize("slots", SLOTS, ids=str)
@pytest.mark.parametrize("merging", [0.2, 0.9])
def test_it_reads_what_the_definition_reads_however_the_text_comes(slots, merging):
    q, given = tokens(SLOTS.index(slots), merging)
    wanted, lengths = definition(slots, q, given, 0.3)
    draw = random.Random(1)
    some = sorted(draw.sample(range(1, COUNT), 5))
    for cuts in [[], [16, *range(17, COUNT)], list(range(1, COUNT)), [12], some]:
        layer = DmcLayer(slots)
        torch.testing.assert_close(in_parts(layer, q, given, cuts), wanted, atol=2e-5, rtol=1e-4)
        assert layer.get_seq_length() == COUNT
        np.testing.assert_array_equal(layer.slots_kept().numpy(), lengths)


@pytest.mark.parametrize("slots", SLOTS, ids=str)
def test_padding_before_a_text_is_not_seen(slots):
    q, given = tokens(3)
    padded = DmcLayer(slots)
    pad = 9
    given.real[1, :, :pad] = False
    read = in_parts(padded, q, given, [15, 16])
    alone = DmcLayer(slots)
    rest = given.map(lambda x: x[1:, :, pad:])
    wanted = alone.attend(q[1:, :, pad:], rest, 0.3)
    torch.testing.assert_close(read[1:, :, pad:], wanted, atol=2e-5, rtol=1e-4)
    assert padded.slots_kept()[1].tolist() == alone.slots_kept()[0].tolist()
    assert read.isfinite().all()


@pytest.mark.parametrize("slots", SLOTS[::3], ids=str)
def test_texts_can_be_repeated_chosen_and_put_in_another_order(slots):
    q, given = tokens(4)
    layer = DmcLayer(slots)
    layer.attend(q[:, :, :16], given.part(0, 16), 0.3)
    whole, other = copy.deepcopy(layer), copy.deepcopy(layer)
    rest = given.part(16)
    wanted = layer.attend(q[:, :, 16:], rest, 0.3)
    whole.reorder_cache(torch.tensor([1, 0]))
    swapped = whole.attend(q[:, :, 16:].flip(0), rest.map(lambda x: x.flip(0)), 0.3)
    torch.testing.assert_close(swapped, wanted.flip(0))
    other.batch_repeat_interleave(2)
    other.batch_select_indices(torch.tensor([1, 2]))
    torch.testing.assert_close(other.attend(q[:, :, 16:], rest, 0.3), wanted)
