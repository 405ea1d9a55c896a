"""`dmc convert --weights int8`: files of 8 bits that run as `--weights int8` does, and that
compressed-tensors reads."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_convert import convert, load, save
from test_families import FAMILIES, ROOT, random_tokens, relative_error, tiny_model

ROWS = [name for name in FAMILIES if name != "gpt2"]  # which stores its matrices transposed
MODELS = ROOT / "models"


def answer(dmc, *arguments):
    done = dmc(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [*ROWS, "llama-mqa-tied"])
def test_rows_and_scales(name, tmp_path, dmc):
    model = tiny_model(name)
    out = convert(dmc, save(model, tmp_path / "hf"), tmp_path / "out", "--weights", "int8")
    stored = load_file(out / "model.safetensors")
    linear = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    rounded = {key for key, tensor in stored.items() if tensor.dtype == torch.int8}
    embedding = model.get_input_embeddings().weight
    tied = {f"{n}.weight" for n, m in model.named_modules()
            if isinstance(m, torch.nn.Linear) and m.weight is embedding}  # fmt: skip
    assert rounded == linear - tied
    for key, tensor in model.state_dict().items():
        if key in rounded:
            scale = stored[f"{key}_scale"]
            assert scale.shape == (len(tensor), 1) and scale.dtype == torch.float32
            assert torch.allclose(scale[:, 0], tensor.abs().amax(1) / 127)
            assert ((stored[key] * scale - tensor).abs() <= 0.5001 * scale).all()
        elif key in stored:
            assert torch.equal(stored[key], tensor), key


@pytest.mark.parametrize("name", ["builtin", "builtin-dms"])
def test_runs_with_the_bits_of_rounding_when_loading(name, tmp_path, dmc):
    out = convert(dmc, MODELS / name, tmp_path / "out", "--weights", "int8", "--shard-gb", 0.002)
    assert len(list(out.glob("*.safetensors"))) > 1
    evaluate = ["eval", "--windows", 1, "--length", 256]
    ours = answer(dmc, *evaluate, "-m", out)
    theirs = answer(dmc, *evaluate, "-m", MODELS / name, "--weights", "int8")
    for figure in ["bits_per_byte", "next_token_accuracy", "slots"]:
        assert ours[figure] == theirs[figure]
    before = answer(dmc, "inspect", "-m", MODELS / name, "--check")
    after = answer(dmc, "inspect", "-m", out, "--check")
    assert after["parameters"] == before["parameters"]
    assert "I8" in after["dtypes"] and after["bytes"] < 0.7 * before["bytes"]


def numbers_of(folder):
    """What the file stands for, in f32."""
    stored = load_file(folder / "model.safetensors")
    return {key: tensor * stored[f"{key}_scale"] if tensor.dtype == torch.int8 else tensor
            for key, tensor in stored.items() if not key.endswith("_scale")}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_back_to_floats(name, tmp_path, dmc, run_probe):
    model = tiny_model(name)
    out = convert(dmc, save(model, tmp_path / "hf"), tmp_path / "out", "--weights", "int8")
    back = convert(dmc, out, tmp_path / "back")
    config = json.loads((back / "config.json").read_text())
    assert "quantization_config" not in config and config["dtype"] == "float32"
    floats = load_file(back / "model.safetensors")
    assert all(torch.equal(floats[key], tensor) for key, tensor in numbers_of(out).items())


@pytest.mark.parametrize("name", [*ROWS, "llama-mqa-tied"])
def test_compressed_tensors_reads_it(name, tmp_path, dmc, run_probe):
    pytest.importorskip("compressed_tensors")
    model, tokens = tiny_model(name), random_tokens()
    out = convert(dmc, save(model, tmp_path / "hf"), tmp_path / "out", "--weights", "int8")
    model.load_state_dict(numbers_of(out), strict=False)
    with torch.no_grad():
        wanted = model(tokens).logits
        assert relative_error(load(model, out)(tokens).logits, wanted) < 1e-5
    save_file({"tokens": tokens}, tmp_path / "input.safetensors")
    run_probe(out, tmp_path / "input.safetensors", tmp_path)
    assert relative_error(load_file(tmp_path / "result.safetensors")["logits"], wanted) < 1e-5


def edited(folder, tmp_path, **changes):
    """A copy with other values under quantization_config."""
    copy = shutil.copytree(folder, tmp_path / "edited", dirs_exist_ok=True)
    config = json.loads((copy / "config.json").read_text())
    config["quantization_config"] |= changes
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def test_what_is_refused(tmp_path, dmc):
    done = dmc("convert", "-m", save(tiny_model("gpt2"), tmp_path / "gpt2"), "-o", tmp_path / "x",
               "--weights", "int8")  # fmt: skip
    assert done.returncode == 2 and "--weights: a gpt2" in done.stderr
    source = save(tiny_model("llama-gqa"), tmp_path / "hf")
    out = convert(dmc, source, tmp_path / "out", "--weights", "int8")
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    four_bits = {"group_0": config["config_groups"]["group_0"] | {"weights": {"num_bits": 4}}}
    for changes, named in [
        ({"quant_method": "gptq"}, "gptq"),
        ({"format": "pack-quantized"}, "pack-quantized"),
        ({"config_groups": four_bits}, "num_bits"),
    ]:
        done = dmc("inspect", "--check", "-m", edited(out, tmp_path, **changes))
        assert done.returncode == 3 and named in done.stderr, done.stderr

    stored = load_file(out / "model.safetensors")
    gone = "model.layers.0.mlp.up_proj.weight_scale"
    save_file({key: t for key, t in stored.items() if key != gone}, out / "model.safetensors")
    done = dmc("inspect", "--check", "-m", out)
    assert done.returncode == 3 and gone in done.stderr, done.stderr
