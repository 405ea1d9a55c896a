"""GGUF files against the `gguf` library (tensors, metadata) and transformers' own reader (logits)."""

import json

import pytest
import sentencepiece
import tokenizer_cases
import torch
import transformers
from gguf_files import TYPES, byte_level, gguf, pieces, write_model, write_vocabulary
from safetensors.torch import load_file, save_file
from test_families import (LINEAR_ROPE, LLAMA3_ROPE, VOCABULARY, gated, gpt2, random_tokens,
                           relative_error)  # fmt: skip
from test_tokenizer import compare, compare_decoding
from tokenizer_cases import our_ids, place, random_texts, source_texts, train_sentencepiece

WIDE = dict(hidden_size=256, intermediate_size=256, num_hidden_layers=1)
MODELS = {
    "llama-mha": lambda: gated("Llama", num_key_value_heads=4),
    "llama-gqa-tied": lambda: gated("Llama", num_attention_heads=8, tie_word_embeddings=True),
    "llama-wide-heads": lambda: gated("Llama", head_dim=64),
    "llama3-rope": lambda: gated("Llama", rope_parameters=LLAMA3_ROPE
                                 | dict(original_max_position_embeddings=8192)),
    "linear-rope": lambda: gated("Llama", rope_parameters=LINEAR_ROPE),
    "qwen2": lambda: gated("Qwen2"),
    # That library takes the head size of Qwen3 and the context of GPT-2 for these, whatever a file says.
    "qwen3": lambda: gated("Qwen3", head_dim=128, tie_word_embeddings=True),
    "phi3": lambda: gated("Phi3", sliding_window=None),
    "gpt2": lambda: gpt2(n_positions=1024),
    "gpt2-untied": lambda: gpt2(n_inner=80, tie_word_embeddings=False),
}  # fmt: skip


def tiny_model(make):
    torch.manual_seed(0)
    model_class, config = make()
    model = model_class(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def probe(run_probe, path, folder):
    tokens = random_tokens()
    save_file({"tokens": tokens}, folder / "input.safetensors")
    run_probe(path, folder / "input.safetensors", folder)
    return tokens, load_file(folder / "result.safetensors")["logits"]


@pytest.mark.parametrize("name", MODELS)
def test_families(name, tmp_path, run_probe):
    """Tensors equal the library's bit by bit, logits those of the model that the file is made of."""
    model = tiny_model(MODELS[name])
    path = tmp_path / "tiny.gguf"
    numbers = write_model(path, model)
    tokens, logits = probe(run_probe, path, tmp_path)
    ours = load_file(tmp_path / "model" / "model.safetensors")
    assert ours.keys() == numbers.keys()
    for tensor, values in numbers.items():
        assert torch.equal(ours[tensor], torch.tensor(values)), tensor
    with torch.no_grad():
        assert relative_error(logits, model(tokens).logits) < 1e-4


@pytest.mark.parametrize("name", ["llama-mha", "llama-gqa-tied", "qwen2", "qwen3", "gpt2"])
def test_families_as_transformers_reads_them(name, tmp_path, run_probe):
    model = tiny_model(MODELS[name])
    path = tmp_path / "tiny.gguf"
    tokens = [f"t{i}" for i in range(VOCABULARY)]  # that library counts them
    write_model(path, model, "F16", vocabulary=lambda writer: writer.add_token_list(tokens))
    tokens, logits = probe(run_probe, path, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32).eval()  # fmt: skip
    with torch.no_grad():
        assert relative_error(logits, theirs(tokens).logits) < 1e-4


@pytest.mark.parametrize("type_name", TYPES)
def test_types(type_name, tmp_path, run_probe, dmc):
    model = tiny_model(lambda: gated("Llama", **WIDE))
    path = tmp_path / "tiny.gguf"
    numbers = write_model(path, model, type_name)
    probe(run_probe, path, tmp_path)
    ours = load_file(tmp_path / "model" / "model.safetensors")
    for tensor, values in numbers.items():
        assert torch.equal(ours[tensor], torch.tensor(values)), tensor
    done = dmc("inspect", "-m", path, "--check", "--json")
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(done.stdout)["dtypes"]) == sorted({"F32", type_name})


def test_types_in_columns(tmp_path, run_probe):
    """GPT-2's matrices are stored turned: blocks run along what are columns elsewhere."""
    sizes = dict(n_embd=256, n_layer=1, n_inner=256)
    for type_name in ["Q4_1", "Q6_K", "BF16"]:
        model = tiny_model(lambda: gpt2(**sizes))
        path = tmp_path / "tiny.gguf"
        numbers = write_model(path, model, type_name)
        probe(run_probe, path, tmp_path)
        ours = load_file(tmp_path / "model" / "model.safetensors")
        for tensor, values in numbers.items():
            assert torch.equal(ours[tensor], torch.tensor(values)), tensor


BYTE_LEVEL = {
    "gpt-2": tokenizer_cases.gpt2,
    "llama-bpe": tokenizer_cases.llama3,
    "qwen2": tokenizer_cases.qwen2,
    "smollm": tokenizer_cases.star_coder,
}


@pytest.mark.parametrize("pre", BYTE_LEVEL)
def test_byte_level_vocabularies(pre, tmp_path):
    reference = BYTE_LEVEL[pre]()
    if pre == "qwen2":  # files say nothing of how added tokens treat what is around them
        reference = tokenizer_cases.byte_level(
            tokenizer_cases.split_by(tokenizer_cases.QWEN2_PATTERN), tokenizer_cases.normalizers.NFC())
        reference.add_special_tokens(["<|eot|>"])
        reference.add_tokens(["x1", "[MASK]"])
    path = tmp_path / "vocabulary.gguf"
    write_vocabulary(path, byte_level(reference, pre))
    texts = random_texts(3000, seed=11) + source_texts()[:20]
    reference.no_truncation()
    theirs = reference.encode_batch(texts, add_special_tokens=False)
    compare(our_ids(path, texts), [row.ids for row in theirs], texts)
    compare_decoding(path, reference, texts)
    with_bos = our_ids(path, ["x"], "prompt")[0]
    assert with_bos == ([0] if pre == "llama-bpe" else []) + our_ids(path, ["x"])[0]


def test_pieces(tmp_path):
    # As Llama's: files do not say how characters are mapped.
    model = train_sentencepiece(model_type="bpe", byte_fallback=True,
                                normalization_rule_name="identity", remove_extra_whitespaces=False)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    path = tmp_path / "vocabulary.gguf"
    write_vocabulary(path, pieces(processor))
    folder = place(tmp_path / "folder", tokenizer__model=model,
                   tokenizer_config__json=json.dumps({"legacy": False}))  # fmt: skip
    texts = random_texts(3000, seed=12) + source_texts()[:20]
    assert our_ids(path, texts, "prompt") == our_ids(folder, texts, "prompt")
    assert our_ids(path, texts, "plain") == our_ids(folder, texts, "plain")


REFUSED = {
    "an architecture": (lambda w: w.add_uint32("x", 1), "bloom", "expected one of llama"),
    "no keys": (lambda w: None, "llama", "is missing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_named(name, tmp_path, dmc):
    write, architecture, sentence = REFUSED[name]
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    write(writer)
    writer.add_tensor("token_embd.weight", torch.zeros(4, 4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    done = dmc("inspect", "-m", path, "--check")
    assert done.returncode == 3, done.stderr
    assert sentence in done.stderr and "x.gguf" in done.stderr and done.stderr.count("\n") == 1


def test_tensors_without_a_place_are_refused(tmp_path, dmc):
    model = tiny_model(MODELS["llama-mha"])
    path = tmp_path / "x.gguf"
    bias = torch.zeros(64).numpy()
    write_model(path, model, add_tensor=("blk.0.attn_q.bias", bias))
    done = dmc("inspect", "-m", path, "--check")
    assert done.returncode == 3 and "blk.0.attn_q.bias" in done.stderr, done.stderr
