"""Our tokenizers against the libraries that models are published for: the same ids for random
Unicode and real text, and texts back from ids.

Together the tests compare 100,000 random strings. Vocabularies are trained here on this project's
sources; published ones are read where DMC_SHARED names a folder with data/tokenizers."""

import base64
import json
import unicodedata

import pytest
import sentencepiece
import tiktoken
from tokenizer_cases import (LLAMA3_PATTERN, PUBLISHED, QWEN2_PATTERN, ROOT, SENTENCEPIECE, TRAINED,
                             byte_level_from, our_ids, our_texts, place, random_texts, source_texts,
                             train_sentencepiece)  # fmt: skip
from tokenizers import Tokenizer


def published(*names):
    for name in names:
        if not (PUBLISHED / name).exists():
            pytest.skip(f"{name} is not at hand (DMC_SHARED: a folder with data/tokenizers)")
    return [PUBLISHED / name for name in names]


def compare(ours, theirs, texts):
    for text, a, b in zip(texts, ours, theirs, strict=True):
        assert a == b, repr(text)


def compare_with_tokenizers(folder, reference, texts):
    def theirs(add_special_tokens):
        rows = reference.encode_batch(texts, add_special_tokens=add_special_tokens)
        return [row.ids for row in rows]

    reference.no_truncation()
    compare(our_ids(folder, texts), theirs(False), texts)
    compare(our_ids(folder, texts, "prompt"), theirs(True), texts)


def compare_decoding(folder, reference, texts):
    """Texts whose bytes no two libraries read differently: what encode() gives, and streams."""
    ids = [row.ids for row in reference.encode_batch(texts, add_special_tokens=False)]
    ours = our_texts(folder, ids)
    compare(ours, reference.decode_batch(ids, skip_special_tokens=False), texts)
    compare(our_texts(folder, ids, "stream"), ours, texts)


@pytest.mark.parametrize("make", TRAINED, ids=lambda make: make.__name__)
def test_trained_here(make, tmp_path):
    reference = make()
    reference.save(str(tmp_path / "tokenizer.json"))
    # What BERT takes for punctuation comes from a table of Unicode 8 in that library.
    known = unicodedata.ucd_3_2_0 if "bert" in make.__name__ else unicodedata
    texts = random_texts(6000, seed=1, known=known)
    compare_with_tokenizers(tmp_path, reference, texts + source_texts()[:20])
    compare_decoding(tmp_path, reference, texts)


def test_builtin():
    folder = ROOT / "models" / "builtin"
    texts = random_texts(6000, seed=2) + source_texts()
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    compare_with_tokenizers(folder, reference, texts)
    compare_decoding(folder, reference, texts)


def test_special_tokens_as_text():
    folder = ROOT / "models" / "builtin"
    texts = random_texts(2000, seed=3)
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    reference.encode_special_tokens = True
    theirs = [row.ids for row in reference.encode_batch(texts, add_special_tokens=False)]
    compare(our_ids(folder, texts, "plain"), theirs, texts)


@pytest.mark.parametrize("name", ["gpt2-hf", "smollm2-hf"])
def test_published_tokenizer_json(name):
    (file,) = published(f"{name}/tokenizer.json")
    texts = random_texts(4000, seed=4) + source_texts()
    reference = Tokenizer.from_file(str(file))
    compare_with_tokenizers(file.parent, reference, texts)
    compare_decoding(file.parent, reference, texts)


def compare_with_sentencepiece(folder, model, texts):
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    theirs = reference.encode(texts)
    compare(our_ids(folder, texts, "plain"), theirs, texts)
    # Unknown pieces print as themselves here; a "▁" of the text reads as a space.
    plain = [i for i, ids in enumerate(theirs)
             if reference.unk_id() not in ids and "▁" not in texts[i]]  # fmt: skip
    kept = [theirs[i] for i in plain]
    compare(our_texts(folder, kept), [reference.decode(ids) for ids in kept],
            [texts[i] for i in plain])  # fmt: skip


@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_sentencepiece_trained_here(name, tmp_path):
    model = train_sentencepiece(**SENTENCEPIECE[name])
    place(tmp_path, tokenizer__model=model)
    compare_with_sentencepiece(tmp_path, model, random_texts(4000, seed=5) + source_texts()[:20])


@pytest.mark.parametrize(
    "name", ["llama2/tokenizer.model", "llama2c-tok4096/tokenizer4096.model"]
)
def test_published_sentencepiece(name, tmp_path):
    (file,) = published(name)
    place(tmp_path, tokenizer__model=file)
    texts = random_texts(4000, seed=6) + source_texts()
    compare_with_sentencepiece(tmp_path, file.read_bytes(), texts)
    with_bos = our_ids(tmp_path, ["x"], "prompt")[0]
    assert with_bos == [1, *our_ids(tmp_path, ["x"])[0]]


def tiktoken_ranks(file):
    lines = [line.split() for line in file.read_bytes().splitlines() if line]
    return {base64.b64decode(token): int(rank) for token, rank in lines}


@pytest.mark.parametrize(
    ("name", "pattern", "tokenizer_class"),
    [("llama3/tokenizer.model", LLAMA3_PATTERN, ""),
     ("qwen/qwen.tiktoken", QWEN2_PATTERN, "QWenTokenizer")],
)  # fmt: skip
def test_published_tiktoken(name, pattern, tokenizer_class, tmp_path):
    (file,) = published(name)
    config = json.dumps({"tokenizer_class": tokenizer_class})
    place(tmp_path, tokenizer__model=file, tokenizer_config__json=config)
    reference = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=tiktoken_ranks(file),
                                  special_tokens={})  # fmt: skip
    texts = random_texts(4000, seed=7) + source_texts()
    if tokenizer_class:  # it composes characters before it looks for tokens
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    compare(our_ids(tmp_path, texts, "plain"), [reference.encode_ordinary(t) for t in texts], texts)


def test_llama3_special_tokens(tmp_path):
    (file,) = published("llama3/tokenizer.model")
    place(tmp_path, tokenizer__model=file)
    text = "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|><|reserved_special_token_250|>"
    assert our_ids(tmp_path, [text], "prompt")[0] == [
        128000, 128006, 882, 128007, 271, 6151, 128009, 128255]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tokenizer_class"), [("gpt2", ""), ("llama3.2-ollama", "Llama3Tokenizer")]
)
def test_published_vocab_and_merges(name, tokenizer_class, tmp_path):
    """The same files through the `tokenizers` library, by way of a tokenizer.json."""
    vocab, merges = published(f"{name}/encoder.json", f"{name}/vocab.bpe")
    config = json.dumps({"tokenizer_class": tokenizer_class})
    folder = place(tmp_path / "x", vocab__json=vocab, merges__txt=merges,
                   tokenizer_config__json=config)  # fmt: skip
    reference = byte_level_from(vocab, merges, LLAMA3_PATTERN if tokenizer_class else None)
    texts = random_texts(4000, seed=8) + source_texts()
    theirs = [row.ids for row in reference.encode_batch(texts, add_special_tokens=False)]
    compare(our_ids(folder, texts, "plain"), theirs, texts)


def test_which_file_counts(tmp_path):
    """tokenizer.json before tokenizer.model before vocab.json with merges.txt."""
    builtin = ROOT / "models" / "builtin" / "tokenizer.json"
    model = train_sentencepiece(**SENTENCEPIECE["bpe"])
    root = json.loads(builtin.read_text())
    merges = "\n".join(" ".join(pair) for pair in root["model"]["merges"])
    gpt2_files = {"vocab__json": json.dumps(root["model"]["vocab"]), "merges__txt": merges}
    text = "a line of text"
    a = place(tmp_path / "a", **gpt2_files)
    b = place(tmp_path / "b", tokenizer__model=model, **gpt2_files)
    c = place(tmp_path / "c", tokenizer__json=builtin, tokenizer__model=model)
    assert our_ids(a, [text]) == our_ids(c, [text])
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert our_ids(b, [text])[0] == reference.encode(text)
