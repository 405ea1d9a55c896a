#!/usr/bin/env python3
"""Makes a model directory of a DMC checkpoint in Megatron-LM's layout (branch dmc, format torch).

    import_megatron_dmc.py CHECKPOINT OUT --cr 4 [--tokenizer tokenizer.model] [--vocab-size 32000]

CHECKPOINT is the folder that holds mp_rank_00/model_optim_rng.pt and so on (iter_0002000, say). A
checkpoint in the format torch_dist is first written as torch by Megatron's --ckpt-convert-format.
Needs torch, safetensors and numpy. docs/formats.md says what is known of the layout.
"""

import argparse
import collections
import json
import pathlib
import pickle
import shutil
import sys

import torch
from safetensors.torch import save_file

# What a checkpoint's pickle may name; all else of it (enums of Megatron, states of random number
# generators) is of no use here and becomes an object that does nothing.
ALLOWED = {
    ("argparse", "Namespace"): argparse.Namespace,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
}
TORCH_TYPES = ["BFloat16Storage", "HalfStorage", "FloatStorage", "DoubleStorage", "LongStorage",
               "IntStorage", "ShortStorage", "CharStorage", "ByteStorage", "BoolStorage",
               "bfloat16", "float16", "float32", "float64", "int64", "int32", "uint8",
               "bool"]  # fmt: skip


class Ignored:
    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, value):
        pass

    def extend(self, values):
        pass


class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if module == "torch" and name in TORCH_TYPES:
            return getattr(torch, name)
        return ALLOWED.get((module, name), Ignored)


class SafePickle:
    """What torch.load() wants of a pickle module."""

    Unpickler = Unpickler
    load = staticmethod(pickle.load)


def fail(sentence):
    sys.exit(f"import_megatron_dmc: {sentence}")


def read_ranks(folder):
    """The arguments of the run, and the tensors of each tensor-parallel rank."""
    files = sorted(folder.glob("mp_rank_*/model_optim_rng.pt"))
    if not files:
        fail(f"{folder} has no mp_rank_*/model_optim_rng.pt; is it a checkpoint of format torch?")
    safely = dict(map_location="cpu", weights_only=False, pickle_module=SafePickle)
    states = [torch.load(file, **safely) for file in files]
    for file, state in zip(files, states):
        if not isinstance(state.get("args"), argparse.Namespace) or "model" not in state:
            fail(f"{file} has no args or no model (with pipeline parallelism it has several)")
    arguments = states[0]["args"]
    for name in ["pipeline_model_parallel_size", "expert_model_parallel_size"]:
        expect(arguments, name, 1, missing=1)
    expect(arguments, "tensor_model_parallel_size", len(files))
    tensors = [{k: v for k, v in s["model"].items() if torch.is_tensor(v)} for s in states]
    return arguments, tensors


def expect(arguments, name, value, missing=None):
    found = getattr(arguments, name, missing)
    if found != value:
        fail(f"the checkpoint was trained with {name} {found}, expected {value}")


def expect_llama(arguments):
    for name, value in {"swiglu": True, "normalization": "RMSNorm", "rotary_percent": 1.0,
                        "position_embedding_type": "rope", "rotary_interleaved": False,
                        "add_bias_linear": False, "add_qkv_bias": False, "qk_layernorm": False,
                        "apply_layernorm_1p": False}.items():  # fmt: skip
        expect(arguments, name, value, missing=False if value is False else None)


class Reader:
    """Joins what tensor parallelism has split, and takes each tensor once."""

    def __init__(self, ranks):
        self.ranks = ranks

    def parts(self, name):
        for rank in self.ranks:
            if name not in rank:
                fail(f"tensor {name} is missing from the checkpoint")
        return [rank.pop(name) for rank in self.ranks]

    def rows(self, name):
        return torch.cat(self.parts(name))

    def columns(self, name):
        return torch.cat(self.parts(name), dim=1)

    def same(self, *names):
        """A tensor that every rank has, under the first of `names` that there is."""
        name = next((n for n in names if n in self.ranks[0]), names[0])
        return self.parts(name)[0]

    def halves(self, name):
        """Two matrices of which each rank holds some rows, the first one's before the second's."""
        halves = [part.chunk(2) for part in self.parts(name)]
        return torch.cat([h[0] for h in halves]), torch.cat([h[1] for h in halves])

    def left(self):
        return sorted(self.ranks[0])


def split_qkv(fused, groups, heads, d):
    """Rows [group][queries of the group, key, value][d] to the rows of q, of k and of v."""
    rows = fused.reshape(groups, heads // groups + 2, d, -1)
    return [part.flatten(0, 2) for part in (rows[:, :-2], rows[:, -2:-1], rows[:, -1:])]


def read_layer(reader, arguments, layer):
    source, target = f"decoder.layers.{layer}.", f"model.layers.{layer}."
    q, k, v = split_qkv(reader.rows(source + "self_attention.linear_qkv.weight"),
                        arguments.num_query_groups, arguments.num_attention_heads,
                        arguments.kv_channels)  # fmt: skip
    gate, up = reader.halves(source + "mlp.linear_fc1.weight")
    tensors = {
        "self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v,
        "self_attn.o_proj": reader.columns(source + "self_attention.linear_proj.weight"),
        "mlp.gate_proj": gate, "mlp.up_proj": up,
        "mlp.down_proj": reader.columns(source + "mlp.linear_fc2.weight"),
        # Transformer Engine joins a norm with the matrix behind it.
        "input_layernorm": reader.same(source + "self_attention.linear_qkv.layer_norm_weight",
                                       source + "input_layernorm.weight"),
        "post_attention_layernorm": reader.same(source + "mlp.linear_fc1.layer_norm_weight",
                                                source + "pre_mlp_layernorm.weight"),
    }  # fmt: skip
    return {f"{target}{name}.weight": tensor for name, tensor in tensors.items()}


def read_tensors(reader, arguments, vocabulary):
    embedding = reader.rows("embedding.word_embeddings.weight")
    tensors = {"model.embed_tokens.weight": embedding[:vocabulary]}
    for layer in range(arguments.num_layers):
        tensors |= read_layer(reader, arguments, layer)
    tensors["model.norm.weight"] = reader.same("decoder.final_layernorm.weight")
    if arguments.untie_embeddings_and_output_weights:
        tensors["lm_head.weight"] = reader.rows("output_layer.weight")[:vocabulary]
    if reader.left():
        fail(f"tensor {reader.left()[0]} has no place in a Llama model")
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def model_config(arguments, vocabulary, dtype, cr):
    dmc = {
        "format": 1, "method": "dmc", "target_cr": cr, "window": arguments.dmc_window_size,
        "decision_channel": -1, "decision_offset": float(arguments.dmc_init_val),
        "pool_before_rope": True, "stage": "finetune",
        "trained_tokens": int(arguments.consumed_train_samples) * arguments.seq_length,
        "max_trained_length": arguments.seq_length,
        "importance_epsilon": torch.finfo(torch.bfloat16).eps, "zero_after_rope": True,
    }  # fmt: skip
    return {
        "architectures": ["DmcLlamaForCausalLM"], "model_type": "dmc_llama", "vocab_size": vocabulary,
        "hidden_size": arguments.hidden_size, "intermediate_size": arguments.ffn_hidden_size,
        "num_hidden_layers": arguments.num_layers,
        "num_attention_heads": arguments.num_attention_heads,
        "num_key_value_heads": arguments.num_query_groups, "head_dim": arguments.kv_channels,
        "max_position_embeddings": arguments.max_position_embeddings, "hidden_act": "silu",
        "rms_norm_eps": arguments.norm_epsilon,
        "rope_theta": float(getattr(arguments, "rotary_base", 10000)),
        "tie_word_embeddings": not arguments.untie_embeddings_and_output_weights,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": str(dtype).removeprefix("torch."),
        "dmc_config": dmc,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--cr", type=float, required=True, help="ratio it was trained for")
    parser.add_argument("--tokenizer", type=pathlib.Path, help="tokenizer.model to copy")
    parser.add_argument("--vocab-size", type=int, help="without the rows that Megatron pads with")
    options = parser.parse_args()

    arguments, ranks = read_ranks(options.checkpoint)
    expect_llama(arguments)
    if not arguments.group_query_attention:
        arguments.num_query_groups = arguments.num_attention_heads
    padded = arguments.padded_vocab_size
    vocabulary = options.vocab_size or padded
    if not 0 < vocabulary <= padded:
        fail(f"--vocab-size {vocabulary}: the checkpoint has {padded} rows")
    tensors = read_tensors(Reader(ranks), arguments, vocabulary)
    dtype = tensors["model.embed_tokens.weight"].dtype

    options.out.mkdir(parents=True, exist_ok=True)
    config = model_config(arguments, vocabulary, dtype, options.cr)
    save_file(tensors, options.out / "model.safetensors", metadata={"format": "pt"})
    (options.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if options.tokenizer:
        shutil.copy(options.tokenizer, options.out / "tokenizer.model")
    count = sum(tensor.numel() for tensor in tensors.values())
    print(f"the model is in {options.out}: {count:,} parameters", file=sys.stderr)


if __name__ == "__main__":
    main()
