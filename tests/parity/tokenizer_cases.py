"""Vocabularies and texts that the tokenizer tests run over."""

import functools
import io
import json
import os
import pathlib
import random
import shutil
import subprocess
import unicodedata

import sentencepiece
from tokenizers import (Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)  # fmt: skip
from tokenizers import AddedToken, Regex

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("DMC_BIN", ROOT / "build" / "bin"))
SHARED = pathlib.Path(os.environ.get("DMC_SHARED", ROOT.parent / "shared"))
PUBLISHED = SHARED / "data" / "tokenizers"

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")

RANGES = [(32, 126), (32, 126), (32, 32), (9, 13), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x5FF),
          (0x600, 0x6FF), (0x900, 0x97F), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F),
          (0x2100, 0x214F), (0x2500, 0x25FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
          (0xFF00, 0xFFEF), (0x1F300, 0x1F9FF), (0x10000, 0x100FF)]  # fmt: skip
WORDS = ["the", "def", "return", "Hello", "I'm", "we'LL", "123", "4567", "  ", "\n\n", " \t ", "é",
         "<s>", "</s>", "[MASK]", "<|endoftext|>", "<|eot|>", "▁", "naïve", "x1", "=", "日本"]  # fmt: skip


def random_texts(count, seed, known=unicodedata):
    """Words, and characters that an old enough Unicode knows: new ones differ by library."""
    rng = random.Random(seed)

    def part():
        if rng.random() < 0.3:
            return rng.choice(WORDS)
        c = chr(rng.randint(*rng.choice(RANGES)))
        return c if known.category(c) != "Cn" else " "

    return ["".join(part() for _ in range(rng.randint(0, 30))) for _ in range(count)]


@functools.cache
def source_texts():
    return [path.read_text() for path in sorted((ROOT / "src").rglob("*.cpp"))]


def probe(model_dir, mode, records):
    done = subprocess.run(
        [BIN / "tokenizer_probe", model_dir, mode],
        input=b"".join(record.encode() + b"\0" for record in records),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def our_ids(model_dir, texts, mode="encode"):
    lines = probe(model_dir, mode, texts).split("\n")[:-1]
    assert len(lines) == len(texts)
    return [[int(i) for i in line.split()] for line in lines]


def our_texts(model_dir, ids, mode="decode"):
    texts = probe(model_dir, mode, [" ".join(map(str, row)) for row in ids]).split("\0")[:-1]
    assert len(texts) == len(ids)
    return texts


def split_by(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip


def byte_level(pre_tokenizer, normalizer=None, special="<|endoftext|>"):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=[special], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    tokenizer.train_from_iterator(source_texts(), trainer)
    return tokenizer


def gpt2():
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))


def roberta():
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True), "<s>", "</s>"])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>"))
    )
    return tokenizer


def llama3():
    tokenizer = byte_level(split_by(LLAMA3_PATTERN))
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|endoftext|> $A",
                                      special_tokens=[("<|endoftext|>", 0)]),
    ])  # fmt: skip
    root = json.loads(tokenizer.to_str())
    root["model"]["ignore_merges"] = True
    vocab = root["model"]["vocab"]
    for word in ("thefoo", "Ġreturning", "qzx"):  # tokens that no merge leads to
        vocab.setdefault(word, len(vocab))
    return Tokenizer.from_str(json.dumps(root))


def qwen2():
    tokenizer = byte_level(split_by(QWEN2_PATTERN), normalizers.NFC())
    tokenizer.add_special_tokens(["<|eot|>"])
    tokenizer.add_tokens([AddedToken("naïve", normalized=True), AddedToken("x1", single_word=True),
                          AddedToken("[MASK]", rstrip=True, lstrip=True)])  # fmt: skip
    return tokenizer


def star_coder():
    return byte_level(pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]))  # fmt: skip


BYTE_TOKENS = [f"<0x{b:02X}>" for b in range(256)]


def llama2():
    """As converted from sentencepiece: spaces are written by the normalizer, bytes as <0xNN>."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<unk>", "<s>", "</s>", *BYTE_TOKENS],
        show_progress=False, max_token_length=16, limit_alphabet=100)  # fmt: skip
    lines = [line for text in source_texts()[:40] for line in text.splitlines()]
    tokenizer.train_from_iterator(lines, trainer)
    root = json.loads(tokenizer.to_str())
    root["added_tokens"] = root["added_tokens"][:3]  # byte tokens are not in the text
    tokenizer = Tokenizer.from_str(json.dumps(root))
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])  # fmt: skip
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def metaspace():
    tokenizer = llama2()
    tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])  # fmt: skip
    return tokenizer


def bert(lowercase=True):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=1500, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(source_texts(), trainer)
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def bert_cased():
    return bert(lowercase=False)


def train_sentencepiece(**options):
    model = io.BytesIO()
    lines = [line for text in source_texts()[:40] for line in text.splitlines()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=1200, minloglevel=2,
        hard_vocab_limit=False, **options)  # fmt: skip
    return model.getvalue()


def fields(message):
    """(number, value) of each field of a protocol buffer."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            at, byte = at + 1, message[at]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        number, wire_type = divmod(varint(), 8)
        if wire_type == 0:
            yield number, varint()
            continue
        size = varint() if wire_type == 2 else {1: 8, 5: 4}[wire_type]
        at += size
        yield number, message[at - size : at]


def char_map(**options):
    """The normalization table of a sentencepiece model."""
    (normalizer,) = [v for n, v in fields(train_sentencepiece(**options)) if n == 3]
    return dict(fields(normalizer))[2]


def unigram(pre_tokenizer=None, normalizer=None, extra=()):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.Metaspace()
    tokenizer.normalizer = normalizer or normalizers.Sequence([])
    trainer = trainers.UnigramTrainer(vocab_size=1500, unk_token="<unk>", show_progress=False,
                                      special_tokens=["<unk>", "<s>", "</s>", *extra])  # fmt: skip
    lines = [line for text in source_texts()[:40] for line in text.splitlines()]
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def unigram_like_xlm_roberta():
    return unigram(
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
        normalizers.Sequence([normalizers.Precompiled(char_map(model_type="unigram")),
                              normalizers.Replace(Regex(" {2,}"), " ")]))  # fmt: skip


def unigram_bytes():
    tokenizer = unigram(pre_tokenizers.Metaspace("▁", "first", split=False), extra=BYTE_TOKENS)
    root = json.loads(tokenizer.to_str())
    root["added_tokens"] = root["added_tokens"][:3]  # byte tokens are not in the text
    root["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(root))
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])  # fmt: skip
    return tokenizer


TRAINED = [gpt2, roberta, llama3, qwen2, star_coder, llama2, metaspace, bert, bert_cased, unigram,
           unigram_like_xlm_roberta, unigram_bytes]  # fmt: skip


SENTENCEPIECE = {
    "llama": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
                  remove_extra_whitespaces=False, split_digits=True,
                  allow_whitespace_only_pieces=True),
    "bpe": dict(model_type="bpe"),
    "no_prefix": dict(model_type="bpe", add_dummy_prefix=False, user_defined_symbols=["==", "x1"]),
    "unigram": dict(model_type="unigram"),
    "unigram_bytes": dict(model_type="unigram", byte_fallback=True,
                          normalization_rule_name="nmt_nfkc_cf"),
}  # fmt: skip


def place(folder, **files):
    """A model folder of files, each given by its text, its bytes or the path of a copy."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        if isinstance(content, pathlib.Path):
            shutil.copy(content, path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)
    return folder


def byte_level_from(vocab, merges, pattern):
    """A tokenizer of GPT-2's two files, with GPT-2's pattern where none is given."""
    pairs = [tuple(line.split(" ")) for line in merges.read_text().splitlines()
             if line and not line.startswith("#version")]  # fmt: skip
    tokenizer = Tokenizer(models.BPE(json.loads(vocab.read_text()), pairs))
    tokenizer.pre_tokenizer = (
        split_by(pattern) if pattern else pre_tokenizers.ByteLevel(add_prefix_space=False)
    )
    return tokenizer
