"""Every model family against transformers', live, on tiny random models in f32."""

import json
import shutil
import subprocess

import pytest
import torch
import transformers
from conftest import BIN, ROOT
from safetensors.torch import load_file, save_file
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY = 96
SHARED_SIZES = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=112,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=256,
    eos_token_id=0,
    bos_token_id=None,
    pad_token_id=None,
    tie_word_embeddings=False,
)
GPT2_SIZES = dict(vocab_size=VOCABULARY, n_embd=64, n_layer=3, n_head=4, n_positions=256, eos_token_id=0, bos_token_id=None)  # fmt: skip
LLAMA3_ROPE = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0,
                   high_freq_factor=4.0, original_max_position_embeddings=64)  # fmt: skip
LINEAR_ROPE = dict(rope_type="linear", rope_theta=10000.0, factor=4.0)


def gated(name, **changes):
    """A family of Llama's kind: its model class and a tiny configuration."""
    config = getattr(transformers, f"{name}Config")
    settings = SHARED_SIZES | dict(num_key_value_heads=2, rms_norm_eps=1e-5) | changes
    return getattr(transformers, f"{name}ForCausalLM"), config(**settings)


def gpt2(**changes):
    return transformers.GPT2LMHeadModel, transformers.GPT2Config(**(GPT2_SIZES | changes))


def bert(**changes):
    settings = SHARED_SIZES | dict(is_decoder=True, tie_word_embeddings=True) | changes
    return transformers.BertLMHeadModel, transformers.BertConfig(**settings)


MODELS = {
    "llama-mha": lambda: gated("Llama", num_key_value_heads=4),
    "llama-gqa": lambda: gated("Llama", num_attention_heads=8),
    "llama-mqa-tied": lambda: gated("Llama", num_key_value_heads=1, tie_word_embeddings=True),
    "llama-wide-heads": lambda: gated("Llama", head_dim=64),
    "llama-theta": lambda: gated("Llama", rope_theta=500000.0),
    "llama3-rope": lambda: gated("Llama", rope_parameters=LLAMA3_ROPE),
    "linear-rope": lambda: gated("Llama", rope_parameters=LINEAR_ROPE),
    "mistral": lambda: gated("Mistral", sliding_window=128),
    "qwen2": lambda: gated("Qwen2"),
    "qwen3": lambda: gated("Qwen3", head_dim=32, tie_word_embeddings=True),
    "phi3": lambda: gated("Phi3", sliding_window=128),
    "gpt2": gpt2,
    "gpt2-untied-gelu": lambda: gpt2(n_inner=80, activation_function="gelu", tie_word_embeddings=False),
    "bert": bert,
}  # fmt: skip
FAMILIES = ["llama-gqa", "llama3-rope", "mistral", "qwen2", "qwen3", "phi3", "gpt2", "bert"]


def tiny_model(name):
    torch.manual_seed(0)
    model_class, config = MODELS[name]()
    model = model_class(config).eval()  # no dropout: ours has none
    for parameter in model.parameters():  # norms are all 1 by default, which would hide errors
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def random_tokens():
    return torch.randint(0, VOCABULARY, (2, 70), generator=torch.Generator().manual_seed(1))


def relative_error(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("name", MODELS)
def test_logits_loss_and_gradients(name, tmp_path, run_probe):
    model, tokens = tiny_model(name), random_tokens()
    model.save_pretrained(tmp_path / "hf")
    save_file({"tokens": tokens}, tmp_path / "input.safetensors")

    run_probe(tmp_path / "hf", tmp_path / "input.safetensors", tmp_path)
    ours = load_file(tmp_path / "result.safetensors")
    theirs = model(tokens, labels=tokens)
    theirs.loss.backward()

    assert relative_error(ours["logits"], theirs.logits) < 1e-4
    assert abs(ours["loss"].item() - theirs.loss.item()) < 1e-4 * theirs.loss.item()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    assert gradients.keys() == ours.keys() - {"logits", "loss"}
    for parameter, gradient in gradients.items():
        assert_same_gradient(ours[parameter], gradient, parameter)


def assert_same_gradient(ours, theirs, name):
    # Softmax does not see what all keys have in common, so the gradient of a bias of k is 0, and
    # what either side computes is rounding; likewise for rows that nothing reads.
    if theirs.norm() < 1e-6:
        assert ours.norm() < 1e-6, name
    else:
        assert relative_error(ours, theirs) < 1e-4, name


@pytest.mark.parametrize("name", [*FAMILIES, "llama-mqa-tied"])
def test_saved_model_loads_in_transformers(name, tmp_path, run_probe):
    model, tokens = tiny_model(name), random_tokens()
    model.save_pretrained(tmp_path / "hf", max_shard_size="100KB")  # several shards and an index
    save_file({"tokens": tokens}, tmp_path / "input.safetensors")

    run_probe(tmp_path / "hf", tmp_path / "input.safetensors", tmp_path)
    again = type(model).from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize(
    "name,part,older",
    [("gpt2", "transformer.", ""), ("bert", "LayerNorm.bias", "LayerNorm.beta"),
     ("bert", "LayerNorm.weight", "LayerNorm.gamma")],
)  # fmt: skip
def test_older_tensor_names(name, part, older, tmp_path, run_probe):
    model, tokens = tiny_model(name), random_tokens()
    model.save_pretrained(tmp_path / "hf")
    path = tmp_path / "hf" / "model.safetensors"
    renamed = {key.replace(part, older): tensor for key, tensor in load_file(path).items()}
    save_file(renamed, path, metadata={"format": "pt"})
    save_file({"tokens": tokens}, tmp_path / "input.safetensors")

    run_probe(tmp_path / "hf", tmp_path / "input.safetensors", tmp_path)
    ours = load_file(tmp_path / "result.safetensors")
    assert relative_error(ours["logits"], model(tokens).logits) < 1e-4


# What the program must not run, and what its sentence must name.
REFUSED = {
    "encoder": (lambda: bert(is_decoder=False), "encoder, which has no KV cache"),
    "relative positions": (lambda: bert(position_embedding_type="relative_key"), "relative_key"),
    "yarn": (
        lambda: gated(
            "Llama", rope_parameters=LINEAR_ROPE | dict(rope_type="yarn", factor=2.0)
        ),
        "yarn",
    ),
    "biases everywhere": (lambda: gated("Llama", attention_bias=True), "attention_bias"),
    "biases in the MLP": (lambda: gated("Llama", mlp_bias=True), "mlp_bias"),
    "another activation": (lambda: gated("Qwen2", hidden_act="relu"), "relu"),
    "scores scaled by layer": (
        lambda: gpt2(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx",
    ),
    "cross attention": (lambda: gpt2(add_cross_attention=True), "add_cross_attention"),
    "another family": (
        lambda: (None, transformers.GPTNeoXConfig(vocab_size=96, hidden_size=64)), "gpt_neox",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_run_is_refused_by_name(name, tmp_path, dmc):
    make, named = REFUSED[name]
    model_class, config = make()
    if model_class is not None:
        config.architectures = [model_class.__name__]
    config.save_pretrained(tmp_path)
    done = dmc("run", "-m", tmp_path, "-p", "x")
    assert done.returncode == 3, done.stderr
    assert named in done.stderr and "config.json" in done.stderr
    assert done.stderr.count("\n") == 1


def test_sliding_window_limits_the_context(tmp_path, dmc):
    model_class, config = gated("Mistral", vocab_size=2048, sliding_window=100)
    model_class(config).save_pretrained(tmp_path)
    shutil.copy(ROOT / "models" / "builtin" / "tokenizer.json", tmp_path)
    done = dmc("run", "-m", tmp_path, "-p", "word " * 200, "-n", 2)
    assert done.returncode == 2 and "context is 100" in done.stderr, done.stderr


def retrofit(model, out, text):
    options = {"-m": model, "-o": out, "--data": text, "--cr": 2, "--batch": 1, "--length": 48,
               "--zero-out-steps": 2, "--steps": 3, "--finetune-steps": 2}  # fmt: skip
    command = [BIN / "dmc", "retrofit", *sum(options.items(), ())]
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FAMILIES)
def test_short_retrofit(name, tmp_path, dmc, monkeypatch):
    """Every family trains through all stages, and what comes out runs compressed and dense."""
    monkeypatch.setitem(SHARED_SIZES, "vocab_size", 2048)  # of the tokenizer it borrows
    monkeypatch.setitem(GPT2_SIZES, "vocab_size", 2048)
    model = tiny_model(name)
    model.save_pretrained(tmp_path / "hf")
    shutil.copy(ROOT / "models" / "builtin" / "tokenizer.json", tmp_path / "hf")
    retrofit(tmp_path / "hf", tmp_path / "out", ROOT / "docs" / "algorithm.md")

    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["Dmc" + type(model).__name__]
    assert config["dmc_config"]["target_cr"] == 2.0
    before = json.loads((tmp_path / "hf" / "config.json").read_text())
    own = {"architectures": config["architectures"], "model_type": "dmc_" + before["model_type"]}
    assert {key: config[key] for key in before} == before | own
    # What does not know the method must not take the model for the family's. (dmc.hf, which other
    # tests of this process import, teaches transformers.)
    monkeypatch.setattr(CONFIG_MAPPING, "_extra_content", {})
    for auto in [transformers.AutoConfig, transformers.AutoModelForCausalLM]:
        with pytest.raises(ValueError, match="dmc_" + before["model_type"]):
            auto.from_pretrained(tmp_path / "out")
    for policy in ["dmc-delayed", "dense"]:
        done = dmc("run", "-m", tmp_path / "out", "-p", "import os", "-n", 5, "--policy", policy)
        assert done.returncode == 0, done.stderr
