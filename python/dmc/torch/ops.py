"""Differentiable pooling and attention with soft decisions, torch.ops.dmc.* (docs/algorithm.md).

The kernels are those of the C++ trainer, in dmc_torch_ops.so, which is looked for beside this file
or at DMC_TORCH_OPS. On CUDA, and where the library is missing, compose.py computes the same.

Shapes: B sequences, T tokens, H query heads, K KV heads, d head size; query head h reads KV head
h // (H / K). The kernels take f32 and f64; other dtypes are computed in f32 on the CPU."""

from __future__ import annotations

import os
import pathlib

import torch
import torch.nn.functional as F
from torch import Tensor

from . import compose

# A logit of infinity would give a bias of minus infinity, and rows of them NaN; exp(-1e4) is 0.
_LOWEST_BIAS = -1e4


def _load() -> bool:
    path = pathlib.Path(
        os.environ.get("DMC_TORCH_OPS") or pathlib.Path(__file__).with_name("dmc_torch_ops.so")
    )
    if not path.exists():
        if "DMC_TORCH_OPS" in os.environ:
            raise FileNotFoundError(f"DMC_TORCH_OPS: {path} does not exist; name dmc_torch_ops.so")
        return False
    torch.ops.load_library(str(path))
    return True


HAS_KERNELS = _load()


def pool(
    k: Tensor,
    v: Tensor,
    merge_logit: Tensor,
    importance_logit: Tensor,
    window: int,
    newest_weighs_one: bool = False,
) -> tuple[Tensor, Tensor]:
    """Means of k and v [B, T, K, d]: at token t over t - window < j <= t (window 0: all j <= t),
    weighted by omega_j * prod_{j < m <= t} alpha_m, alpha and omega the sigmoids of the logits
    [B, T, K] (DMC, arXiv 2403.09636, equation 7). With newest_weighs_one token t weighs 1 at t."""
    if not _has_kernel(k):
        return compose.pool(k, v, merge_logit, importance_logit, window, newest_weighs_one)
    wide = _wide(k.dtype)
    k_out, v_out, _ = torch.ops.dmc.pool(
        k.to(wide),
        v.to(wide),
        merge_logit.to(wide),
        importance_logit.to(wide),
        window,
        newest_weighs_one,
    )
    return k_out.to(k.dtype), v_out.to(v.dtype)


def decision_attention(q: Tensor, k: Tensor, v: Tensor, logit: Tensor, delay: int = 0) -> Tensor:
    """Causal attention [B, T, H, d] of rotated q [B, T, H, d], k and v [B, T, K, d]: query i sees
    key j with the bias log(1 - sigmoid(logit_{j+1})) if i - j > delay. Delay 0, k and v pooled: DMC
    (arXiv 2403.09636); the delay a window, nothing pooled: DMS (arXiv 2506.05345)."""
    return attend(q, k, v, bias_of(logit), None, None, delay)


def delayed_attention(
    q: Tensor, near: tuple[Tensor, Tensor], far: tuple[Tensor, Tensor], logit: Tensor, delay: int
) -> Tensor:
    """The same with (k, v) that turn into others: query i sees token j's near ones if i - j < delay
    and its far (pooled) ones from then on, with the bias if i - j > delay."""
    return attend(q, *near, bias_of(logit), *far, delay)


def bias_of(logit: Tensor) -> Tensor:
    """[B, T, K]: log(1 - alpha) of the next token's decision; 0 for the last, which has no next."""
    return F.pad(F.logsigmoid(-logit)[:, 1:], (0, 0, 0, 1)).clamp_min(_LOWEST_BIAS)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    far_k: Tensor | None,
    far_v: Tensor | None,
    delay: int,
) -> Tensor:
    """Causal attention with a bias [B, T, K] for keys more than `delay` back, scale d^-0.5."""
    if not _has_kernel(q):
        return compose.attend(q, k, v, bias, far_k, far_v, delay)
    wide = _wide(q.dtype)
    operands = [None if x is None else x.to(wide) for x in (q, k, v, bias, far_k, far_v)]
    return torch.ops.dmc.attend(*operands, delay)[0].to(q.dtype)


def _has_kernel(x: Tensor) -> bool:
    return HAS_KERNELS and x.device.type in ("cpu", "meta")


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _like(x: Tensor | None, or_of: Tensor) -> Tensor:
    return or_of.new_empty(0) if x is None else torch.empty_like(x, memory_format=_DENSE)


_DENSE = torch.contiguous_format


def _register() -> None:
    """What the stable ABI has no words for: shapes without data, and which operator is whose
    gradient."""

    @torch.library.register_fake("dmc::pool")
    def _(k, v, merge_logit, importance_logit, window, newest_weighs_one):
        return _like(k, k), _like(v, k), _like(merge_logit, k)

    @torch.library.register_fake("dmc::pool_backward")
    def _(gk, gv, k, v, merge_logit, importance_logit, k_out, v_out, total, window, newest):
        return tuple(_like(x, k) for x in (k, v, merge_logit, importance_logit))

    @torch.library.register_fake("dmc::attend")
    def _(q, k, v, bias, far_k, far_v, delay):
        return _like(q, q), q.new_empty(q.shape[0], q.shape[2], q.shape[1])

    @torch.library.register_fake("dmc::attend_backward")
    def _(grad, q, k, v, bias, far_k, far_v, out, lse, delay):
        return tuple(_like(x, q) for x in (q, k, v, bias, far_k, far_v))

    # Saved tensors are read once: under activation checkpointing a second look is an error.
    def save_pool(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:4], *output)
        ctx.options = inputs[4:]
        ctx.mark_non_differentiable(output[2])

    def pool_backward(ctx, grad_k, grad_v, _):
        saved = ctx.saved_tensors
        return *torch.ops.dmc.pool_backward(grad_k, grad_v, *saved, *ctx.options), None, None

    def save_attend(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:6], *output)
        ctx.delay = inputs[6]
        ctx.mark_non_differentiable(output[1])

    def attend_backward(ctx, grad, _):
        saved = ctx.saved_tensors
        gradients = torch.ops.dmc.attend_backward(grad, *saved, ctx.delay)
        return *(
            g if x is not None else None for g, x in zip(gradients, saved[:6], strict=True)
        ), None

    torch.library.register_autograd("dmc::pool", pool_backward, setup_context=save_pool)
    torch.library.register_autograd("dmc::attend", attend_backward, setup_context=save_attend)


if HAS_KERNELS:
    _register()
