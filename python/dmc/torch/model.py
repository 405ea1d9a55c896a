"""Hugging Face models in and out: retrofit() a model that is there, load one in shards, and export
the directory that `dmc` runs, with the keys and names of `dmc retrofit` (docs/formats.md)."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from .decisions import Decisions, install
from .options import OptionError, RetrofitOptions

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
_LONG_NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
_TEXTS = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
_FILE_BYTES = 5 << 30


def retrofit(
    model: nn.Module, options: RetrofitOptions | None = None, *, length: int = 2048, seed: int = 1
) -> Decisions:
    """Puts decisions into the attention of a LlamaForCausalLM, MistralForCausalLM,
    Qwen2ForCausalLM or Qwen3ForCausalLM, in place; what is returned steers them, and says what to
    add to the loss.

    length: tokens of the sequences that will be trained on. With decisions = "adapter" the model's
    own parameters are frozen, unless train_base. Call it before the model is sharded or
    compiled."""
    options = (options or RetrofitOptions()).resolved(length)
    config = model.config
    if getattr(config, "model_type", None) not in FAMILIES or not hasattr(model, "model"):
        raise OptionError(
            f"model: {type(model).__name__} was given, expected the ForCausalLM of one "
            f"of {', '.join(FAMILIES)}"
        )
    if hasattr(model.model.layers[0].self_attn, "_decisions"):
        raise OptionError("model: it is in retrofit already")
    if options.adapter_alone:
        model.requires_grad_(False)
    decisions = Decisions(options, config.num_hidden_layers, config.num_key_value_heads, seed)
    install(model, decisions)
    config.use_cache = False
    config._attn_implementation = "sdpa"  # which needs no mask
    return decisions


@torch.no_grad()
def clear_decision_channel(model: nn.Module) -> None:
    """The end of the zero-out stage (src/nn/decision_channel.cpp): rows of Wq and Wk become 0;
    where q and k are normed, the norm's weight becomes 1, or neither would get a gradient."""
    for layer in model.model.layers:
        attention = layer.self_attn
        for module in (attention.q_proj, attention.k_proj):
            for x in module.parameters():
                x.mul_(_factors(x, attention.head_dim, 0.0))
        for norm in [attention.q_norm, attention.k_norm] if hasattr(attention, "q_norm") else []:
            others = _factors(norm.weight, attention.head_dim, 0.0)
            norm.weight.copy_(norm.weight * others + (1.0 - others))


def _factors(x: Tensor, head_dim: int, factor: float) -> Tensor:
    """1, but `factor` for the last channel of each head; [rows, 1] or [rows], sharded as x is."""
    factors = torch.ones(x.shape[0], dtype=x.dtype, device=x.device)
    factors[head_dim - 1 :: head_dim] = factor
    factors = factors.view(-1, *[1] * (x.dim() - 1))
    if not isinstance(x, DTensor):
        return factors
    return DTensor.from_local(
        factors, x.device_mesh, [Replicate()] * x.device_mesh.ndim, run_check=False
    )


def build(path: str) -> nn.Module:
    """The model of a Hugging Face directory on the meta device, without numbers, in f32."""
    import transformers

    if not (pathlib.Path(path) / "config.json").is_file():
        raise OptionError(f"model: {path} has no config.json; give a Hugging Face directory")
    config = transformers.AutoConfig.from_pretrained(path)
    if getattr(config, "dmc_config", None) is not None or str(config.model_type).startswith("dmc_"):
        raise OptionError(
            f"model: {path} is retrofitted already; give the dense model, or what "
            "`dmc convert --plain` makes of it"
        )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.tie_weights()  # transformers 5.0 leaves that to whoever loads
    return model


def load_weights(model: nn.Module, path: str, device: torch.device) -> None:
    """Gives a sharded model of build() its memory on `device` and its numbers: each process reads
    the slices that it has. Adapters start as nothing."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load

    model.to_empty(device=device)
    state = {name: x for name, x in named_weights(model) if ".decision_" not in name}
    try:
        load(state, storage_reader=HuggingFaceStorageReader(path))
    except Exception as error:
        raise OptionError(f"model: {path}: {_last_line(error)}") from error
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".decision_" in name:
                parameter.fill_(1.0 if ".decision_norm." in name else 0.0)
    rotary = model.model.rotary_emb  # its buffers are in no file
    model.model.rotary_emb = type(rotary)(model.config).to(device)


def named_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Under the names that a Hugging Face directory has them; a tied head is not there twice."""
    for name, parameter in model.named_parameters(remove_duplicate=True):
        yield name, parameter.detach()


def export(
    model: nn.Module,
    decisions: Decisions,
    source: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    stage: str = "finetune",
    tokens: int = 0,
    length: int = 2048,
    dtype: str = "f32",
) -> None:
    """Writes the directory that `dmc` runs: the model as it is served, its decisions' factor folded
    in. `source`: where its config.json and tokenizer are. Called by all ranks; the first writes, a
    weight at a time."""
    out, first = pathlib.Path(out), not dist.is_initialized() or dist.get_rank() == 0
    if first:
        out.mkdir(parents=True, exist_ok=True)
    files = _Files(out) if first else None
    for name, x in named_weights(model):
        whole = x.full_tensor() if hasattr(x, "full_tensor") else x
        if first:
            files.add(name, _served(name, whole, decisions, model.config).to(DTYPES[dtype]))
    if not first:
        return
    files.finish()
    config = json.loads((pathlib.Path(source) / "config.json").read_text(encoding="utf-8"))
    architecture = type(model).__name__.removeprefix("FSDP")
    config |= {
        "architectures": ["Dmc" + architecture],
        "model_type": "dmc_" + model.config.model_type,
        "tie_word_embeddings": bool(model.config.tie_word_embeddings),
    }
    config["torch_dtype" if "torch_dtype" in config else "dtype"] = _LONG_NAMES[dtype]
    config.pop("quantization_config", None)
    config["dmc_config"] = dmc_config(decisions, stage, tokens, length)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in _TEXTS:
        if (pathlib.Path(source) / name).exists():
            shutil.copyfile(pathlib.Path(source) / name, out / name)


def dmc_config(decisions: Decisions, stage: str, tokens: int, length: int) -> dict:
    """As src/model/config_file.cpp writes it: of methods that pool nothing the window is the
    delay."""
    options = decisions.options
    config = {
        "format": 1,
        "method": options.method,
        "target_cr": options.cr,
        "decision_offset": decisions.offset,
        "pool_before_rope": True,
        "stage": stage,
        "trained_tokens": tokens,
        "max_trained_length": length,
        "window": options.window if options.table.pools else options.delay,
    }
    if options.table.pools and options.delay:
        config["delay"] = options.delay
    importance = options.importance_offset
    if options.table.pools and importance is None:
        importance = options.offset
    if importance is not None and not (options.table.pools and importance == decisions.offset):
        config["importance_offset"] = importance
    source = (
        {"decision_source": "adapter"}
        if options.decisions == "adapter"
        else {"decision_channel": -1}
    )
    return config | source


def _served(name: str, x: Tensor, decisions: Decisions, config) -> Tensor:
    """With the factor on decisions: in the adapter, or in the rows of the decision channel, or,
    where q and k are normed, in the norm's weight, since larger rows would shrink the other
    channels."""
    factor = decisions.options.decision_scale
    if decisions.options.decisions == "adapter":
        return x * factor if name.endswith("decision_proj.weight") else x
    normed = config.model_type == "qwen3"
    parts = ("q_norm.", "k_norm.") if normed else ("q_proj.", "k_proj.")
    if not any("self_attn." + part in name for part in parts):
        return x
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return x * _factors(x, head_dim, factor)


class _Files:
    """safetensors files of at most 5 GiB each, and their index."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.tensors, self.bytes, self.parts = folder, {}, 0, []

    def add(self, name: str, x: Tensor) -> None:
        size = x.numel() * x.element_size()
        if self.tensors and self.bytes + size > _FILE_BYTES:
            self._write()
        self.tensors[name] = x.detach().cpu().contiguous()
        self.bytes += size

    def _write(self) -> None:
        from safetensors.torch import save_file

        path = self.folder / f"part-{len(self.parts)}.safetensors"
        save_file(self.tensors, path, metadata={"format": "pt"})
        self.parts.append((path, list(self.tensors), self.bytes))
        self.tensors, self.bytes = {}, 0

    def finish(self) -> None:
        self._write()
        count, index = len(self.parts), {}
        for i, (path, names, _) in enumerate(self.parts):
            name = (
                f"model-{i + 1:05}-of-{count:05}.safetensors" if count > 1 else "model.safetensors"
            )
            path.replace(self.folder / name)
            index |= dict.fromkeys(names, name)
        if count > 1:
            total = sum(size for _, _, size in self.parts)
            text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2)
            (self.folder / "model.safetensors.index.json").write_text(text + "\n", encoding="utf-8")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
