"""Published models by their true shapes, without their weights: what `dmc plan` counts is what
transformers makes of the config, and a checkpoint of that shape, full of holes, is accepted."""

import collections
import json
import struct

import pytest
import torch
import transformers

SHARD_BYTES = 5_000_000_000
LLAMA3_ROPE = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0,
                   high_freq_factor=4.0, original_max_position_embeddings=8192)  # fmt: skip


def llama(hidden, intermediate, layers, heads, kv_heads, vocabulary=32000, **more):
    return transformers.LlamaConfig(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=vocabulary,
        max_position_embeddings=4096, rms_norm_eps=1e-5, **more)  # fmt: skip


# Hidden size, MLP, layers, heads, KV heads and vocabulary as published.
CONFIGS = {
    "llama-2-7b": lambda: llama(4096, 11008, 32, 32, 32),
    "llama-2-13b": lambda: llama(5120, 13824, 40, 40, 40),
    "llama-2-70b": lambda: llama(8192, 28672, 80, 64, 8),
    "llama-3-8b": lambda: llama(4096, 14336, 32, 32, 8, 128256, rope_theta=500000.0),
    "llama-3.2-1b": lambda: llama(2048, 8192, 16, 32, 8, 128256, tie_word_embeddings=True,
                                  head_dim=64, rope_parameters=LLAMA3_ROPE),
    "smollm2-135m": lambda: llama(576, 1536, 30, 9, 3, 49152, tie_word_embeddings=True),
    "mistral-7b": lambda: transformers.MistralConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=32768, rms_norm_eps=1e-5, sliding_window=None),
    "qwen2.5-7b": lambda: transformers.Qwen2Config(
        hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, vocab_size=152064, rms_norm_eps=1e-6),
    "qwen2.5-0.5b": lambda: transformers.Qwen2Config(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, vocab_size=151936, rms_norm_eps=1e-6, tie_word_embeddings=True),
    "qwen3-8b": lambda: transformers.Qwen3Config(
        hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, vocab_size=151936, rms_norm_eps=1e-6),
    "qwen3-32b": lambda: transformers.Qwen3Config(
        hidden_size=5120, intermediate_size=25600, num_hidden_layers=64, num_attention_heads=64,
        num_key_value_heads=8, head_dim=128, vocab_size=151936, rms_norm_eps=1e-6),
    "phi-4": lambda: transformers.Phi3Config(
        hidden_size=5120, intermediate_size=17920, num_hidden_layers=40, num_attention_heads=40,
        num_key_value_heads=10, vocab_size=100352, rms_norm_eps=1e-5, sliding_window=None,
        pad_token_id=100349, bos_token_id=100257, eos_token_id=100265),
    "gpt2": lambda: transformers.GPT2Config(),
    "gpt2-xl": lambda: transformers.GPT2Config(n_embd=1600, n_layer=48, n_head=25),
    "bert-base": lambda: transformers.BertConfig(is_decoder=True),
    "bert-large": lambda: transformers.BertConfig(
        is_decoder=True, hidden_size=1024, intermediate_size=4096, num_hidden_layers=24,
        num_attention_heads=16),
}  # fmt: skip
BUILT_IN_NAMES = ["llama-2-7b", "llama-2-13b", "llama-2-70b", "llama-3-8b", "llama-3.2-1b",
                  "smollm2-135m", "mistral-7b", "qwen2.5-7b", "qwen2.5-0.5b", "qwen3-8b",
                  "qwen3-32b", "phi-4"]  # fmt: skip


def shapes_of(config):
    """Names and shapes of the parameters, a tied one once, of a model that has no memory."""
    classes = {"bert": transformers.BertLMHeadModel}
    with torch.device("meta"):
        if config.model_type in classes:
            model = classes[config.model_type](config)
        else:
            model = transformers.AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    return {name: list(p.shape) for name, p in model.named_parameters()}


def count(shapes):
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def write_file_of_holes(path, shapes):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)  # the rest takes no disk space


def write_checkpoint_of_holes(folder, shapes):
    shards, filled = collections.defaultdict(dict), 0
    for name, shape in shapes.items():
        shards[f"model-{filled // SHARD_BYTES:05}.safetensors"][name] = shape
        filled += 2 * torch.Size(shape).numel()
    for file, part in shards.items():
        write_file_of_holes(folder / file, part)
    weight_map = {name: file for file, part in shards.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def answer(dmc, *arguments):
    done = dmc(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CONFIGS)
def test_plan_counts_the_parameters(name, tmp_path, dmc):
    config = CONFIGS[name]()
    shapes = shapes_of(config)
    config.save_pretrained(tmp_path)
    plan = answer(dmc, "plan", "-m", tmp_path)
    assert plan["parameters"] == count(shapes)
    assert plan["serving_bytes"]["weights"] == 2 * count(shapes)
    if name in BUILT_IN_NAMES:
        assert answer(dmc, "plan", "-m", name)["parameters"] == count(shapes)


@pytest.mark.parametrize("name", CONFIGS)
def test_checkpoint_of_that_shape(name, tmp_path, dmc):
    config = CONFIGS[name]()
    shapes = shapes_of(config)
    config.save_pretrained(tmp_path)
    write_checkpoint_of_holes(tmp_path, shapes)
    facts = answer(dmc, "inspect", "-m", tmp_path, "--check")
    assert facts["parameters"] == count(shapes)
    assert facts["tensors"] == len(shapes)
    assert facts["bytes"] == 2 * count(shapes)
    assert facts["dtypes"] == ["BF16"]


def test_a_tensor_of_another_shape_is_found(tmp_path, dmc):
    config = CONFIGS["llama-2-70b"]()
    shapes = shapes_of(config)
    config.save_pretrained(tmp_path)
    shapes["model.layers.79.self_attn.k_proj.weight"] = [8192, 8192]  # of 64 KV heads
    write_checkpoint_of_holes(tmp_path, shapes)
    done = dmc("inspect", "-m", tmp_path, "--check")
    assert done.returncode == 3
    assert "model.layers.79.self_attn.k_proj.weight has shape [8192, 8192]" in done.stderr
