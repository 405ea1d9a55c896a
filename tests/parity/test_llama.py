"""Our Llama against transformers', live, on tiny random models in f32."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

CONFIGS = {
    "mha": dict(num_attention_heads=4, num_key_value_heads=4),
    "gqa": dict(num_attention_heads=8, num_key_value_heads=2),
    "mqa-tied": dict(num_attention_heads=4, num_key_value_heads=1, tie_word_embeddings=True),
    "wide-heads": dict(num_attention_heads=2, num_key_value_heads=2, head_dim=64),
    "theta": dict(num_attention_heads=4, num_key_value_heads=2, rope_theta=500000.0),
}


def tiny_model(**changes):
    settings = dict(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=112,
        num_hidden_layers=3,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**(settings | changes)))
    for parameter in model.parameters():  # norms are all 1 by default, which would hide errors
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def relative_error(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_loss_and_gradients(name, tmp_path, run_probe):
    model = tiny_model(**CONFIGS[name])
    model.save_pretrained(tmp_path / "hf")
    tokens = torch.randint(0, 96, (2, 70), generator=torch.Generator().manual_seed(1))
    save_file({"tokens": tokens}, tmp_path / "input.safetensors")

    run_probe(tmp_path / "hf", tmp_path / "input.safetensors", tmp_path)
    ours = load_file(tmp_path / "result.safetensors")
    theirs = model(tokens, labels=tokens)
    theirs.loss.backward()

    assert relative_error(ours["logits"], theirs.logits) < 1e-4
    assert abs(ours["loss"].item() - theirs.loss.item()) < 1e-4 * theirs.loss.item()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    assert gradients.keys() == ours.keys() - {"logits", "loss"}
    for parameter, gradient in gradients.items():
        assert relative_error(ours[parameter], gradient) < 1e-4, parameter


@pytest.mark.parametrize("name", ["gqa", "mqa-tied"])
def test_saved_model_loads_in_transformers(name, tmp_path, run_probe):
    model = tiny_model(**CONFIGS[name])
    model.save_pretrained(tmp_path / "hf", max_shard_size="100KB")  # several shards and an index
    tokens = torch.arange(40).reshape(1, 40)
    save_file({"tokens": tokens}, tmp_path / "input.safetensors")

    run_probe(tmp_path / "hf", tmp_path / "input.safetensors", tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, model(tokens).logits)
