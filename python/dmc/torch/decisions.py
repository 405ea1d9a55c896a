"""Soft decisions in the attention of a Hugging Face model while it is trained
(docs/algorithm.md#training-srctrain-srcops, src/train/decision_training.cpp).

Shapes: L layers, B sequences, T tokens, H query heads, K KV heads, d head size."""

from __future__ import annotations

import types
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from . import ops
from .options import RetrofitOptions
from .schedules import (
    adapted_offset,
    adapted_weight,
    fade,
    logistic_noise,
    merge_fraction,
    ramped_cr,
)

Rotation = Callable[[Tensor], Tensor]
_HARD = 1e4  # a logit whose sigmoid is 1, and that of its negative 0


class Decisions:
    """What the layers of a model share: how they decide now, and what they decided.

    A loop of one's own calls begin_step() before each forward pass (of each part of a batch),
    adds extra_loss() to the loss, and calls end_step() when the optimizer has stepped:

        decisions = retrofit(model, RetrofitOptions(method="dms", cr=4))
        decisions.begin_step("retrofit", step, steps, global_step=step)
        (model(input_ids=x, labels=x).loss + decisions.extra_loss()).backward()
        optimizer.step(); decisions.end_step()
    """

    def __init__(self, options: RetrofitOptions, layers: int, kv_heads: int, seed: int = 1):
        self.options, self.layers, self.kv_heads, self.seed = options, layers, kv_heads, seed
        self.weight = options.compression_weight  # of the compression loss; it adapts
        self.offset = options.offset  # of decisions; it adapts in the finetune stage
        self.first_head = 0  # of this rank's KV heads, with tensor parallelism
        self.data_group: dist.ProcessGroup | None = None  # of ranks that have other rows
        self.head_group: dist.ProcessGroup | None = None  # of ranks that have other heads
        self.stage, self.wanted_cr = "dense", 1.0
        self.decided: Tensor | None = None  # [L, K] of the last part, of all ranks, with noise
        self.served: Tensor | None = None  # the same as the model would decide when used
        self._counts: dict[int, tuple[Tensor, Tensor]] = {}
        self._noises: dict[int, Tensor] = {}
        self._means: list[Tensor] = []  # of each part of the step: [decided, served]

    def begin_step(
        self,
        stage: str,
        step: int,
        steps: int,
        *,
        global_step: int,
        row: int = 0,
        rows_of_batch: int | None = None,
    ) -> None:
        """stage: "zero-out" (the channel fades), "retrofit" (the ratio rises) or "finetune" (it
        stays, and noise fades); "dense": no decisions, "served": those of a model in use.
        row: of the whole batch, the first that the next forward pass has."""
        self.stage, self.step, self.steps, self.global_step = stage, step, steps, global_step
        self.row, self.rows_of_batch = row, rows_of_batch
        self._counts, self._noises = {}, {}
        ramp = stage == "retrofit"
        self.noise = 1.0 if ramp else fade(step, steps)
        target = self.options.cr if stage in ("retrofit", "finetune") else 1.0
        self.wanted_cr = ramped_cr(step, steps, target) if ramp else target

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, said: Tensor | None, rotate: Rotation
    ) -> Tensor:
        """Attention [B, T, H, d] of q [B, T, H, d], k and v [B, T, K, d] before rotary embedding;
        said: what the layer's adapter says [B, T, R], None without one."""
        o, method = self.options, self.options.table
        if self.stage == "dense":
            return ops.attend(rotate(q), rotate(k), v, None, None, None, 0)
        if self.stage == "zero-out":
            left = fade(self.step, self.steps)
            return ops.attend(
                rotate(_faded(q, left)), rotate(_faded(k, left)), v, None, None, None, 0
            )
        logit = self._decide(layer, _wide(k[..., -1]) if said is None else said[..., : k.shape[2]])
        if method.pools:
            weighs = (
                said[..., k.shape[2] :]
                if said is not None
                else _wide(q[..., -1]).unflatten(-1, (k.shape[2], -1)).mean(-1)
            )
            c = o.offset if o.importance_offset is None else o.importance_offset
            importance = weighs * o.decision_scale + c
        if said is None:
            q, k = _faded(q, 0.0), _faded(k, 0.0)
        if not method.pools:
            return ops.decision_attention(rotate(q), rotate(k), v, logit, o.delay)
        pooled_k, pooled_v = ops.pool(k, v, logit, importance, o.window, method.newest_weighs_one)
        if o.delay == 0:
            return ops.decision_attention(rotate(q), rotate(pooled_k), pooled_v, logit)
        return ops.delayed_attention(
            rotate(q), (rotate(k), v), (rotate(pooled_k), pooled_v), logit, o.delay
        )

    def _decide(self, layer: int, decision: Tensor) -> Tensor:
        """Logits [B, T, K] whose sigmoids are alpha, from what the source says; counts them."""
        bare = decision * self.options.decision_scale - self.offset
        if self.stage == "served":
            logit = torch.where(bare > 0, _HARD, -_HARD)
        else:
            logit = (bare + self.noise * self._noise(layer, bare)) / self.options.temperature
        # Under activation checkpointing the backward pass comes here again: what it computes must
        # be the same, and what was counted must stay.
        self._counts.setdefault(
            layer,
            (
                self._fraction(_rounded(logit.sigmoid())),
                self._fraction((bare.detach() > 0).to(bare.dtype)),
            ),
        )
        return logit

    def _noise(self, layer: int, like: Tensor) -> Tensor:
        if self.noise == 0.0:
            return torch.zeros_like(like)
        if layer not in self._noises:
            rows, tokens, heads = like.shape
            whole = logistic_noise(
                self.seed,
                self.global_step,
                layer,
                (self.rows_of_batch or rows, tokens, self.kv_heads),
            )
            self._noises[layer] = whole[
                self.row : self.row + rows, :, self.first_head : self.first_head + heads
            ].to(like)
        return self._noises[layer]

    def _fraction(self, x: Tensor) -> Tensor:
        """[K]: of all tokens, those decided against that are gone when the sequence ends. The first
        token decides about nothing; the last ones are about tokens that are still kept."""
        counted = x[:, 1 : max(x.shape[1] - self.options.delay, 1)]
        self._kept_share = self.options.delay / x.shape[1]
        return counted.sum((0, 1)) / (x.shape[0] * x.shape[1])

    def own_heads(self, said: Tensor, heads: int) -> Tensor:
        """[B, T, R] of all KV heads to that of this rank's, f32."""
        if heads == self.kv_heads:
            return _wide(said)
        of_all = _wide(said).unflatten(-1, (-1, self.kv_heads))
        return of_all[..., self.first_head : self.first_head + heads].flatten(-2)

    def extra_loss(self) -> Tensor:
        """[]: weight * max(0, wanted fraction - counted fraction), DMC equation 8, with each head
        counted up to the cap. Its value is that of the whole batch, its gradient that of this
        rank's rows and heads. A collective; 0 where nothing decides."""
        if not self._counts:
            self.decided = self.served = None
            return torch.zeros(())
        here = torch.stack([self._counts[i][0] for i in range(self.layers)])  # [L, K of this rank]
        served = torch.stack([self._counts[i][1] for i in range(self.layers)])
        both = torch.zeros(2, self.layers, self.kv_heads, dtype=here.dtype, device=here.device)
        mine = slice(self.first_head, self.first_head + here.shape[1])
        both[:, :, mine] = torch.stack([here.detach(), served])
        if self.head_group is not None:
            dist.all_reduce(both, group=self.head_group)
        if self.data_group is not None:
            dist.all_reduce(both, group=self.data_group)
            both /= dist.get_world_size(self.data_group)
        self.decided, self.served = both
        self._means.append(both.mean((1, 2)))
        outside = [both[0][:, : mine.start], both[0][:, mine.stop :]]
        own = both[0][:, mine] + (here - here.detach())
        cap = merge_fraction(self.options.head_cap) * (1.0 - self._kept_share)
        counted = torch.cat([outside[0], own, outside[1]], 1).clamp_max(cap).mean()
        return F.relu(merge_fraction(self.wanted_cr) - counted) * self.weight

    def end_step(self) -> float:
        """Adapts the loss's weight and, in the end, the offset; returns the step's compression
        ratio as served."""
        decided, served = torch.stack(self._means).mean(0).tolist() if self._means else (0.0, 0.0)
        self._means = []
        self.weight = adapted_weight(
            self.weight, self.options.weight_gain, self.wanted_cr, 1.0 / (1.0 - decided)
        )
        cr = 1.0 / (1.0 - served)
        if self.stage == "finetune":
            self.offset = adapted_offset(self.offset, self.options.offset_gain, self.wanted_cr, cr)
        return cr

    def end_of_measure(self) -> None:
        """What was counted since the last step was not for training."""
        self._means = []


def install(model: nn.Module, decisions: Decisions) -> None:
    """Has the attention of each layer ask `decisions`; adds adapters, if they decide."""
    for layer in model.model.layers:
        if decisions.options.decisions == "adapter":
            _add_adapter(layer, model.config, decisions)
        attention = layer.self_attn
        attention._decisions = decisions
        attention.forward = types.MethodType(_attention, attention)


def _add_adapter(layer: nn.Module, config, decisions: Decisions) -> None:
    """W · rms_norm(x) of the residual stream x as it enters the layer; W starts at 0."""
    weight = layer.self_attn.k_proj.weight
    like = {"dtype": weight.dtype, "device": weight.device}
    outputs = decisions.kv_heads * (2 if decisions.options.table.pools else 1)
    layer.self_attn.decision_norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps, **like)
    layer.self_attn.decision_proj = nn.Linear(config.hidden_size, outputs, bias=False, **like)
    nn.init.zeros_(layer.self_attn.decision_proj.weight)

    # Not a hook on the layer: under transformers' activation checkpointing only what lies within a
    # layer runs again. The norm's input is the layer's.
    def remember(_, arguments):
        layer.self_attn.__dict__["_entering"] = arguments[0]

    layer.input_layernorm.register_forward_pre_hook(remember)


def _attention(
    self, hidden_states, position_embeddings=None, attention_mask=None, past_key_values=None, **_
):
    """In the place of Llama's, Mistral's, Qwen2's and Qwen3's attention."""
    if attention_mask is not None or past_key_values is not None:
        raise ValueError(
            "a model in retrofit takes full sequences, without padding and cache: pass "
            "use_cache=False and no attention mask"
        )
    decisions = self._decisions
    q, k, v = (
        projection(hidden_states).unflatten(-1, (-1, self.head_dim))
        for projection in (self.q_proj, self.k_proj, self.v_proj)
    )
    if hasattr(self, "q_norm"):
        q, k = self.q_norm(q), self.k_norm(k)
    cos, sin = (x.unsqueeze(2) for x in position_embeddings)

    def rotate(x: Tensor) -> Tensor:
        low, high = x.chunk(2, -1)
        return (x * cos + torch.cat([-high, low], -1) * sin).to(x.dtype)

    said = None
    if hasattr(self, "decision_proj"):
        entering = self.__dict__.pop("_entering").to(self.decision_proj.weight.dtype)
        if decisions.head_group is not None:
            entering = _SharedByHeads.apply(entering, decisions.head_group)
        said = decisions.own_heads(self.decision_proj(self.decision_norm(entering)), k.shape[2])
    out = decisions.attend(self.layer_idx, q, k, v, said, rotate)
    return self.o_proj(out.flatten(2)), None


class _SharedByHeads(torch.autograd.Function):
    """What all ranks of a group have alike and use for their own heads: its gradient is their
    sum."""

    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        dist.all_reduce(gradient, group=ctx.group)
        return gradient, None


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _faded(x: Tensor, left: float) -> Tensor:
    """x [..., d] with what is left of its last channel."""
    channels = torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)
    channels[-1] = left
    return x * channels


def _rounded(x: Tensor) -> Tensor:
    """To 0 or 1 going forward, the identity going backward (straight-through)."""
    return x + (x.round() - x).detach()
