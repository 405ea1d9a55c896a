"""Complete models of a few kilobytes, of every kind that dmc reads, to be damaged."""

import json
import pathlib
import random
import shutil
import struct

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEEDS = ROOT / "tests" / "fuzz" / "seeds"
VOCABULARY, HIDDEN, INNER, LAYERS, CONTEXT = 512, 16, 24, 2, 256

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": CONTEXT,
    "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "attention_bias": False,
    "tie_word_embeddings": True, "eos_token_id": 0, "bos_token_id": None, "dtype": "float32",
}  # fmt: skip
GPT2 = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": VOCABULARY,
    "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 2, "n_positions": CONTEXT, "n_inner": None,
    "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "eos_token_id": 0,
}  # fmt: skip
DMC = {
    "decision_channel": -1, "decision_offset": 3.0, "format": 1, "max_trained_length": CONTEXT,
    "method": "dmc", "pool_before_rope": True, "stage": "finetune", "target_cr": 4.0,
    "trained_tokens": 1000, "window": 12,
}  # fmt: skip
INT8 = {
    "quant_method": "compressed-tensors", "format": "int-quantized",
    "quantization_status": "compressed", "ignore": ["lm_head"], "kv_cache_scheme": None,
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
        "num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}}},
}  # fmt: skip


def shapes_of_llama():
    shapes = {"model.embed_tokens.weight": [VOCABULARY, HIDDEN], "model.norm.weight": [HIDDEN]}
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[layer + norm + ".weight"] = [HIDDEN]
        for name, shape in {
            "self_attn.q_proj": [HIDDEN, HIDDEN], "self_attn.k_proj": [8, HIDDEN],
            "self_attn.v_proj": [8, HIDDEN], "self_attn.o_proj": [HIDDEN, HIDDEN],
            "mlp.gate_proj": [INNER, HIDDEN], "mlp.up_proj": [INNER, HIDDEN],
            "mlp.down_proj": [HIDDEN, INNER],
        }.items():  # fmt: skip
            shapes[f"{layer}{name}.weight"] = shape
    return shapes


def shapes_of_gpt2():
    shapes = {"transformer.wte.weight": [VOCABULARY, HIDDEN], "transformer.wpe.weight": [CONTEXT, HIDDEN]}
    norms = ["transformer.ln_f"]
    for i in range(LAYERS):
        layer = f"transformer.h.{i}."
        norms += [layer + "ln_1", layer + "ln_2"]
        for name, (inputs, outputs) in {
            "attn.c_attn": (HIDDEN, 3 * HIDDEN), "attn.c_proj": (HIDDEN, HIDDEN),
            "mlp.c_fc": (HIDDEN, 4 * HIDDEN), "mlp.c_proj": (4 * HIDDEN, HIDDEN),
        }.items():  # fmt: skip
            shapes[f"{layer}{name}.weight"], shapes[f"{layer}{name}.bias"] = [inputs, outputs], [outputs]
    for norm in norms:
        shapes[norm + ".weight"] = shapes[norm + ".bias"] = [HIDDEN]
    return shapes


def tensors_of(shapes, int8=False):
    """Name -> (dtype, shape, bytes), small random numbers."""
    numbers, tensors = random.Random(1), {}
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        if int8 and name.endswith("proj.weight"):
            tensors[name] = ("I8", shape, bytes(numbers.randrange(256) for _ in range(count)))
            tensors[name + "_scale"] = ("F32", [shape[0], 1], struct.pack("<f", 0.01) * shape[0])
            continue
        norm = len(shape) == 1 and name.endswith("weight")
        values = [1.0 if norm else numbers.gauss(0, 0.1) for _ in range(count)]
        tensors[name] = ("F32", shape, struct.pack(f"<{count}f", *values))
    return tensors


def safetensors_bytes(tensors, metadata=None):
    header, data = {"__metadata__": {"format": "pt"} | (metadata or {})}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def write_json(path, value):
    path.write_text(json.dumps(value))


def add_texts(folder, tokenizer):
    if tokenizer.suffix == ".model":
        shutil.copy(tokenizer, folder / "tokenizer.model")
    else:
        shutil.copy(tokenizer, folder / "tokenizer.json")
    write_json(folder / "tokenizer_config.json", {"eos_token": "<|eot|>", "chat_template": CHAT})
    write_json(folder / "generation_config.json", {"eos_token_id": [0, 1], "bos_token_id": 0})
    write_json(folder / "special_tokens_map.json", {"eos_token": "<|eot|>"})


def add_vocab_and_merges(folder):
    alphabet = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
    vocab = {token: i for i, token in enumerate([*alphabet, "th", "he", "the", "<|endoftext|>"])}
    write_json(folder / "vocab.json", vocab)
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nh e\nth e\n")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "chat_template": CHAT})


def write_llama(folder, config=None, tokenizer="tokenizer_json/byte_level.json", int8=False):
    folder.mkdir(parents=True)
    write_json(folder / "config.json", LLAMA | (config or {}))
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors_of(shapes_of_llama(), int8)))
    add_texts(folder, SEEDS / tokenizer)


def write_shards(folder):
    write_llama(folder)
    (folder / "model.safetensors").unlink()
    tensors, where = list(tensors_of(shapes_of_llama()).items()), {}
    for i, part in enumerate((tensors[:9], tensors[9:])):
        name = f"model-0000{i + 1}-of-00002.safetensors"
        (folder / name).write_bytes(safetensors_bytes(dict(part)))
        where |= {tensor: name for tensor, _ in part}
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": where})


def write_adapter(folder):
    write_llama(folder)
    adapter = {k: v for k, v in DMC.items() if k != "decision_channel"} | {"decision_source": "adapter"}
    shapes = {}
    for i in range(LAYERS):
        module = f"model.layers.{i}.self_attn."
        shapes[module + "decision_norm.weight"] = [HIDDEN]
        shapes[module + "decision_proj.weight"] = [2, HIDDEN]
    content = safetensors_bytes(tensors_of(shapes), {"dmc_config": json.dumps(adapter)})
    (folder / "adapter.safetensors").write_bytes(content)


def write_gpt2(folder):
    folder.mkdir(parents=True)
    write_json(folder / "config.json", GPT2)
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors_of(shapes_of_gpt2())))
    add_vocab_and_merges(folder)


# Keys of GGUF: values with the numbers of their types.
U32, F32, TEXT, TEXTS, NUMBERS = 4, 6, 8, (9, 8), (9, 5)
GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def gguf_text(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def gguf_value(kind, value):
    if kind in (TEXTS, NUMBERS):
        items = [gguf_text(v) if kind == TEXTS else struct.pack("<i", v) for v in value]
        return struct.pack("<IIQ", *kind, len(items)) + b"".join(items)
    return struct.pack("<I", kind) + (gguf_text(value) if kind == TEXT else struct.pack("<f" if kind == F32 else "<I", value))


def gguf_name(name):
    module, suffix = name.removeprefix("model.layers.").rsplit(".", 1)
    if not name.startswith("model.layers."):
        return f"{GGUF_NAMES[module]}.{suffix}"
    layer, module = module.split(".", 1)
    return f"blk.{layer}.{GGUF_NAMES[module]}.{suffix}"


def write_gguf(folder):
    """The llama with a vocabulary of bytes that merge."""
    folder.mkdir(parents=True)
    alphabet = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
    tokens = [*alphabet, "th", "he", "the", "<|end|>"]
    tokens += [f"<|{i}|>" for i in range(VOCABULARY - len(tokens))]
    keys = {
        "general.architecture": (TEXT, "llama"), "llama.block_count": (U32, LAYERS),
        "llama.context_length": (U32, CONTEXT), "llama.embedding_length": (U32, HIDDEN),
        "llama.feed_forward_length": (U32, INNER), "llama.attention.head_count": (U32, 2),
        "llama.attention.head_count_kv": (U32, 1), "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
        "llama.rope.dimension_count": (U32, 8), "tokenizer.ggml.model": (TEXT, "gpt2"),
        "tokenizer.ggml.pre": (TEXT, "gpt-2"), "tokenizer.ggml.tokens": (TEXTS, tokens),
        "tokenizer.ggml.token_type": (NUMBERS, [1] * 259 + [3] * (VOCABULARY - 259)),
        "tokenizer.ggml.merges": (TEXTS, ["t h", "h e", "th e"]), "tokenizer.ggml.eos_token_id": (U32, 259),
        "tokenizer.chat_template": (TEXT, CHAT),
    }  # fmt: skip
    tensors = tensors_of(shapes_of_llama())
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(gguf_text(key) + gguf_value(*value) for key, value in keys.items())
    data = b""
    for name, (_, shape, content) in tensors.items():
        head += gguf_text(gguf_name(name)) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", extent) for extent in reversed(shape)) + struct.pack("<IQ", 0, len(data))
        data += content + b"\0" * (-len(content) % 32)
    (folder / "model.gguf").write_bytes(head + b"\0" * (-len(head) % 32) + data)


def write_all(root):
    """Every kind of model under `root`; gives their paths."""
    retrofitted = {"architectures": ["DmcLlamaForCausalLM"], "model_type": "dmc_llama"}
    write_llama(root / "llama")
    write_llama(root / "dmc", retrofitted | {"dmc_config": DMC}, "tokenizer_json/llama.json")
    write_llama(root / "dms", retrofitted | {"dmc_config": DMC | {"method": "dms", "window": 16}})
    write_llama(root / "int8", {"quantization_config": INT8}, int8=True)
    write_llama(root / "unigram", tokenizer="tokenizer_json/unigram.json")
    write_llama(root / "metaspace", tokenizer="tokenizer_json/metaspace.json")
    write_llama(root / "word_piece", tokenizer="tokenizer_json/word_piece.json")
    write_llama(root / "pieces", tokenizer="tokenizer_model/bpe.model")
    write_llama(root / "pieces_unigram", tokenizer="tokenizer_model/unigram.model")
    write_shards(root / "shards")
    write_adapter(root / "adapter")
    write_gpt2(root / "gpt2")
    write_gguf(root / "gguf")
    for file in sorted((SEEDS / "gguf").glob("*.gguf")):
        (root / f"gguf_{file.stem}").mkdir()
        shutil.copy(file, root / f"gguf_{file.stem}" / "model.gguf")
    for shipped in ("builtin", "builtin-4x"):
        shutil.copytree(ROOT / "models" / shipped, root / shipped)
    return sorted(path for path in root.iterdir() if path.is_dir())
