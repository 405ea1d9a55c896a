"""`dmc convert`: what it writes loads in transformers and is the model it should be."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizer_cases import ROOT
from test_families import FAMILIES, random_tokens, relative_error, retrofit, tiny_model

ROOT_TOKENIZER = "models/builtin/tokenizer.json"


def save(model, path):
    model.save_pretrained(path)
    return path


def load(model, path, **options):
    return type(model).from_pretrained(path, **options).eval()


def convert(dmc, model, out, *options):
    done = dmc("convert", "-m", model, "-o", out, *options)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("name", ["llama-gqa", "gpt2"])
@pytest.mark.parametrize("dtype,theirs", [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_dtype(name, dtype, theirs, tmp_path, dmc):
    model = tiny_model(name)
    out = convert(dmc, save(model, tmp_path / "hf"), tmp_path / "out", "--dtype", dtype)
    again = load(model, out)
    assert again.dtype == theirs
    for key, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor.to(theirs)), key
    back = convert(dmc, out, tmp_path / "back")
    assert load_file(back / "model.safetensors").keys() == load_file(out / "model.safetensors").keys()
    assert load(model, back).dtype == theirs, "without --dtype it stays as it is"


def test_shards_with_an_index(tmp_path, dmc):
    model, tokens = tiny_model("qwen2"), random_tokens()
    out = convert(dmc, save(model, tmp_path / "hf"), tmp_path / "out", "--shard-gb", "0.001")
    one_file = {"model.safetensors"}
    assert {p.name for p in out.glob("*.safetensors")} == one_file, "less than a megabyte"
    torch.manual_seed(0)
    wide = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=3000, hidden_size=64, intermediate_size=112,
                                 num_hidden_layers=2, num_attention_heads=4)  # fmt: skip
    ).eval()
    out = convert(dmc, save(wide, tmp_path / "wide"), tmp_path / "shards", "--shard-gb", "0.001")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {p.name for p in out.glob("*.safetensors")}
    assert len(set(index["weight_map"].values())) >= 2
    with torch.no_grad():
        assert torch.equal(load(wide, out)(tokens).logits, wide(tokens).logits)
    again = convert(dmc, out, tmp_path / "joined")
    with torch.no_grad():
        assert torch.equal(load(wide, again)(tokens).logits, wide(tokens).logits)


def test_companion_files_are_copied_byte_for_byte(tmp_path, dmc):
    source = save(tiny_model("llama-gqa"), tmp_path / "hf")
    files = ["tokenizer.json", "merges.txt", "vocab.json", "special_tokens_map.json", "generation_config.json",
             "tokenizer.model"]  # fmt: skip
    for i, name in enumerate(files):
        (source / name).write_bytes(bytes([0, 255, 13, 10, i]))
    out = convert(dmc, source, tmp_path / "out")
    for name in files:
        assert (out / name).read_bytes() == (source / name).read_bytes(), name


def test_json_says_what_was_written(tmp_path, dmc):
    done = dmc("convert", "-m", ROOT / "models" / "builtin-4x", "-o", tmp_path / "out", "--json")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    facts = json.loads(done.stdout)
    assert facts["architecture"] == "DmcLlamaForCausalLM" and facts["parameters"] > 2e6
    assert facts["weight_bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size


@pytest.mark.parametrize("name", ["llama-gqa", "qwen2", "qwen3"])
def test_kv_heads_are_means(name, tmp_path, dmc):
    model, tokens = tiny_model(name), random_tokens()
    out = convert(dmc, save(model, tmp_path / "hf"), tmp_path / "out", "--kv-heads", 1)
    pooled = load(model, out)
    assert pooled.config.num_key_value_heads == 1
    d = pooled.model.layers[0].self_attn.head_dim
    for key in ["model.layers.1.self_attn.k_proj.weight", "model.layers.1.self_attn.v_proj.weight"]:
        before = model.state_dict()[key].reshape(2, d, -1)
        assert torch.allclose(pooled.state_dict()[key], before.mean(0), atol=1e-7)
    with torch.no_grad():
        assert torch.isfinite(pooled(tokens).logits).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_plain_model_is_what_the_dense_policy_runs(name, tmp_path, dmc, run_probe, monkeypatch):
    import test_families

    monkeypatch.setitem(test_families.SHARED_SIZES, "vocab_size", 2048)
    monkeypatch.setitem(test_families.GPT2_SIZES, "vocab_size", 2048)
    model, tokens = tiny_model(name), random_tokens()
    save(model, tmp_path / "hf")
    shutil.copy(test_families.ROOT / ROOT_TOKENIZER, tmp_path / "hf")
    retrofit(tmp_path / "hf", tmp_path / "dmc", test_families.ROOT / "docs" / "algorithm.md")
    out = convert(dmc, tmp_path / "dmc", tmp_path / "out", "--plain")

    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == [type(model).__name__] and "dmc_config" not in config
    save_file({"tokens": tokens}, tmp_path / "input.safetensors")
    with torch.no_grad():
        theirs = load(model, out)(tokens).logits
    # The probe runs a retrofitted model densely, its decision channel set to 0.
    for path in [tmp_path / "dmc", out]:
        run_probe(path, tmp_path / "input.safetensors", tmp_path)
        ours = load_file(tmp_path / "result.safetensors")["logits"]
        assert relative_error(ours, theirs) < 1e-5, path


def test_what_cannot_be_converted(tmp_path, dmc):
    source = save(tiny_model("llama-gqa"), tmp_path / "hf")
    gpt2 = save(tiny_model("gpt2"), tmp_path / "gpt2")
    for arguments, named in [
        (["-m", source, "--kv-heads", 3], "--kv-heads: 3"),
        (["-m", gpt2, "--kv-heads", 2], "--kv-heads: a gpt2"),
        (["-m", source, "--plain"], "--plain"),
        (["-m", tmp_path / "none"], "--model"),
    ]:
        done = dmc("convert", "-o", tmp_path / "out", *arguments)
        assert done.returncode == 2 and named in done.stderr, done.stderr
        assert not (tmp_path / "out").exists()
    done = dmc("convert", "-m", source, "-o", gpt2)
    assert done.returncode == 2 and "--out" in done.stderr
