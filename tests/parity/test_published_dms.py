"""Models of Dynamic Memory Sparsification in the form in which NVIDIA's Model-Optimizer publishes
them, against its attention written down once more in PyTorch, from the paper and its documentation."""

import json
import math
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from test_published_sizes import CONFIGS, shapes_of, write_checkpoint_of_holes
from tokenizer_cases import ROOT, our_ids

torch.set_num_threads(1)  # tiny models
VOCABULARY, HIDDEN, HEADS, GROUPS, LAYERS, D = 2048, 64, 8, 2, 2, 16
SCALE, OFFSET, NEW_TOKENS = 100.0, 5.0, 16
PROMPT = "import os\n\n\ndef read_file(path):\n    with open(path) as file:\n        return "


def qwen3(source):
    """Random; about a third of the tokens is decided against."""
    torch.manual_seed(5)
    config = transformers.Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=GROUPS, head_dim=D, rms_norm_eps=1e-6,
        max_position_embeddings=256, rope_theta=10.0, initializer_range=0.2, eos_token_id=0,
        tie_word_embeddings=False)  # fmt: skip
    model = transformers.Qwen3ForCausalLM(config).eval()
    for layer in model.model.layers:
        attention = layer.self_attn
        for norm in [attention.q_norm, attention.k_norm, layer.input_layernorm]:
            norm.weight.data.uniform_(0.5, 1.5)
        if source == "query":
            attention.q_norm.weight.data[-1] = 0.1
            continue
        attention.dms_proj_alpha_norm = torch.nn.RMSNorm(HIDDEN, eps=1e-6)
        attention.dms_proj_alpha_norm.weight.data.uniform_(0.5, 1.5)
        attention.dms_proj_alpha = torch.nn.Linear(HIDDEN, GROUPS, bias=False)
        attention.dms_proj_alpha.weight.data.normal_(std=0.02)
    return model


def flat_keys(source, window):
    return {"architectures": ["Qwen3ForCausalLMDMS"], "dms_alpha_scale": SCALE,
            "dms_initial_alpha_offset": OFFSET, "dms_window_size": window, "dms_cr": 8,
            "dms_separate_alpha": source == "adapter", "dms_alpha_per": "head", "dms_tau": 0.1,
            "dms_paged_attention_block_size": 256, "auto_map": {"AutoConfig": "x.Qwen3ConfigDMS"},
            "dms_disable_eviction": False, "dms_chunked_prefill": 4096}  # fmt: skip


def set_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(params=["query", "adapter"])
def published(request, tmp_path):
    model, folder = qwen3(request.param), tmp_path / "model"
    model.config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors")
    set_config(folder, **flat_keys(request.param, window=6))
    shutil.copy(ROOT / "models" / "builtin" / "tokenizer.json", folder)
    return request.param, model.double(), folder


def rotate(x, theta=10.0):
    """x [T, heads, D], half-split."""
    half = D // 2
    angles = torch.arange(len(x), dtype=torch.float64)[:, None, None] * theta ** (
        -torch.arange(half, dtype=torch.float64) / half
    )
    low, high = x[..., :half], x[..., half:]
    return torch.cat(
        [low * angles.cos() - high * angles.sin(), high * angles.cos() + low * angles.sin()], -1
    )


def attend(layer, x, window):
    """What attention adds to x [T, hidden], and the number of keys the newest query sees."""
    a, T = layer.self_attn, len(x)
    h = layer.input_layernorm(x)
    q, k, v = (p(h).unflatten(1, (-1, D)) for p in [a.q_proj, a.k_proj, a.v_proj])
    q, k, group = a.q_norm(q), a.k_norm(k), HEADS // GROUPS
    if hasattr(a, "dms_proj_alpha"):
        logits = a.dms_proj_alpha(a.dms_proj_alpha_norm(x))
        q, k = rotate(q), rotate(k)
    else:
        logits = q[:, ::group, -1].clone()
        q[:, ::group, -1] = 0
        q, k = rotate(q), rotate(k)
        q[:, ::group, -1] = 0
    evict = logits * SCALE - OFFSET > 0  # [T, GROUPS]; what t says is about t - 1
    distance = torch.arange(T)[:, None] - torch.arange(T)[None, :]
    out, live = torch.empty_like(q), 0
    for head in range(HEADS):
        said = evict[1:, head // group]
        gone = torch.cat([said, torch.zeros(1, dtype=torch.bool)])[None, :] & (distance > window)
        hidden = (distance < 0) | gone
        scores = q[:, head] @ k[:, head // group].T / math.sqrt(D)
        out[:, head] = scores.masked_fill(hidden, -math.inf).softmax(-1) @ v[:, head // group]
        live += int((~hidden[-1]).sum()) if head % group == 0 else 0
    return a.o_proj(out.flatten(1)), live


def next_token(model, tokens, window):
    x, slots = model.model.embed_tokens(torch.tensor(tokens)), 0
    for layer in model.model.layers:
        delta, live = attend(layer, x, window)
        x, slots = x + delta, slots + live
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.lm_head(model.model.norm(x[-1:]))[0].argmax().item(), slots


def greedy(dmc, folder, *options):
    done = dmc("run", "-m", folder, "-p", PROMPT, "-n", NEW_TOKENS, "--temperature", 0, "--json",
               *options)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@torch.no_grad()
@pytest.mark.parametrize("window", [0, 1, 6, 500])
def test_it_runs_as_published(published, dmc, window):
    _, model, folder = published
    set_config(folder, dms_window_size=window)
    tokens, expected, slots = our_ids(folder, [PROMPT], "prompt")[0], [], 0
    for _ in range(NEW_TOKENS):
        token, slots = next_token(model, tokens + expected, window)
        expected.append(token)
    facts = greedy(dmc, folder)
    assert facts["token_ids"] == expected
    assert facts["tokens"] == len(tokens) + NEW_TOKENS - 1 and facts["slots"] == slots


def test_inspect_says_where_decisions_come_from(published, dmc):
    source, _, folder = published
    done = dmc("inspect", "-m", folder, "--check")
    assert done.returncode == 0, done.stderr
    facts = json.loads(dmc("inspect", "-m", folder, "--json", "--data", ROOT / "docs" / "glossary.md").stdout)["dmc"]
    assert (facts["method"], facts["decision_source"], facts["delay"]) == ("dms", source, 6)


def test_a_copy_in_another_dtype_keeps_the_form(published, dmc, tmp_path):
    source, _, folder = published
    done = dmc("convert", "-m", folder, "-o", tmp_path / "copy", "--dtype", "f32")
    assert done.returncode == 0, done.stderr
    before, after = (json.loads((f / "config.json").read_text()) for f in [folder, tmp_path / "copy"])
    assert {k: v for k, v in after.items() if k != "dtype"} == {
        k: v for k, v in before.items() if k != "dtype"}  # fmt: skip
    tensors = load_file(folder / "model.safetensors")
    copied = load_file(tmp_path / "copy" / "model.safetensors")
    assert tensors.keys() == copied.keys()
    shutil.copy(folder / "tokenizer.json", tmp_path / "copy")
    assert greedy(dmc, tmp_path / "copy")["token_ids"] == greedy(dmc, folder)["token_ids"]


def test_only_an_adapter_can_be_left_out(published, dmc, tmp_path):
    source, _, folder = published
    done = dmc("convert", "-m", folder, "-o", tmp_path / "plain", "--plain")
    if source == "query":
        assert done.returncode == 2 and "dms_window_size" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        config = json.loads((tmp_path / "plain" / "config.json").read_text())
        assert config["architectures"] == ["Qwen3ForCausalLM"] and config["model_type"] == "qwen3"
        assert not [key for key in config if key.startswith("dms_")] and "auto_map" not in config
    done = dmc("retrofit", "-m", folder, "-o", tmp_path / "more", "--data", ROOT / "docs")
    assert done.returncode == 3 and "dms_window_size" in done.stderr


@pytest.mark.parametrize("key,value", [
    ("dms_alpha_per", "layer"), ("dms_disable_eviction", True), ("dms_window_size", -1),
    ("dms_alpha_scale", 0), ("dms_initial_alpha_offset", "five"),
])  # fmt: skip
def test_what_is_not_run_is_refused_by_name(published, dmc, key, value):
    _, _, folder = published
    set_config(folder, **{key: value})
    done = dmc("run", "-m", folder, "-p", "x", "-n", 1)
    assert done.returncode == 3 and key in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("source", ["query", "adapter"])
def test_a_checkpoint_of_the_published_size(source, tmp_path, dmc):
    config = CONFIGS["qwen3-8b"]()
    shapes = shapes_of(config)
    if source == "adapter":
        for i in range(config.num_hidden_layers):
            module = f"model.layers.{i}.self_attn.dms_proj_alpha"
            shapes[f"{module}_norm.weight"] = [config.hidden_size]
            shapes[f"{module}.weight"] = [config.num_key_value_heads, config.hidden_size]
    config.save_pretrained(tmp_path)
    set_config(tmp_path, **flat_keys(source, window=512))
    write_checkpoint_of_holes(tmp_path, shapes)
    done = dmc("inspect", "-m", tmp_path, "--check")
    assert done.returncode == 0, done.stderr
