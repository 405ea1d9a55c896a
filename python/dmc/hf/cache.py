"""The compressed cache of one layer, for a batch of texts, as tensors (docs/algorithm.md).

Each (text, KV head) has slots of its own number. What dmc, dms and delayed merging do is one thing:
the newest `delay` tokens are raw, slots of their own; the one that leaves them opens a slot or joins
the newest, which is the mean of its last `window` tokens. With dmc nothing is delayed, with dms a
slot is its newest token alone.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from ..errors import InvalidArgumentError
from ..outputs import KvRecord


@dataclasses.dataclass(frozen=True)
class Slots:
    """How tokens share slots, of a model's dmc_config."""

    delay: int = 0  # newest tokens that are raw
    window: int = 1  # tokens that a slot averages at most; 0: all of them
    newest_weighs_one: bool = True  # in a slot's mean, whatever its importance
    zero_last: bool = False  # the keys' last channel is 0 behind the rotary embedding, too


@dataclasses.dataclass
class Tokens:
    """A layer's tokens of each text: k and v [B, K, T, d], the others [B, K, T], rotations [B, 1, T, d].
    Keys before rotary embedding."""

    k: Tensor
    v: Tensor
    opens: Tensor  # bool: it opens a slot (else it joins the newest)
    weight: Tensor  # float32: its importance
    real: Tensor  # bool: it is no padding
    cos: Tensor
    sin: Tensor

    def map(self, change) -> Tokens:
        return Tokens(*(change(getattr(self, field.name)) for field in dataclasses.fields(self)))

    def part(self, first: int, last: int | None = None) -> Tokens:
        return self.map(lambda x: x[:, :, first:last])

    @property
    def count(self) -> int:
        return self.k.shape[2]


def join(a: Tokens, b: Tokens) -> Tokens:
    parts = (torch.cat([getattr(a, f.name), getattr(b, f.name)], 2) for f in dataclasses.fields(Tokens))
    return Tokens(*parts)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in half-split form."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def pool(past: Tokens, tokens: Tokens, slots: Slots) -> tuple[Tensor, Tensor, Tensor]:
    """At each of `tokens`, behind `past`, the mean of its segment so far: key (not rotated), value and
    weight, in float32."""
    both, first = join(past, tokens), past.count
    weight = tokens.weight if not slots.newest_weighs_one else torch.ones_like(tokens.weight)
    k, v = tokens.k.float() * weight[..., None], tokens.v.float() * weight[..., None]
    alive = torch.ones_like(tokens.opens)
    back = 0
    while back < first + tokens.count - 1 if slots.window == 0 else back < slots.window - 1:
        back += 1
        # Whether the token so far back is in the segment: nobody opened a slot since.
        opened = torch.nn.functional.pad(both.opens, (back, 0), value=True)[:, :, first + 1 :]
        alive = alive & ~opened[:, :, : tokens.count]
        if not alive.any():
            break
        before = both.map(lambda x: _shifted(x, back)[:, :, first:])
        share = before.weight * (alive & before.real)
        weight = weight + share
        k = k + before.k.float() * share[..., None]
        v = v + before.v.float() * share[..., None]
    return k / weight[..., None], v / weight[..., None], weight


def _shifted(x: Tensor, by: int) -> Tensor:
    """x one or more tokens later; zeros come first."""
    kept = max(0, x.shape[2] - by)
    return torch.cat([torch.zeros_like(x[:, :, : x.shape[2] - kept]), x[:, :, :kept]], 2)


class DmcLayer(CacheLayerMixin):
    is_sliding = is_compileable = is_croppable = supports_early_init = False

    def __init__(self, slots: Slots):
        super().__init__()
        self.slots = slots
        self.reset()

    def reset(self) -> None:
        self.seen = 0
        self.keys: Tensor | None = None  # of closed slots and the open one, which is last, rotated
        self.values: Tensor | None = None  # [B, K, slots of the longest head, d]
        self.lengths: Tensor | None = None  # [B, K]
        self.open: Tokens | None = None  # what the open slot averages
        self.raw: Tokens | None = None  # the newest tokens, not in slots yet
        self.is_initialized = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor | None = None) -> None:
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        raise InvalidArgumentError(
            "a compressed cache takes tokens in through the attention of dmc.hf.patch(model); call that first",
            "past_key_values",
        )

    def attend(self, q: Tensor, tokens: Tokens, scaling: float) -> Tensor:
        """Takes tokens in and returns what their queries read: q and the result are [B, H, T, d], q
        rotated."""
        if self.keys is None:
            self._begin(tokens)
        assert self.keys is not None and self.open is not None and self.raw is not None
        late = join(self.raw, tokens)
        joined, raw, old = self._visible(late, tokens.count)
        if self.slots.window == 1:  # a slot is a raw token
            pooled, pooled_v = self._rotated(late.k, late), late.v
            seen, keys, values = [old, joined | raw], [self.keys, pooled], [self.values, pooled_v]
        else:
            self._k, self._v, self._weight = pool(self.open, late, self.slots)
            pooled, pooled_v = self._rotated(self._k, late).to(q.dtype), self._v.to(q.dtype)
            seen, keys, values = [old, joined], [self.keys, pooled], [self.values, pooled_v]
            if self.slots.delay > 0:
                seen, keys, values = [*seen, raw], [*keys, self._rotated(late.k, late)], [*values, late.v]
        out = _attention(q, torch.cat(keys, 2), torch.cat(values, 2), torch.cat(seen, -1), scaling)
        self._keep(pooled, pooled_v, joined[:, :, -1], old[:, :, -1])
        self._end(late)
        self.seen += tokens.count
        self.is_initialized = True
        return out

    def _rotated(self, k: Tensor, at: Tokens) -> Tensor:
        rotated = rotate(k, at.cos.to(k.dtype), at.sin.to(k.dtype))
        if self.slots.zero_last:
            rotated[..., -1] = 0
        return rotated

    def _begin(self, tokens: Tokens) -> None:
        self.raw = tokens.part(0, 0)
        self.open = self.raw.map(lambda x: x.clone())
        self.keys, self.values = self.raw.k, self.raw.v
        self.lengths = torch.zeros(tokens.opens.shape[:2], dtype=torch.long, device=tokens.k.device)

    def _visible(self, late: Tokens, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Which of `late` each of the newest `count` queries sees as slots, and which raw; and which of the
        slots that are there: [B, K, T, ...]."""
        assert self.keys is not None and self.lengths is not None
        query = torch.arange(late.count - count, late.count, device=late.k.device)[:, None]
        token = torch.arange(late.count, device=late.k.device)
        newest = query - self.slots.delay  # that has joined the slots; < 0: none of `late`
        real = late.real[:, :, None]
        # A slot stays when the token behind it opens another; the newest one is there in any case.
        closes = torch.cat([late.opens[:, :, 1:], torch.ones_like(late.opens[:, :, :1])], 2)
        joined = real & ((token == newest) | ((token < newest) & closes[:, :, None]))
        raw = real & (token > newest) & (token <= query)
        # So does the open slot that was there, until the first of them has joined it.
        taken_over = (newest >= 0)[:, 0] & ~late.opens[:, :, :1]
        place = torch.arange(self.keys.shape[2], device=late.k.device)
        is_open = (place == self.lengths[..., None] - 1)[:, :, None]
        there = (place < self.lengths[..., None])[:, :, None]
        return joined, raw, there & ~(is_open & taken_over[..., None])

    def _keep(self, keys: Tensor, values: Tensor, kept: Tensor, kept_old: Tensor) -> None:
        """The slots from now on: those of the old and of the new ones that are kept, moved together."""
        assert self.keys is not None and self.values is not None
        keep = torch.cat([kept_old, kept], -1)
        self.lengths = keep.sum(-1)
        longest = int(self.lengths.max())
        order = torch.argsort((~keep).long(), dim=-1, stable=True)[..., :longest, None]
        order = order.expand(-1, -1, -1, keys.shape[-1])
        self.keys = torch.cat([self.keys, keys], 2).gather(2, order)
        self.values = torch.cat([self.values, values], 2).gather(2, order)

    def _end(self, late: Tokens) -> None:
        """What the open slot averages, and the tokens that are still raw."""
        assert self.open is not None
        joined = max(0, late.count - self.slots.delay)
        self.raw = late.part(joined).map(lambda x: x.contiguous())
        if joined == 0:
            return
        if self.slots.window == 0:
            self.open = self._sum(late, joined - 1)
        elif self.slots.window > 1:
            self.open = join(self.open, late.part(0, joined)).part(-(self.slots.window - 1))
            self.open = self.open.map(lambda x: x.contiguous())

    def _sum(self, late: Tokens, last: int) -> Tokens:
        """The open slot's tokens as one, for a slot that averages all of its tokens."""
        one = late.part(last, last + 1)
        weight = self._weight[:, :, last : last + 1]
        mean_k, mean_v = self._k[:, :, last : last + 1], self._v[:, :, last : last + 1]
        if self.slots.newest_weighs_one:  # it weighs its importance once it is not the newest
            less = one.weight - 1.0
            total = weight + less
            mean_k = (mean_k * weight[..., None] + one.k.float() * less[..., None]) / total[..., None]
            mean_v = (mean_v * weight[..., None] + one.v.float() * less[..., None]) / total[..., None]
            weight = total
        return dataclasses.replace(one, k=mean_k, v=mean_v, weight=weight, opens=torch.ones_like(one.opens))

    # What transformers asks of a layer of a cache.

    def get_seq_length(self, *args, **kwargs) -> int:
        return self.seen

    def get_mask_sizes(self, query_length) -> tuple[int, int]:
        count = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.seen + count, 0

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length  # of older versions

    def crop(self, *args, **kwargs) -> None:
        raise InvalidArgumentError(
            "a compressed cache cannot forget its newest tokens, which may be merged with older ones; "
            "generate without an assistant or prompt lookup, or deepcopy the cache beforehand",
            "past_key_values",
        )

    def _map(self, change) -> None:
        if self.keys is None:
            return
        self.keys, self.values, self.lengths = change(self.keys), change(self.values), change(self.lengths)
        self.open, self.raw = self.open.map(change), self.raw.map(change)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._map(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._map(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._map(lambda x: x[indices.to(x.device)])

    def offload(self) -> None:
        self.device = None if self.keys is None else self.keys.device
        self._map(lambda x: x.to("cpu", non_blocking=True))

    def prefetch(self) -> None:
        if getattr(self, "device", None) is not None:
            self._map(lambda x: x.to(self.device, non_blocking=True))

    def slots_kept(self) -> Tensor:
        """[B, K]"""
        assert self.lengths is not None and self.raw is not None
        return self.lengths + self.raw.real.sum(-1)

    def bytes(self) -> int:
        tensors = [self.keys, self.values]
        for part in [self.open, self.raw]:
            tensors += [part.k, part.v] if part is not None else []
        return sum(x.numel() * x.element_size() for x in tensors if x is not None)


def _attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scaling: float) -> Tensor:
    """q [B, H, T, d]; k, v [B, K, N, d]; seen [B, K, T, N]."""
    batch, heads, count, dim = q.shape
    pairs = k.shape[1]
    bias = torch.zeros(seen.shape, dtype=q.dtype, device=q.device)
    bias.masked_fill_(~seen, torch.finfo(q.dtype).min)  # finite: padding sees nothing, and no NaN
    rows = q.reshape(batch * pairs, heads // pairs, count, dim)
    out = torch.nn.functional.scaled_dot_product_attention(
        rows,
        k.reshape(batch * pairs, 1, -1, dim).expand(-1, rows.shape[1], -1, -1),
        v.reshape(batch * pairs, 1, -1, dim).expand(-1, rows.shape[1], -1, -1),
        attn_mask=bias.reshape(batch * pairs, 1, count, -1),
        scale=scaling,
    )
    return out.reshape(q.shape)


class DmcCache(Cache):
    """A compressed cache for generate(): past_key_values=DmcCache(model.config)."""

    def __init__(self, config):
        from .model import slots_of

        slots = slots_of(config)
        super().__init__(layers=[DmcLayer(slots) for _ in range(config.num_hidden_layers)])

    def record(self, text: int = 0) -> KvRecord:
        """What one text of the batch has in it. Heads of a layer are padded to the longest in memory."""
        layers = [layer for layer in self.layers if layer.keys is not None]
        if not layers:
            raise InvalidArgumentError("the cache is empty", "text")
        slots = torch.stack([layer.slots_kept()[text] for layer in layers]).cpu().numpy()
        size = sum(layer.bytes() for layer in layers) // layers[0].keys.shape[0]
        return KvRecord(int(layers[0].seen), slots, size)

    @property
    def kv(self) -> KvRecord:
        return self.record()
