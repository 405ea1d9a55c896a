"""Our tokenizer against the `tokenizers` package: the same ids for random Unicode and real text."""

import os
import pathlib
import random
import subprocess

import pytest
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("DMC_BIN", ROOT / "build" / "bin"))
SHARED = pathlib.Path(os.environ.get("DMC_SHARED", ROOT.parent / "shared"))

RANGES = [(32, 126), (32, 32), (9, 13), (0xA0, 0x24F), (0x300, 0x5FF), (0x600, 0x6FF),
          (0x2000, 0x206F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xFF00, 0xFFEF),
          (0x1F300, 0x1F9FF), (0x10000, 0x100FF)]  # fmt: skip


def random_texts(count, seed):
    rng = random.Random(seed)

    def character():
        return chr(rng.randint(*rng.choice(RANGES)))

    return ["".join(character() for _ in range(rng.randint(0, 40))) for _ in range(count)]


def compare(model_dir, texts):
    reference = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    done = subprocess.run(
        [BIN / "tokenizer_probe", model_dir],
        input=b"".join(text.encode() + b"\0" for text in texts),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().split("\n")
    for text, line in zip(texts, lines, strict=False):
        theirs = reference.encode(text, add_special_tokens=False).ids
        assert [int(i) for i in line.split()] == theirs, repr(text)


def test_random_unicode():
    compare(ROOT / "models" / "builtin", random_texts(20000, seed=1))


def test_source_code():
    texts = [path.read_text() for path in sorted((ROOT / "src").rglob("*.cpp"))]
    compare(ROOT / "models" / "builtin", texts)


def test_published_vocabularies():
    """Real GPT-2 style vocabularies, where they are at hand."""
    found = sorted(SHARED.glob("data/tokenizers/*/tokenizer.json"))
    if not found:
        pytest.skip("no published tokenizer.json at hand (set DMC_SHARED to a folder with data/)")
    for path in found:
        compare(path.parent, random_texts(1000, seed=2))
