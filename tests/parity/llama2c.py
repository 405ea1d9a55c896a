"""Models in llama2.c's files (.bin) as Hugging Face directories, for tests on trained weights.

A .bin file is seven int32 (dim, hidden_dim, layers, heads, KV heads, vocabulary, context) and then
all weights in f32, one after the other. Its queries and keys rotate neighbouring channels, those of
Hugging Face channel i with i + d/2, so their rows are put in another order here."""

import struct

import numpy as np
import torch
import transformers

SPACE = "▁"  # how sentencepiece writes one


def rotate_halves(weight, heads):
    """Rows [heads * d] of neighbouring pairs to rows of pairs d/2 apart."""
    d = weight.shape[0] // heads
    pairs = weight.reshape(heads, d // 2, 2, -1)
    return pairs.transpose(0, 2, 1, 3).reshape(weight.shape)


def read_model(path):
    """The model of a .bin file in llama2.c's first format, as transformers runs it, in f32."""
    data = path.read_bytes()
    dim, hidden, layers, heads, kv_heads, vocabulary, context = struct.unpack("7i", data[:28])
    config = transformers.LlamaConfig(
        hidden_size=dim, intermediate_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=abs(vocabulary),
        max_position_embeddings=context, rms_norm_eps=1e-5, tie_word_embeddings=vocabulary > 0,
        bos_token_id=1, eos_token_id=2)  # fmt: skip
    values, at = np.frombuffer(data, "<f4", offset=28), 0

    def take(*shape):
        nonlocal at
        at += np.prod(shape)
        return values[at - np.prod(shape) : at].reshape(shape)

    kv = dim // heads * kv_heads
    tensors = {"model.embed_tokens.weight": take(abs(vocabulary), dim)}
    parts = {"input_layernorm": (dim,), "self_attn.q_proj": (dim, dim),
             "self_attn.k_proj": (kv, dim), "self_attn.v_proj": (kv, dim),
             "self_attn.o_proj": (dim, dim), "post_attention_layernorm": (dim,),
             "mlp.gate_proj": (hidden, dim), "mlp.down_proj": (dim, hidden),
             "mlp.up_proj": (hidden, dim)}  # fmt: skip
    for part, shape in parts.items():
        for layer, weight in enumerate(take(layers, *shape)):
            if part.endswith(("q_proj", "k_proj")):
                weight = rotate_halves(weight, heads if part.endswith("q_proj") else kv_heads)
            tensors[f"model.layers.{layer}.{part}.weight"] = weight
    tensors["model.norm.weight"] = take(dim)
    take(2, context, dim // heads // 2)  # tables of cosines and sines
    if vocabulary < 0:
        tensors["lm_head.weight"] = take(-vocabulary, dim)
    assert at == len(values), f"{path}: {len(values)} numbers, its header asks for {at}"

    model = transformers.LlamaForCausalLM(config).eval()
    state = {name: torch.from_numpy(weight.copy()) for name, weight in tensors.items()}
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert missing in ([], ["lm_head.weight"])
    return model


def read_pieces(path):
    """(piece, score) in the order of ids, pieces as sentencepiece writes them."""
    data, at, pieces = path.read_bytes(), 4, []
    while at < len(data):
        score, size = struct.unpack("fi", data[at : at + 8])
        pieces.append((data[at + 8 : at + 8 + size].decode().replace(" ", SPACE), score))
        at += 8 + size
    for control, text in [(1, "<s>"), (2, "</s>")]:
        assert pieces[control][0] == f"\n{text}\n"
        pieces[control] = (text, 0.0)
    return pieces


def field(number, value):
    """A field of a protocol buffer: a whole number below 2^21, a float, or bytes."""
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    if isinstance(value, bytes):
        return tag(number, 2) + varint(len(value)) + value
    return tag(number, 0) + varint(value)


def tag(number, wire_type):
    return varint(number << 3 | wire_type)


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def sentencepiece_model(pieces):
    """A file tokenizer.model: BPE with byte fallback, nothing normalized but the first space."""
    normal, unknown, control, byte = 1, 2, 3, 6
    kinds = [unknown, control, control] + [byte] * 256 + [normal] * (len(pieces) - 259)
    messages = [field(1, piece.encode()) + field(2, score) + field(3, kind)
                for (piece, score), kind in zip(pieces, kinds)]  # fmt: skip
    bpe = field(3, 2) + field(35, 1)  # model_type, byte_fallback
    keep_spaces = field(1, b"identity") + field(3, 1) + field(4, 0) + field(5, 1)
    return b"".join(field(1, m) for m in messages) + field(2, bpe) + field(3, keep_spaces)


def transformers_tokenizer(pieces):
    """The same as transformers' own class: a merge for each way to split a piece into two."""
    ids = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces[259:]:
        for cut in range(1, len(piece)):
            if piece[:cut] in ids and piece[cut:] in ids:
                merges.append((-score, cut, len(piece), piece[:cut], piece[cut:]))
    pairs = [(left, right) for *_, left, right in sorted(merges)]
    return transformers.LlamaTokenizer(vocab=ids, merges=pairs, add_bos_token=True)
