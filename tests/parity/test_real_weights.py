"""A trained model of llama2.c: what we write is what transformers writes, token for token.

Needs the files stories260K.bin and tok512.bin; DMC_SHARED names a folder with data/stories260K."""

import json

import llama2c
import pytest
import sentencepiece
import torch
from tokenizer_cases import SHARED, place, our_ids

FOLDER = SHARED / "data" / "stories260K"
NEW_TOKENS = 200
PROMPTS = ["Once upon a time,", "Lily and Ben went to the park", "The sun",
           "“Hello!” said Max — ", "One day, a little fish\nnamed Fin"]  # fmt: skip
DMC = {"format": 1, "method": "dmc", "target_cr": 1.5, "window": 12, "decision_channel": -1,
       "decision_offset": 5.0, "pool_before_rope": True, "stage": "zero-out", "trained_tokens": 0,
       "max_trained_length": 0}  # fmt: skip


@pytest.fixture(scope="module")
def pieces():
    if not FOLDER.exists():
        pytest.skip("stories260K is not at hand (DMC_SHARED: a folder with data/stories260K)")
    return llama2c.read_pieces(FOLDER / "tok512.bin")


@pytest.fixture(scope="module")
def model(pieces):
    torch.set_num_threads(1)  # a model this small is slower on more
    return llama2c.read_model(FOLDER / "stories260K.bin")


def save(model, pieces, folder):
    model.save_pretrained(folder)
    llama2c.transformers_tokenizer(pieces).save_pretrained(folder)
    return folder


def greedy(model, tokenizer, prompt):
    """The ids that transformers chooses behind the prompt, and their text."""
    ids = torch.tensor([tokenizer.encode(prompt)])
    with torch.no_grad():
        chosen = model.generate(ids, do_sample=False, max_new_tokens=NEW_TOKENS)[0]
    whole, shown = tokenizer.decode(chosen[1:]), tokenizer.decode(ids[0, 1:])  # without BOS
    return chosen[ids.shape[1] :].tolist(), whole.removeprefix(shown)


@pytest.fixture(scope="module")
def theirs(model, pieces):
    tokenizer = llama2c.transformers_tokenizer(pieces)
    return {prompt: greedy(model, tokenizer, prompt) for prompt in PROMPTS}


def ours(dmc, folder, prompt, *options):
    greedily = ["-n", NEW_TOKENS, "--temperature", 0, "--json"]
    done = dmc("run", "-m", folder, "-p", prompt, *greedily, *options)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["compression_ratio"] == 1
    return facts["token_ids"], facts["text"]


# Policies that keep every token, by different ways through the cache.
@pytest.mark.parametrize(
    "options",
    [["--policy", "dense"], ["--policy", "dense", "--chunk", "3"],
     ["--policy", "forced", "--force-cr", "1"], ["--policy", "window", "--budget", "512"]],
    ids=" ".join,
)  # fmt: skip
def test_greedy_text(options, model, pieces, theirs, tmp_path, dmc):
    folder = save(model, pieces, tmp_path / "hf")
    for prompt in PROMPTS:
        assert ours(dmc, folder, prompt, *options) == theirs[prompt], prompt


def test_greedy_text_of_decisions_that_merge_nothing(pieces, tmp_path, dmc):
    """A decision channel of 0 is what a retrofit begins with: the model without that channel."""
    model = llama2c.read_model(FOLDER / "stories260K.bin")
    d = model.config.head_dim
    for layer in model.model.layers:
        for matrix in [layer.self_attn.q_proj, layer.self_attn.k_proj]:
            matrix.weight.data.unflatten(0, (-1, d))[:, -1] = 0
    folder = save(model, pieces, tmp_path / "hf")
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["DmcLlamaForCausalLM"], "dmc_config": DMC}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = llama2c.transformers_tokenizer(pieces)
    for prompt in PROMPTS[:3]:
        assert ours(dmc, folder, prompt, "--policy", "dmc") == greedy(model, tokenizer, prompt)


def test_tokenizer_model_gives_sentencepiece_ids(pieces, tmp_path):
    proto = llama2c.sentencepiece_model(pieces)
    place(tmp_path, tokenizer__model=proto)
    reference = sentencepiece.SentencePieceProcessor(model_proto=proto)
    stories = (SHARED / "data" / "tinystories").glob("*.txt")
    lines = [line for file in sorted(stories) for line in file.read_text().splitlines()][:2000]
    texts = PROMPTS + lines
    assert our_ids(tmp_path, texts, "prompt") == reference.encode(texts, add_bos=True)
