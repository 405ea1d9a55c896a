"""Learns the built-in model's vocabulary: byte-level BPE on the training split of the built-in corpus.

    python tools/train_tokenizer.py models/builtin --vocab 2048 [SOURCE ...]

Sources default to the Python sources of the installed torch wheel and of the standard library. The
split is that of src/text/corpus.h: a file is held out iff fnv1a64(content) % 50 == 0. Deterministic:
files are read in the order of their content hashes. With tokenizers==0.23.3, torch==2.13.0 and
Python 3.11.7 the result is models/builtin/tokenizer.json, byte for byte. Unlike Corpus it reads
the few files that are not UTF-8 too, without their invalid bytes.
"""

import argparse
import importlib.util
import pathlib
import sysconfig

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SEPARATOR = "<|endoftext|>"
SUFFIXES = {".py", ".txt", ".md"}
LARGEST_FILE = 8 << 20


def fnv1a64(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def default_sources():
    torch = pathlib.Path(importlib.util.find_spec("torch").origin).parent
    return [torch, pathlib.Path(sysconfig.get_path("stdlib"))]


def training_texts(sources):
    texts = {}
    for source in sources:
        for path in pathlib.Path(source).rglob("*"):
            parts = path.relative_to(source).parts
            if path.suffix not in SUFFIXES or "site-packages" in parts or not path.is_file():
                continue
            data = path.read_bytes()
            if len(data) > LARGEST_FILE or b"\0" in data:
                continue
            texts[fnv1a64(data)] = data
    return [texts[h].decode("utf-8", "ignore") for h in sorted(texts) if h % 50 != 0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("sources", nargs="*", type=pathlib.Path)
    parser.add_argument("--vocab", type=int, default=2048)
    arguments = parser.parse_args()

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=arguments.vocab,
        special_tokens=[SEPARATOR],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=True,
    )
    tokenizer.train_from_iterator(training_texts(arguments.sources or default_sources()), trainer)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(arguments.out / "tokenizer.json"), pretty=False)
    (arguments.out / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "%s", '
        '"model_max_length": 2048}\n' % SEPARATOR
    )


if __name__ == "__main__":
    main()
