"""Token shards in Megatron's format (NAME.bin: the tokens of all documents, NAME.idx: where each
begins), memory-mapped and read in windows, in an order that depends on the seed alone.

The place of a run is how many windows of each shard it has read: the same on any number of
processes."""

from __future__ import annotations

import bz2
import gzip
import json
import pathlib
import struct
from collections.abc import Iterator

import numpy as np
import torch

from .options import OptionError
from .schedules import random_bits

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")  # magic, version, dtype, sequences, documents
_DTYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}


class Shard:
    """The tokens of a shard, one after the other; each document ends with its separator."""

    def __init__(self, name: str):
        self.name = name.removesuffix(".bin").removesuffix(".idx")
        index = pathlib.Path(self.name + ".idx")
        try:
            header = index.open("rb").read(_HEADER.size)
            magic, version, code, sequences, documents = _HEADER.unpack(header)
            size, bytes_of_tokens = (
                index.stat().st_size,
                pathlib.Path(self.name + ".bin").stat().st_size,
            )
        except OSError as error:
            raise OptionError(
                f"train: {error.filename}: {error.strerror}; expected a token shard, a "
                ".bin and an .idx file, as `python -m dmc.torch tokenize` makes them"
            ) from None
        except struct.error:
            magic = b""
        if magic != _MAGIC or version != 1 or code not in _DTYPES:
            raise OptionError(f"train: {index} is no index of Megatron's format, version 1")
        if size != _HEADER.size + 12 * sequences + 8 * documents:
            raise OptionError(
                f"train: {index} has {size} bytes, not those of {sequences} sequences"
            )
        lengths = np.fromfile(index, "<i4", sequences, offset=_HEADER.size)
        starts = np.fromfile(index, "<i8", sequences, offset=_HEADER.size + 4 * sequences)
        ends = np.cumsum(lengths, dtype=np.int64)
        width = np.dtype(_DTYPES[code]).itemsize
        if (
            sequences == 0
            or (lengths < 0).any()
            or ends[-1] * width > bytes_of_tokens
            or (starts != (ends - lengths) * width).any()
        ):
            raise OptionError(
                f"train: {index}: its sequences do not lie one after the other in the .bin file"
            )
        self.tokens = np.memmap(self.name + ".bin", _DTYPES[code], "r", shape=(int(ends[-1]),))

    def windows(self, length: int) -> int:
        """How many there are of `length` tokens, each with the token that follows."""
        return (len(self.tokens) - 1) // length

    def window(self, index: int, length: int) -> np.ndarray:
        return np.asarray(self.tokens[index * length : (index + 1) * length + 1], np.int64)


def permuted(index: int, count: int, seed: int, epoch: int) -> int:
    """Where `index` of `count` stands in an epoch's order: a Feistel network over the next power
    of 4, walked until it falls below `count`, so that an order takes no memory."""
    half = max(1, (max(count - 1, 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(4):
            left, right = right, left ^ (random_bits(seed, epoch * 4 + turn, right) & mask)
        index = left << half | right
        if index < count:
            return index


class Mixture:
    """Batches of windows of several shards, in shares by weight that hold at any time."""

    def __init__(
        self,
        names: list[str],
        weights: list[float] | None,
        *,
        length: int,
        batch: int,
        vocab: int,
        seed: int,
    ):
        self.shards, self.length, self.batch = [Shard(name) for name in names], length, batch
        self.vocab, self.seed = vocab, seed
        for shard in self.shards:
            if shard.windows(length) == 0:
                raise OptionError(
                    f"train: {shard.name} has {len(shard.tokens)} tokens, fewer than a "
                    f"sequence of {length} and one more"
                )
        weights = weights or [float(len(shard.tokens)) for shard in self.shards]
        if len(weights) != len(names) or min(weights) <= 0:
            raise OptionError(f"weights: expected a number above 0 for each of {len(names)} shards")
        self.weights = [w / sum(weights) for w in weights]
        self.read = [0] * len(names)  # windows of each shard so far: the place

    def next(self, first: int, rows: int) -> torch.Tensor:
        """Rows `first` to `first + rows` of the next batch, [rows, length + 1] int64."""
        mine = []
        for row in range(self.batch):
            total = sum(self.read) + 1
            of = max(range(len(self.read)), key=lambda i: self.weights[i] * total - self.read[i])
            if first <= row < first + rows:
                mine.append(self._window(of, self.read[of]))
            self.read[of] += 1
        return torch.from_numpy(np.stack(mine))

    def _window(self, of: int, number: int) -> np.ndarray:
        shard = self.shards[of]
        epoch, index = divmod(number, shard.windows(self.length))
        seed = random_bits(self.seed, 0, of)
        window = shard.window(permuted(index, shard.windows(self.length), seed, epoch), self.length)
        return _checked(window, self.vocab, shard.name)


def held_out_windows(names: list[str], length: int, most: int, vocab: int) -> list[np.ndarray]:
    """Windows of `length` tokens in the shards' order, as `dmc eval` cuts a text: the last may be
    shorter. most: of all together; 0: all."""
    windows = []
    for name in names:
        tokens = Shard(name).tokens
        for start in range(0, len(tokens) - 1, length):
            if most and len(windows) == most:
                return windows
            windows.append(
                _checked(np.asarray(tokens[start : start + length], np.int64), vocab, name)
            )
    return windows


def _checked(window: np.ndarray, vocab: int, name: str) -> np.ndarray:
    if window.min() < 0 or window.max() >= vocab:
        raise OptionError(
            f"train: {name} has token {int(window.max())}, but the model knows {vocab}; "
            "make the shard with the model's own tokenizer"
        )
    return window


class ShardWriter:
    """Writes NAME.bin as documents come, and NAME.idx at the end."""

    def __init__(self, name: str, vocab: int):
        self.name, self.code = name, 8 if vocab <= 1 << 16 else 4
        self.dtype, self.lengths = _DTYPES[self.code], []
        pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
        self.file = open(name + ".bin", "wb")  # noqa: SIM115

    def add(self, tokens: list[int]) -> None:
        self.file.write(np.asarray(tokens, self.dtype).tobytes())
        self.lengths.append(len(tokens))

    def close(self) -> None:
        self.file.close()
        lengths = np.asarray(self.lengths, "<i4")
        starts = (np.cumsum(lengths, dtype="<i8") - lengths) * np.dtype(self.dtype).itemsize
        with open(self.name + ".idx", "wb") as index:
            index.write(_HEADER.pack(_MAGIC, 1, self.code, len(lengths), len(lengths) + 1))
            for part in (lengths, starts, np.arange(len(lengths) + 1, dtype="<i8")):
                index.write(part.tobytes())


def documents(sources: list[str]) -> Iterator[str]:
    """The texts of files and folders: .txt, .md and .py are one each, .jsonl has one a line, in
    "text"; each also packed as .gz or .bz2. Folders are read in the order of names."""
    for source in map(pathlib.Path, sources):
        if not source.exists():
            raise OptionError(f"{source}: no such file or folder")
        files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        for path in files:
            opener = {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)
            kind = path.suffix if opener is open else pathlib.Path(path.stem).suffix
            if kind not in (".txt", ".md", ".py", ".jsonl"):
                if source.is_dir():
                    continue
                raise OptionError(
                    f"{path}: expected .txt, .md, .py or .jsonl, or these as .gz or .bz2"
                )
            try:
                with opener(path, "rt", encoding="utf-8", newline="") as text:
                    if kind != ".jsonl":
                        yield text.read()
                        continue
                    for line in filter(str.strip, text):
                        yield json.loads(line)["text"]
            except (UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
                raise OptionError(
                    f'{path}: is not UTF-8 text, or a line is no object with a "text" ({error})'
                ) from None


def tokenize(tokenizer: str, separator: int, sources: list[str], out: str, one_in: int = 0) -> dict:
    """Writes the shard OUT, and, of one in `one_in` documents, OUT-valid. Returns what was
    written."""
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(pathlib.Path(tokenizer) / "tokenizer.json"))
    vocab = max(encoder.get_vocab_size(), separator + 1)
    writers = [ShardWriter(out, vocab)] + ([ShardWriter(out + "-valid", vocab)] if one_in else [])
    counts = {"documents": 0, "tokens": 0}
    for number, text in enumerate(documents(sources)):
        tokens = encoder.encode(text, add_special_tokens=False).ids + [separator]
        writers[1 if one_in and number % one_in == one_in - 1 else 0].add(tokens)
        counts["documents"] += 1
        counts["tokens"] += len(tokens)
    if counts["documents"] == 0:
        raise OptionError(
            f"{', '.join(sources)}: no text found; expected .txt, .md, .py or .jsonl files"
        )
    for writer in writers:
        writer.close()
    return counts
