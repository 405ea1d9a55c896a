"""A real model in a GGUF file, SmolLM2-135M-Instruct, against transformers on the same file.

`./run model smollm2` fetches the file; WikiText-2 comes from DMC_SHARED (data/wikitext-2)."""

import json
import subprocess

import pytest
import torch
import transformers
from conftest import BIN, ROOT
from tokenizer_cases import PUBLISHED, SHARED, our_ids, random_texts, source_texts
from tokenizers import Tokenizer, pre_tokenizers

pytest.importorskip("gguf", reason="pip install -r tools/requirements-test.txt")
FOLDER, FILE = ROOT / "models" / "smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = SHARED / "data" / "wikitext-2" / "valid.txt"
NEW_TOKENS, WINDOW, WINDOWS = 100, 1024, 4
PROMPTS = ["What is the capital of France?", "Write a haiku about the sea.",
           "Explain photosynthesis to a child.", "List three primary colors.",
           "Who wrote Hamlet?", "Give me a recipe for pancakes.",
           "What is 7 times 8?", "Tell me a short story about a dragon.",
           "Why is the sky blue?", "Translate 'good morning' to Spanish."]  # fmt: skip

pytestmark = pytest.mark.skipif(
    not (FOLDER / FILE).exists(), reason="SmolLM2 is not at hand: ./run model smollm2"
)


@pytest.fixture(scope="module")
def model():
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        FOLDER, gguf_file=FILE, dtype=torch.float32)  # fmt: skip
    return loaded.eval()


def losses(tokens, weights):
    done = subprocess.run([BIN / "loss_probe", FOLDER / FILE, weights], capture_output=True, text=True,
                          input="".join(" ".join(map(str, row)) + "\n" for row in tokens))  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.split()]


def test_loss(model):
    if not TEXT.exists():
        pytest.skip(f"{TEXT} is not at hand (DMC_SHARED: a folder with data/wikitext-2)")
    ids = our_ids(FOLDER / FILE, [TEXT.read_text()[:40_000]], "plain")[0]
    tokens = [ids[i * WINDOW : (i + 1) * WINDOW] for i in range(WINDOWS)]
    with torch.no_grad():
        theirs = [model(torch.tensor([row]), labels=torch.tensor([row])).loss.item() for row in tokens]
    assert losses(tokens, "f32") == pytest.approx(theirs, abs=5e-5)
    assert losses(tokens, "stored") == pytest.approx(theirs, abs=1e-3)


def test_token_ids():
    """Those of the published tokenizer.json, with digits one by one, which our copy leaves out and
    the file (tokenizer.ggml.pre smollm) asks for."""
    published = PUBLISHED / "smollm2-hf" / "tokenizer.json"
    if not published.exists():
        pytest.skip(f"{published} is not at hand (DMC_SHARED: a folder with data/tokenizers)")
    reference = Tokenizer.from_file(str(published))
    reference.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])  # fmt: skip
    reference.no_truncation()
    texts = random_texts(3000, seed=13) + source_texts()[:20]
    theirs = reference.encode_batch(texts, add_special_tokens=False)
    assert our_ids(FOLDER / FILE, texts) == [row.ids for row in theirs]


def greedy(model, prompt):
    text = f"""<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
<|im_start|>user
{prompt}<|im_end|>
<|im_start|>assistant
"""
    ids = our_ids(FOLDER / FILE, [text])[0]
    with torch.no_grad():
        chosen = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=NEW_TOKENS)
    return chosen[0, len(ids) :].tolist()


def test_greedy_chat(model, dmc):
    """In f32, as transformers computes: the same text to the end."""
    published = PUBLISHED / "smollm2-hf" / "tokenizer.json"
    if not published.exists():
        pytest.skip(f"{published} is not at hand (DMC_SHARED: a folder with data/tokenizers)")
    tokenizer = Tokenizer.from_file(str(published))
    for prompt in PROMPTS:
        done = dmc("run", "-m", FOLDER / FILE, "--chat", "-p", prompt, "-n", NEW_TOKENS,
                   "--temperature", 0, "--weights", "f32", "--json")  # fmt: skip
        assert done.returncode == 0, done.stderr
        theirs = tokenizer.decode(greedy(model, prompt), skip_special_tokens=True)
        assert json.loads(done.stdout)["text"] == theirs, prompt
