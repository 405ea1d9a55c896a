"""One Llama model of random weights, written for every program: as a Hugging Face directory and as
GGUF files. Shapes matter to speed, weights do not.

Every weight is a bf16 number that f16 can hold too, so the files hold the same model exactly
(q8_0 rounds, as 8-bit weights do).
"""

import dataclasses
import json
import shutil
import zlib

import gguf
import numpy as np

EPSILON = 1e-5
ROPE_THETA = 10000.0
CONTEXT = 131072
FORMATS = {  # our name of a precision -> GGUF's
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "int8": gguf.GGMLQuantizationType.Q8_0,
}


@dataclasses.dataclass(frozen=True)
class Shape:
    layers: int = 6
    hidden: int = 2048
    heads: int = 32
    kv_heads: int = 4
    ff: int = 5632
    vocab: int = 32000

    @property
    def head_dim(self):
        return self.hidden // self.heads

    @property
    def name(self):
        return "-".join(f"{key}{value}" for key, value in dataclasses.asdict(self).items())


@dataclasses.dataclass(frozen=True)
class Tensor:
    hf: str  # name in a Hugging Face checkpoint
    gguf: str
    shape: tuple  # [outputs, inputs], or [size] of a norm
    rotary_heads: int = 0  # of a projection whose outputs are rotated


def tensors(shape):
    kv = shape.kv_heads * shape.head_dim
    yield Tensor("model.embed_tokens", "token_embd", (shape.vocab, shape.hidden))
    for i in range(shape.layers):
        hf, gg = f"model.layers.{i}.", f"blk.{i}."
        attention, mlp = hf + "self_attn.", hf + "mlp."
        square = (shape.hidden, shape.hidden)
        yield Tensor(hf + "input_layernorm", gg + "attn_norm", (shape.hidden,))
        yield Tensor(attention + "q_proj", gg + "attn_q", square, shape.heads)
        yield Tensor(attention + "k_proj", gg + "attn_k", (kv, shape.hidden), shape.kv_heads)
        yield Tensor(attention + "v_proj", gg + "attn_v", (kv, shape.hidden))
        yield Tensor(attention + "o_proj", gg + "attn_output", square)
        yield Tensor(hf + "post_attention_layernorm", gg + "ffn_norm", (shape.hidden,))
        yield Tensor(mlp + "gate_proj", gg + "ffn_gate", (shape.ff, shape.hidden))
        yield Tensor(mlp + "up_proj", gg + "ffn_up", (shape.ff, shape.hidden))
        yield Tensor(mlp + "down_proj", gg + "ffn_down", (shape.hidden, shape.ff))
    yield Tensor("model.norm", "output_norm", (shape.hidden,))
    yield Tensor("lm_head", "output", (shape.vocab, shape.hidden))


def draw(tensor):
    """The tensor's numbers in f32, the same at every call."""
    if len(tensor.shape) == 1:
        return np.ones(tensor.shape, np.float32)
    random = np.random.default_rng(zlib.crc32(tensor.hf.encode()))
    values = random.standard_normal(tensor.shape, np.float32)
    values *= 1.0 / np.sqrt(tensor.shape[1])
    values.view(np.uint32)[...] &= 0xFFFF0000  # a bf16 number
    values[np.abs(values) < 2.0**-14] = 0  # below that f16 loses digits
    return values


def interleave_rotary(values, heads):
    """Hugging Face rotates channels (i, i + d/2), GGUF's llama (2i, 2i + 1)."""
    rows, inputs = values.shape
    halves = values.reshape(heads, 2, rows // heads // 2, inputs)
    return halves.swapaxes(1, 2).reshape(rows, inputs)


def write_gguf(shape, precision, path):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ff)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(ROPE_THETA)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("no_vocab")  # token ids are all that is needed
    for tensor in tensors(shape):
        values = draw(tensor)
        if tensor.rotary_heads:
            values = interleave_rotary(values, tensor.rotary_heads)
        kind = FORMATS[precision] if values.ndim == 2 else FORMATS["f32"]
        writer.add_tensor(
            tensor.gguf + ".weight", gguf.quants.quantize(values, kind), raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def config(shape):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": 0,
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ff,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": CONTEXT,
        "rope_theta": ROPE_THETA,
        "rms_norm_eps": EPSILON,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def tokenizer():
    """Byte-level BPE without merges: a token a byte, and one that separates documents."""
    separator = "<|endoftext|>"
    itself = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0x100)]
    itself.remove(0xAD)
    others = [byte for byte in range(256) if byte not in itself]
    characters = [chr(byte) for byte in itself] + [chr(0x100 + i) for i in range(len(others))]
    vocabulary = {separator: 0} | {character: i + 1 for i, character in enumerate(characters)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    byte_level["trim_offsets"] = True
    added = {"id": 0, "content": separator, "special": True, "normalized": False}
    added |= {"single_word": False, "lstrip": False, "rstrip": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }


def write_safetensors(shape, path):
    header, offset = {}, 0
    for tensor in tensors(shape):
        size = 2 * int(np.prod(tensor.shape))
        header[tensor.hf + ".weight"] = {
            "dtype": "BF16",
            "shape": tensor.shape,
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors(shape):
            file.write((draw(tensor).view(np.uint32) >> 16).astype(np.uint16).tobytes())


def write_hugging_face(shape, folder):
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "config.json").write_text(json.dumps(config(shape), indent=2) + "\n")
    (partial / "tokenizer.json").write_text(json.dumps(tokenizer()))
    write_safetensors(shape, partial / "model.safetensors")
    partial.rename(folder)


class RandomModel:
    """The files of one shape under `folder`, each written when it is first asked for."""

    def __init__(self, shape, folder, say):
        self.shape, self.folder, self.say = shape, folder / shape.name, say

    def hugging_face(self):
        path = self.folder / "hf"
        if not path.is_dir():
            self.say(f"writing {path}")
            write_hugging_face(self.shape, path)
        return path

    def gguf(self, precision):
        path = self.folder / f"{precision}.gguf"
        if not path.is_file():
            self.say(f"writing {path}")
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            write_gguf(self.shape, precision, partial)
            partial.rename(path)
        return path
