"""Small models of each family in Hugging Face directories, and text for them."""

import json
import os
import pathlib
import shutil

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[3]
VOCABULARY, SEPARATOR = 2048, 0

# For processes that tests start.
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]),
}


def write_model(folder, family="llama", seed=1, **changes):
    """Two layers of 4 query heads on 2 KV heads; decisions near enough to be taken."""
    torch.manual_seed(seed)
    sizes = dict(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rms_norm_eps=1e-5,
        max_position_embeddings=256,
        initializer_range=0.1,
        eos_token_id=SEPARATOR,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    config = transformers.AutoConfig.for_model(family, **sizes | changes)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "models" / "builtin" / name, folder)
    return folder


def write_text(path, documents=120):
    """Python sources in pieces, a line each."""
    source = (ROOT / "tools" / "lint_includes.py").read_text() + pathlib.Path(__file__).read_text()
    pieces = [source[(i * 61) % 3000 :][: 150 + (i * 37) % 400] for i in range(documents)]
    path.write_text("".join(json.dumps({"text": piece}) + "\n" for piece in pieces))
    return path
