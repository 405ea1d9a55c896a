"""GGUF files of tiny models and vocabularies, made with the `gguf` library."""

import json

import numpy
import pytest

gguf = pytest.importorskip("gguf", reason="pip install -r tools/requirements-test.txt")
quants = gguf.quants

# Types that the library only reads: blocks of random bits, with the places of their f16 numbers.
HALVES = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "Q3_K": (108,), "IQ4_NL": (0,)}
TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "Q3_K",
         "IQ4_NL"]
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
                 "phi3": "phi3", "gpt2": "gpt2"}  # fmt: skip
CONV1D = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")


def stored(values, type_name, random):
    """The bytes of a matrix in this type, and the numbers that they hold."""
    kind = gguf.GGMLQuantizationType[type_name]
    if type_name in HALVES:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        data = random.integers(0, 256, (values.shape[0], values.shape[1] // block, size), numpy.uint8)
        for at in HALVES[type_name]:
            halves = random.uniform(1e-4, 3e-4, data.shape[:2]).astype(numpy.float16)
            data[:, :, at : at + 2] = halves[..., None].view(numpy.uint8)
        data = data.reshape(values.shape[0], -1)
    elif type_name == "F32":
        data = values
    elif type_name == "F16":
        data = values.astype(numpy.float16)
    else:
        data = quants.quantize(values, kind)
    return data, kind, numpy.asarray(quants.dequantize(data, kind), numpy.float32)


def interleaved(weight, heads):
    """Llama's q and k as llama.cpp has them: what rotary embedding turns together side by side."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def separated(weight, heads):
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def heads_of(config, name):
    if config.model_type not in ("llama", "mistral"):
        return None
    if name.endswith("q_proj.weight"):
        return config.num_attention_heads
    return config.num_key_value_heads if name.endswith("k_proj.weight") else None


def write_config(writer, config):
    gated = config.model_type != "gpt2"
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if not gated:
        writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, head))


def llama3_factors(rope, head):
    """As llama.cpp's converter computes them."""
    frequencies = 1.0 / rope["rope_theta"] ** (numpy.arange(0, head, 2) / head)
    wavelengths = 2 * numpy.pi / frequencies
    context, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (context / wavelengths - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    factors = numpy.where(wavelengths < context / high, 1,
                          numpy.where(wavelengths > context / low, factor, between))  # fmt: skip
    return factors.astype(numpy.float32)


def write_model(path, model, type_name="F32", seed=0, vocabulary=None, **changes):
    """A file of this transformers model with its matrices in this type. Returns the numbers that
    the file holds, under transformers' names."""
    config, random = model.config, numpy.random.default_rng(seed)
    architecture = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(path, architecture)
    write_config(writer, config)
    if vocabulary:
        vocabulary(writer)
    arch = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    numbers = {}
    for name, tensor in model.state_dict().items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy().astype(numpy.float32)
        turned = config.model_type == "gpt2" and name.endswith(CONV1D)
        if turned:
            values = numpy.ascontiguousarray(values.T)
        heads = heads_of(config, name)
        if heads:
            values = interleaved(values, heads)
        matrix = values.ndim == 2 and "embd" not in names.get_name(name, (".weight",))
        data, kind, held = stored(values, type_name if matrix else "F32", random)
        if heads:
            held = separated(held, heads)
        numbers[name] = held.T if turned else held
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), data, raw_dtype=kind)
    for add, values in changes.items():
        getattr(writer, add)(*values)
    save(writer)
    return numbers


def save(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def byte_level(tokenizer, pre, **flags):
    """Writes the vocabulary of a byte-level `tokenizers.Tokenizer`."""
    root = json.loads(tokenizer.to_str())
    tokens = {i: token for token, i in root["model"]["vocab"].items()}
    kinds = dict.fromkeys(tokens, gguf.TokenType.NORMAL)
    for added in root["added_tokens"]:
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = (gguf.TokenType.CONTROL if added["special"]
                              else gguf.TokenType.USER_DEFINED)  # fmt: skip
    ids = range(len(tokens))

    def write(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list([tokens[i] for i in ids])
        writer.add_token_types([kinds[i] for i in ids])
        writer.add_token_merges([m if isinstance(m, str) else " ".join(m)
                                 for m in root["model"]["merges"]])  # fmt: skip
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(0)
        for name, value in flags.items():
            getattr(writer, name)(value)

    return write


def pieces(processor):
    """Writes the vocabulary of a sentencepiece model."""
    kinds = [(processor.is_unknown, gguf.TokenType.UNKNOWN), (processor.is_control, gguf.TokenType.CONTROL),
             (processor.is_byte, gguf.TokenType.BYTE), (processor.is_unused, gguf.TokenType.UNUSED)]  # fmt: skip
    ids = range(processor.get_piece_size())

    def kind(i):
        return next((kind for holds, kind in kinds if holds(i)), gguf.TokenType.NORMAL)

    def write(writer):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([processor.id_to_piece(i) for i in ids])
        writer.add_token_scores([processor.get_score(i) for i in ids])
        writer.add_token_types([kind(i) for i in ids])
        writer.add_bos_token_id(processor.bos_id())
        writer.add_eos_token_id(processor.eos_id())
        writer.add_unk_token_id(processor.unk_id())

    return write


def write_vocabulary(path, write):
    """A file of a vocabulary alone."""
    writer = gguf.GGUFWriter(path, "llama")
    write(writer)
    save(writer)
