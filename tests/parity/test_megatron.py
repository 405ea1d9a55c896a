"""tools/import_megatron_dmc.py on a checkpoint made here in Megatron's layout, and what the result
computes against DMC's inference in the published code, written down once more in PyTorch."""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import types

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizer_cases import ROOT, our_ids

OFFSET, WINDOW, EPSILON = 5.0, 12, torch.finfo(torch.bfloat16).eps
VOCABULARY, PADDED = 2048, 2176
HEADS, GROUPS, LAYERS, D, HIDDEN, MLP, THETA = 8, 4, 2, 16, 64, 96, 10.0
PROMPT = "import os\n\n\ndef read_file(path):\n    with open(path) as file:\n        return "


def llama():
    """Random, with decisions: about half of the keys have their last channel above the offset."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=MLP, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=GROUPS, head_dim=D, rms_norm_eps=1e-5,
        max_position_embeddings=256, rope_theta=THETA, initializer_range=0.2)  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    for layer in model.model.layers:
        layer.self_attn.k_proj.weight.data.unflatten(0, (-1, D))[:, -1] *= 20
    return model


def megatron_ranks(model, ranks):
    """The tensors of each tensor-parallel rank, named as by GPTModel with Transformer Engine."""
    state = model.state_dict()
    shards = [{} for _ in range(ranks)]

    def put(name, parts):
        for shard, part in zip(shards, parts, strict=True):
            shard[name] = part.contiguous() if torch.is_tensor(part) else part

    padding = torch.randn(PADDED - VOCABULARY, HIDDEN)
    tables = {"embedding.word_embeddings": "model.embed_tokens", "output_layer": "lm_head"}
    norms = {"self_attention.linear_qkv": "input_layernorm",
             "mlp.linear_fc1": "post_attention_layernorm"}  # fmt: skip
    for name, own in tables.items():
        put(f"{name}.weight", torch.cat([state[f"{own}.weight"], padding]).chunk(ranks))
    put("decoder.final_layernorm.weight", [state["model.norm.weight"]] * ranks)
    for i in range(LAYERS):
        to, own = f"decoder.layers.{i}.", f"model.layers.{i}."
        qkv = [state[f"{own}self_attn.{x}_proj.weight"].reshape(GROUPS, -1, HIDDEN) for x in "qkv"]
        fused = torch.cat(qkv, 1).flatten(0, 1)
        put(to + "self_attention.linear_qkv.weight", fused.chunk(ranks))
        gate, up = (state[f"{own}mlp.{x}_proj.weight"].chunk(ranks) for x in ["gate", "up"])
        put(to + "mlp.linear_fc1.weight", [torch.cat(pair) for pair in zip(gate, up)])
        for name, ours in {"self_attention.linear_proj": "self_attn.o_proj",
                           "mlp.linear_fc2": "mlp.down_proj"}.items():  # fmt: skip
            put(f"{to}{name}.weight", state[f"{own}{ours}.weight"].chunk(ranks, 1))
        for name, ours in norms.items():
            put(f"{to}{name}.layer_norm_weight", [state[f"{own}{ours}.weight"]] * ranks)
            put(f"{to}{name}._extra_state", [None] * ranks)
    return shards


def arguments(ranks, **changes):
    return argparse.Namespace(**({
        "num_layers": LAYERS, "hidden_size": HIDDEN, "ffn_hidden_size": MLP,
        "num_attention_heads": HEADS, "num_query_groups": GROUPS, "group_query_attention": True,
        "kv_channels": D, "max_position_embeddings": 256, "seq_length": 256,
        "norm_epsilon": 1e-5, "rotary_base": THETA, "rotary_percent": 1.0, "swiglu": True,
        "normalization": "RMSNorm", "position_embedding_type": "rope", "rotary_interleaved": False,
        "add_bias_linear": False, "add_qkv_bias": False, "qk_layernorm": False,
        "apply_layernorm_1p": False, "untie_embeddings_and_output_weights": True,
        "padded_vocab_size": PADDED, "tensor_model_parallel_size": ranks,
        "pipeline_model_parallel_size": 1, "consumed_train_samples": 1000,
        "dmc_window_size": WINDOW, "dmc_init_val": OFFSET, "params_dtype": torch.float32,
    } | changes))  # fmt: skip


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile",)


def write_checkpoint(model, folder, monkeypatch, ranks=2, **changes):
    # A class of Megatron's own, which the reader does not have.
    enums = types.ModuleType("megatron_enums")
    enums.ModelType = type("ModelType", (), {"__module__": "megatron_enums"})
    monkeypatch.setitem(sys.modules, "megatron_enums", enums)
    args = arguments(ranks, model_type=enums.ModelType(), **changes)
    for rank, shard in enumerate(megatron_ranks(model, ranks)):
        (folder / f"mp_rank_{rank:02}").mkdir(parents=True)
        state = {"args": args, "checkpoint_version": 3.0, "iteration": 2000, "model": shard,
                 "rng_state": [Hostile()]}  # fmt: skip
        torch.save(state, folder / f"mp_rank_{rank:02}" / "model_optim_rng.pt")
    return folder


def convert(folder, out, *options):
    tool = ROOT / "tools" / "import_megatron_dmc.py"
    return subprocess.run([sys.executable, tool, folder, out, "--cr", "2", *map(str, options)],
                          capture_output=True, text=True, cwd=folder)  # fmt: skip


@pytest.fixture
def imported(tmp_path, monkeypatch):
    model = llama()
    folder = write_checkpoint(model, tmp_path / "iter_0002000", monkeypatch)
    done = convert(folder, tmp_path / "out", "--vocab-size", VOCABULARY)
    assert done.returncode == 0, done.stderr
    assert not (folder / "hostile").exists()
    shutil.copy(ROOT / "models" / "builtin" / "tokenizer.json", tmp_path / "out")
    return model, tmp_path / "out"


def test_every_tensor_is_where_it_belongs(imported):
    model, out = imported
    tensors, state = load_file(out / "model.safetensors"), model.state_dict()
    assert tensors.keys() == state.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, state[name]), name


def rotate(x, position):
    """The published code's rotation: half-split, and its last channel is 0 afterwards."""
    half = D // 2
    angles = position * THETA ** (-torch.arange(half, dtype=torch.float64) / half)
    low, high = x[:half], x[half:]
    cos, sin = angles.cos(), angles.sin()
    out = torch.cat([low * cos - high * sin, high * cos + low * sin])
    out[-1] = 0
    return out


def attend(q, k, v):
    """q [T, H, D], k and v [T, G, D] as projected: [T, H, D]."""
    out = torch.zeros_like(q)
    for group in range(GROUPS):
        heads = range(group * HEADS // GROUPS, (group + 1) * HEADS // GROUPS)
        slots, segment = [], []
        for t in range(len(q)):
            merge = t > 0 and k[t, group, -1] - OFFSET > 0
            importance = torch.sigmoid(q[t, list(heads), -1].mean() + OFFSET) + EPSILON
            key = torch.cat([k[t, group, :-1], torch.zeros(1, dtype=k.dtype)])
            segment = [*(segment if merge else []), (importance, key, v[t, group])][-WINDOW:]
            total = sum(w for w, _, _ in segment)
            pooled = [sum(w * x[i] for w, *x in segment) / total for i in range(2)]
            slot = (rotate(pooled[0], t), pooled[1])
            slots = slots[:-1] + [slot] if merge else [*slots, slot]
            for head in heads:
                query = rotate(torch.cat([q[t, head, :-1], torch.zeros(1, dtype=q.dtype)]), t)
                scores = torch.stack([query @ key for key, _ in slots]) / math.sqrt(D)
                out[t, head] = scores.softmax(0) @ torch.stack([value for _, value in slots])
    return out


def next_token(model, tokens):
    x = model.model.embed_tokens(torch.tensor(tokens))
    for layer in model.model.layers:
        h, a = layer.input_layernorm(x), layer.self_attn
        q, k, v = (p(h).unflatten(1, (-1, D)) for p in [a.q_proj, a.k_proj, a.v_proj])
        x = x + a.o_proj(attend(q, k, v).flatten(1))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.lm_head(model.model.norm(x[-1:]))[0].argmax().item()


def greedy(dmc, folder, count):
    done = dmc("run", "-m", folder, "-p", PROMPT, "-n", count, "--temperature", 0, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@torch.no_grad()
def test_it_runs_as_the_published_inference_does(imported, dmc):
    model, out = imported
    model = model.double()
    tokens = our_ids(out, [PROMPT], "prompt")[0]
    expected = []
    for _ in range(12):
        expected.append(next_token(model, tokens + expected))
    facts = greedy(dmc, out, len(expected))
    assert facts["token_ids"] == expected
    assert facts["compression_ratio"] > 1.3

    # The test would notice a rotation that leaves something in the last channel.
    config = json.loads((out / "config.json").read_text())
    config["dmc_config"]["zero_after_rope"] = False
    (out / "config.json").write_text(json.dumps(config))
    assert greedy(dmc, out, len(expected))["token_ids"] != expected


def test_it_is_not_exported_or_trained(imported, dmc, tmp_path):
    _, out = imported
    done = dmc("convert", "-m", out, "-o", tmp_path / "plain", "--plain")
    assert done.returncode == 2 and "zero_after_rope" in done.stderr
    done = dmc("retrofit", "-m", out, "-o", tmp_path / "more", "--data", ROOT / "docs")
    assert done.returncode == 3 and "zero_after_rope" in done.stderr
    kept = dmc("convert", "-m", out, "-o", tmp_path / "bf16", "--dtype", "bf16")
    assert kept.returncode == 0, kept.stderr
    config = json.loads((tmp_path / "bf16" / "config.json").read_text())
    assert config["dmc_config"]["zero_after_rope"] is True
    assert config["dmc_config"]["importance_epsilon"] == EPSILON


@pytest.mark.parametrize("changes,named", [
    ({"swiglu": False}, "swiglu"), ({"rotary_percent": 0.5}, "rotary_percent"),
    ({"pipeline_model_parallel_size": 2}, "pipeline_model_parallel_size"),
])  # fmt: skip
def test_what_is_not_llama_is_refused(changes, named, tmp_path, monkeypatch):
    folder = write_checkpoint(llama(), tmp_path / "iter", monkeypatch, **changes)
    done = convert(folder, tmp_path / "out")
    assert done.returncode == 1 and named in done.stderr
    assert done.stderr.count("\n") == 1
