"""transformers' generate() on compressed caches: the tokens of the C++ program, and of recomputation."""

import json
import pathlib
import shutil

import pytest
import torch

transformers = pytest.importorskip("transformers")
from dmc import hf  # noqa: E402
from dmc.errors import DataError, InvalidArgumentError  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[3]
MODELS = ROOT / "models"
PROMPT = "def read_config(path, default=None):\n"
GREEDY = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}


def load(path):
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def model():
    return load(MODELS / "builtin-4x")


def ids(text):
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(MODELS / "builtin" / "tokenizer.json"))
    return torch.tensor([tokenizer.encode(text)])


def written(model, tokens, count, **options):
    return model.generate(tokens, max_new_tokens=count, **(GREEDY | options))[:, tokens.shape[1] :]


def assert_as_the_program(dmc, path, prompt, count):
    done = dmc("run", "-m", path, "-p", prompt, "-n", count, "--temperature", "0", "--json")
    assert done.returncode == 0, done.stderr
    wanted = json.loads(done.stdout)
    model = load(path)
    cache = dmc_cache(model)
    got = written(model, ids(prompt), count, past_key_values=cache)[0].tolist()
    assert got[: len(wanted["token_ids"])] == wanted["token_ids"]
    if len(wanted["token_ids"]) == count:  # else the program stopped at an end of text
        assert (cache.kv.seen, cache.kv.slots.sum()) == (wanted["tokens"], wanted["slots"])
    return cache.kv


def dmc_cache(model):
    return hf.DmcCache(model.config)


@pytest.mark.parametrize("name", ["builtin-4x", "builtin-dms"])
def test_greedy_text_and_slots_are_those_of_the_program(name, dmc):
    kv = assert_as_the_program(dmc, MODELS / name, (ROOT / "run").read_text()[:700], 40)
    assert kv.ratio > 1.5


def random_model(folder, family, method, adapter):
    """A small model that decides at random."""
    torch.manual_seed(5)
    extra = {"window": 3} | ({"delay": 5} if method == "dmc-delayed" else {})
    source = {"decision_source": "adapter"} if adapter else {"decision_channel": -1}
    config = transformers.AutoConfig.for_model(
        f"dmc_{family}", vocab_size=2048, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=512,
        tie_word_embeddings=False, eos_token_id=0, initializer_range=0.5, sliding_window=None,
    )  # fmt: skip
    config.dmc_config = {
        "format": 1, "method": method, "target_cr": 2.0, "decision_offset": 0.3, "pool_before_rope": True,
        "stage": "finetune", "trained_tokens": 1, "max_trained_length": 512, **extra, **source,
    }  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(MODELS / "builtin" / name, folder)
    return folder


@pytest.mark.parametrize(
    "family, method, adapter",
    [("llama", "dmc", True), ("mistral", "dms", False), ("qwen2", "dmc-delayed", False), ("qwen3", "dms", True)],
)
def test_families_methods_and_adapters_are_those_of_the_program(family, method, adapter, tmp_path, dmc):
    path = random_model(tmp_path, family, method, adapter)
    assert json.loads((path / "config.json").read_text())["model_type"] == f"dmc_{family}"
    kv = assert_as_the_program(dmc, path, PROMPT * 3, 12)
    assert kv.ratio > 1.2


def test_a_second_turn_goes_on_from_the_cache(model):
    cache = dmc_cache(model)
    first = ids(PROMPT)
    turn = torch.cat([first, written(model, first, 8, past_key_values=cache), ids("\nimport os\n")], 1)
    again = written(model, turn, 8, past_key_values=cache)
    assert again.tolist() == written(model, turn, 8, past_key_values=dmc_cache(model)).tolist()
    assert cache.get_seq_length() == turn.shape[1] + 7


def test_without_a_cache_of_ours_one_is_made(model):
    wanted = written(model, ids(PROMPT), 8, past_key_values=dmc_cache(model))
    assert written(model, ids(PROMPT), 8).tolist() == wanted.tolist()
    assert written(model, ids(PROMPT), 8, use_cache=False).tolist() == wanted.tolist()


def test_beams_are_those_of_recomputation(model):
    options = {"num_beams": 3, "num_return_sequences": 3}
    cached = written(model, ids(PROMPT), 6, past_key_values=dmc_cache(model), **options)
    assert cached.tolist() == written(model, ids(PROMPT), 6, use_cache=False, **options).tolist()


def test_several_texts_of_a_prompt_are_drawn(model):
    cache = dmc_cache(model)
    torch.manual_seed(1)
    options = {"do_sample": True, "num_return_sequences": 3, "eos_token_id": None, "pad_token_id": 0}
    texts = model.generate(ids(PROMPT), past_key_values=cache, max_new_tokens=8, **options)
    assert len({tuple(text) for text in texts.tolist()}) == 3
    with torch.no_grad():
        whole = model(texts, use_cache=False).logits[:, -1]
        cached = model(texts[:, -1:], past_key_values=cache).logits[:, -1]
    torch.testing.assert_close(cached, whole, atol=1e-3, rtol=1e-3)
    assert cache.record(0).seen == texts.shape[1]


def test_a_batch_with_padding_is_each_text_alone(model):
    texts = [ids(PROMPT), ids("import ")]
    longest = max(t.shape[1] for t in texts)
    pads = [longest - t.shape[1] for t in texts]
    batch = torch.cat([torch.nn.functional.pad(t, (p, 0)) for t, p in zip(texts, pads)])
    mask = torch.cat([torch.nn.functional.pad(torch.ones_like(t), (p, 0)) for t, p in zip(texts, pads)])
    got = written(model, batch, 8, attention_mask=mask, past_key_values=dmc_cache(model))
    assert got.tolist() == [written(model, t, 8)[0].tolist() for t in texts]


def test_what_a_compressed_cache_cannot_do_is_said(model):
    cache = dmc_cache(model)
    written(model, ids(PROMPT), 2, past_key_values=cache)
    with pytest.raises(InvalidArgumentError, match="cannot forget"):
        cache.crop(-1)
    with pytest.raises(Exception, match="cannot forget|rollback|crop"):
        written(model, ids(PROMPT * 2), 8, past_key_values=dmc_cache(model), prompt_lookup_num_tokens=2, eos_token_id=0)
    full = transformers.DynamicCache()
    dense = load(MODELS / "builtin")
    written(dense, ids(PROMPT), 2, past_key_values=full)
    with pytest.raises(InvalidArgumentError, match="uncompressed"):
        model(ids("x"), past_key_values=full)
    with pytest.raises(InvalidArgumentError, match="not retrofitted"):
        hf.patch(dense)
    with pytest.raises(InvalidArgumentError, match="GPT2"):
        config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=8)
        hf.patch(transformers.GPT2LMHeadModel(config))
    dense.config.dmc_config = {"format": 1, "method": "later"}
    with pytest.raises(DataError, match="later"):
        hf.patch(dense)
