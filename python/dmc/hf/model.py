"""The attention of a retrofitted model in transformers, and how such models are loaded."""

from __future__ import annotations

import types

import torch
import transformers
from torch import Tensor, nn

from ..errors import DataError, InvalidArgumentError
from .cache import DmcCache, DmcLayer, Slots, Tokens, rotate

_METHODS = ("dmc", "dms", "dmc-delayed")
_EPSILON = torch.finfo(torch.float32).eps


def dmc_config_of(config) -> dict:
    found = getattr(config, "dmc_config", None)
    if not isinstance(found, dict):
        raise InvalidArgumentError(
            "the model's config.json has no dmc_config: it was not retrofitted (dmc retrofit)", "model"
        )
    if found.get("method") not in _METHODS or found.get("format") != 1:
        raise DataError(
            f"method {found.get('method')!r} of format {found.get('format')!r}, expected one of {', '.join(_METHODS)} "
            "of format 1",
            "dmc_config",
        )
    return found


def slots_of(config) -> Slots:
    dmc = dmc_config_of(config)
    zero_last = bool(dmc.get("zero_after_rope", False))
    if dmc["method"] == "dms":
        return Slots(int(dmc["window"]), 1, True, zero_last)
    delayed = dmc["method"] == "dmc-delayed"
    return Slots(int(dmc["delay"]) if delayed else 0, int(dmc["window"]), delayed, zero_last)


class _Rule:
    """What decides about a token."""

    def __init__(self, config):
        dmc = dmc_config_of(config)
        self.adapter = dmc.get("decision_source", "neuron") == "adapter"
        self.pools = dmc["method"] != "dms"
        self.offset = float(dmc["decision_offset"])
        self.importance_offset = float(dmc.get("importance_offset", self.offset))
        self.epsilon = float(dmc.get("importance_epsilon", _EPSILON))
        self.zero_last = bool(dmc.get("zero_after_rope", False))
        self.slots = slots_of(config)

    def read(self, attention: nn.Module, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of decision and importance, [B, K, T], of q [B, H, T, d] and k [B, K, T, d]."""
        heads = k.shape[1]
        if not self.adapter:
            groups = q[..., -1].unflatten(1, (heads, -1))
            return k[..., -1].float(), groups.float().mean(2)
        residual = attention._dmc_residual
        attention._dmc_residual = None
        said = attention.decision_proj(attention.decision_norm(residual)).float().transpose(1, 2)
        return said[:, :heads], said[:, heads:] if self.pools else torch.zeros_like(said[:, :heads])

    def verdict(self, attention: nn.Module, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each token opens a slot, and its weight."""
        decision, importance = self.read(attention, q, k)
        opens = ~(decision - self.offset > 0)
        if not self.pools:
            return opens, torch.ones_like(decision)
        return opens, torch.sigmoid(importance + self.importance_offset) + self.epsilon


def _real(mask: Tensor | None, batch: int, count: int, device) -> Tensor:
    """Which of the newest tokens are no padding, [B, T], from whatever mask the attention was given."""
    if mask is None:
        return torch.ones(batch, count, dtype=torch.bool, device=device)
    if not isinstance(mask, Tensor):
        raise InvalidArgumentError("flex_attention's masks are not read; use sdpa or eager", "attn_implementation")
    newest = mask[:, -count:] if mask.dim() == 2 else mask[:, 0, -1, -count:]
    real = newest if newest.dtype == torch.bool else (newest > 0 if mask.dim() == 2 else newest == 0)
    return real.expand(batch, count)


def _layer_of(cache, index: int, slots: Slots) -> DmcLayer:
    """The layer's part of a cache. A plain one that generate() made and nothing is in becomes ours."""
    if cache is None:
        return DmcLayer(slots)
    while len(cache.layers) <= index:
        cache.layers.append(DmcLayer(slots))
    layer = cache.layers[index]
    if isinstance(layer, DmcLayer):
        return layer
    if layer.get_seq_length() > 0:
        raise InvalidArgumentError(
            f"{type(cache).__name__} holds an uncompressed text; begin with dmc.hf.DmcCache(model.config)",
            "past_key_values",
        )
    cache.layers[index] = DmcLayer(slots)
    return cache.layers[index]


def _attention(
    self, hidden_states, position_embeddings=None, attention_mask=None, past_key_values=None, past_key_value=None, **_
):
    """In the place of the forward() of LlamaAttention and its like."""
    rule: _Rule = self._dmc
    batch, count = hidden_states.shape[:2]
    q, k, v = (
        projection(hidden_states).view(batch, count, -1, self.head_dim).transpose(1, 2)
        for projection in (self.q_proj, self.k_proj, self.v_proj)
    )
    if hasattr(self, "q_norm"):
        q, k = self.q_norm(q), self.k_norm(k)
    opens, weight = rule.verdict(self, q, k)
    if not rule.adapter:  # attention was trained without the channel that decides
        q = torch.cat([q[..., :-1], torch.zeros_like(q[..., -1:])], -1)
        k = torch.cat([k[..., :-1], torch.zeros_like(k[..., -1:])], -1)
    cos, sin = (x.unsqueeze(1).expand(batch, 1, -1, -1) for x in position_embeddings)
    q = rotate(q, cos, sin)
    if rule.zero_last:
        q = torch.cat([q[..., :-1], torch.zeros_like(q[..., -1:])], -1)
    real = _real(attention_mask, batch, count, q.device)[:, None].expand(opens.shape)
    cache = past_key_values if past_key_values is not None else past_key_value
    layer = _layer_of(cache, self.layer_idx, rule.slots)
    out = layer.attend(q, Tokens(k, v, opens, weight, real, cos, sin), self.scaling)
    return self.o_proj(out.transpose(1, 2).reshape(batch, count, -1)), None


def _keep_residual(layer, args, kwargs):
    """An adapter reads the residual stream as it enters the layer."""
    layer.self_attn._dmc_residual = args[0] if args else kwargs["hidden_states"]


class _RmsNorm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight.float()


class _Projection(nn.Linear):
    """In float32 whatever the other weights are: a decision is a threshold."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.float(), self.weight.float())


def _require_supported(model) -> None:
    layers = getattr(getattr(model, "model", None), "layers", None)
    attention = getattr(layers[0], "self_attn", None) if layers is not None and len(layers) else None
    if not all(hasattr(attention, name) for name in ("q_proj", "k_proj", "v_proj", "o_proj", "scaling", "layer_idx")):
        raise InvalidArgumentError(
            f"{type(model).__name__} is none of the models whose attention is known: Llama, Mistral, Qwen2, Qwen3 "
            "for causal language modelling",
            "model",
        )
    if "sliding_attention" in (getattr(model.config, "layer_types", None) or ()):
        raise InvalidArgumentError("layers with a sliding window cannot be compressed", "model")


def patch(model):
    """Gives a Llama, Mistral, Qwen2 or Qwen3 for causal language modelling, whose config has the dmc_config
    of `dmc retrofit`, attention that compresses; returns it.

    generate() and forward() then compress, with past_key_values=DmcCache(model.config) or without.
    Inference alone: how such models are trained is dmc.torch.
    """
    _require_supported(model)
    rule = _Rule(model.config)
    for layer in model.model.layers:
        attention = layer.self_attn
        if hasattr(attention, "_dmc"):
            continue
        attention._dmc = rule
        attention._dmc_residual = None
        attention.forward = types.MethodType(_attention, attention)
        if rule.adapter:
            _add_adapter(layer, model.config, rule)
    return model


def _add_adapter(layer: nn.Module, config, rule: _Rule) -> None:
    attention, width = layer.self_attn, config.hidden_size
    outputs = config.num_key_value_heads * (2 if rule.pools else 1)
    attention.decision_norm = _RmsNorm(width, config.rms_norm_eps)
    attention.decision_proj = _Projection(width, outputs, bias=False)
    like = attention.q_proj.weight
    attention.decision_norm.to(device=like.device, dtype=like.dtype)
    attention.decision_proj.to(device=like.device, dtype=like.dtype)
    layer.register_forward_pre_hook(_keep_residual, with_kwargs=True)


def _register(base_config, base_model) -> None:
    """The model_type that `dmc retrofit` writes, so that the Auto classes read it."""
    name = f"dmc_{base_config.model_type}"
    config_class = type(f"Dmc{base_config.__name__}", (base_config,), {"model_type": name, "__module__": __name__})

    def __init__(self, config, *args, **kwargs):
        base_model.__init__(self, config, *args, **kwargs)
        patch(self)

    body = {"__init__": __init__, "config_class": config_class, "__module__": __name__}
    model_class = type(f"Dmc{base_model.__name__}", (base_model,), body)
    globals()[config_class.__name__], globals()[model_class.__name__] = config_class, model_class
    transformers.AutoConfig.register(name, config_class, exist_ok=True)
    transformers.AutoModelForCausalLM.register(config_class, model_class, exist_ok=True)


for _family in ("Llama", "Mistral", "Qwen2", "Qwen3"):
    _register(getattr(transformers, f"{_family}Config"), getattr(transformers, f"{_family}ForCausalLM"))

__all__ = ["DmcCache", "dmc_config_of", "patch", "slots_of"]
