"""Pooling and attention with decisions composed of PyTorch's own operators: what runs where there
is no kernel of ours, on CUDA (flex attention; not yet tried on a GPU) and where the operators'
library is missing (matrices of T x T scores).

Shapes: B sequences, T tokens, H query heads, K KV heads, d head size; query head h reads KV head
h // (H / K). Everything is differentiable by autograd."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 64  # tokens whose means are one matrix product


def pool(
    k: Tensor,
    v: Tensor,
    merge_logit: Tensor,
    importance_logit: Tensor,
    window: int,
    newest_weighs_one: bool,
) -> tuple[Tensor, Tensor]:
    """Pooled k and v [B, T, K, d] as ops.pool has them, from k, v and logits [B, T, K].

    A chunk of tokens reaches back to itself and the window before it, so memory is O(T (d +
    window)) for a window above 0."""
    T = k.shape[1]
    chunk = min(T, _CHUNK) if window else T
    back = min(window, T) - 1 if window else 0  # tokens before a chunk that its means reach

    def chunks(x: Tensor) -> Tensor:  # [B, T, K, ...] to [B, chunks, K, ..., back + chunk]
        x = F.pad(x.movedim(1, -1), (back, -T % chunk))
        return x.unfold(-1, back + chunk, chunk).movedim(-2, 1)

    # Differences of long sums of large logarithms lose their digits in f32.
    log_alpha = F.logsigmoid(merge_logit.double())
    log_weight = chunks(F.logsigmoid(importance_logit.double()))  # [B, n, K, back + chunk]
    joined = chunks(log_alpha).cumsum(-1)
    to, of = (
        torch.arange(chunk, device=k.device)[:, None] + back,
        torch.arange(back + chunk, device=k.device),
    )
    age = to - of
    logs = joined[..., back:, None] - joined[..., None, :] + log_weight[..., None, :]
    if newest_weighs_one:
        logs = logs.masked_fill(age == 0, 0.0)
    # Within the window, and not before the first token: padding comes with the first chunk alone.
    start = torch.arange(logs.shape[1], device=k.device)[:, None, None] * chunk
    seen = (age >= 0) & (age <= (back if window else T)) & (start + of - back >= 0)
    weight = logs.masked_fill(~seen[:, None], -math.inf).softmax(-1).to(k.dtype)

    def means(x: Tensor) -> Tensor:
        return torch.einsum("bnkts,bnkds->bntkd", weight, chunks(x)).flatten(1, 2)[:, :T]

    return means(k), means(v)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    far_k: Tensor | None,
    far_v: Tensor | None,
    delay: int,
) -> Tensor:
    """Attention [B, T, H, d] as ops.attend has it, on any device."""
    implementation = _flex if q.is_cuda else _matrices
    return implementation(q, k, v, bias, far_k, far_v, delay)


def _matrices(q, k, v, bias, far_k, far_v, delay):
    T, group = q.shape[1], q.shape[2] // k.shape[2]

    def by_head(x: Tensor) -> Tensor:
        return x.repeat_interleave(group, 2).transpose(1, 2)

    age = torch.arange(T, device=q.device)[:, None] - torch.arange(T, device=q.device)
    far = age >= delay
    scores = q.transpose(1, 2) @ by_head(k).transpose(2, 3)
    if far_k is not None:
        scores = torch.where(far, q.transpose(1, 2) @ by_head(far_k).transpose(2, 3), scores)
    scores = scores * q.shape[-1] ** -0.5
    if bias is not None:
        by_key = bias.to(scores.dtype).repeat_interleave(group, 2).transpose(1, 2)[:, :, None]
        scores = scores + by_key.masked_fill(age <= delay, 0.0)
    weights = scores.masked_fill(age < 0, -math.inf).softmax(-1)
    if far_v is None:
        return (weights @ by_head(v)).transpose(1, 2)
    near = weights.masked_fill(far, 0.0) @ by_head(v)
    return (near + weights.masked_fill(~far, 0.0) @ by_head(far_v)).transpose(1, 2)


@functools.cache
def _compiled_flex():
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


@functools.lru_cache(maxsize=8)
def _block_mask(tokens: int, delay: int, turns: bool, device: torch.device):
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(b, h, i, j):
        age = i - j % tokens
        if not turns:
            return age >= 0
        return torch.where(j < tokens, (age >= 0) & (age < delay), age >= delay)

    keys = 2 * tokens if turns else tokens
    return create_block_mask(seen, None, None, tokens, keys, device=device)


def _flex(q, k, v, bias, far_k, far_v, delay, attention=None):
    """Keys that turn into others at the delay stand twice, near ones first; memory is O(T)."""
    T, group, turns = q.shape[1], q.shape[2] // k.shape[2], far_k is not None
    if turns:
        k, v = torch.cat([k, far_k], 1), torch.cat([v, far_v], 1)
    by_head = None if bias is None else bias.transpose(1, 2).float().contiguous()  # [B, K, T]

    def score(s, b, h, i, j):
        return s + torch.where(i - j % T > delay, by_head[b, h // group, j % T], 0.0)

    out = (attention or _compiled_flex())(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        enable_gqa=group > 1,
        score_mod=None if bias is None else score,
        block_mask=_block_mask(T, delay, turns, q.device),
    )
    return out.transpose(1, 2)
