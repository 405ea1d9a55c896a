"""Tokens a second of Hugging Face transformers on the CPU, dense, with its KV cache; prints JSON."""

import argparse
import json
import statistics
import time

import torch
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
CHUNK = 2048  # prompt tokens at a time; more would need much memory for the mask


def fill(model, cache, tokens):
    ids = torch.randint(model.config.vocab_size, (1, tokens))
    for chunk in ids.split(CHUNK, dim=1):
        model(chunk, past_key_values=cache, use_cache=True, logits_to_keep=1)


def decode(model, cache, steps):
    ids = torch.randint(model.config.vocab_size, (steps, 1, 1))
    for token in ids:
        model(token, past_key_values=cache, use_cache=True, logits_to_keep=1)


def seconds(work, *arguments):
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def measure(model, arguments):
    """Tokens a second, once."""
    cache = DynamicCache()
    if arguments.metric == "prefill":
        return arguments.tokens / seconds(fill, model, cache, arguments.tokens)
    if arguments.tokens:
        fill(model, cache, arguments.tokens)
    return arguments.steps / seconds(decode, model, cache, arguments.steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--metric", choices=("decode", "prefill"), required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", choices=TYPES, default="bf16")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=TYPES[arguments.weights])
    model.eval()
    with torch.inference_mode():
        decode(model, DynamicCache(), 1)  # the first call sets things up
        rates = [measure(model, arguments) for _ in range(arguments.repeats)]
    print(json.dumps({"tokens_per_second": statistics.median(rates)}))


if __name__ == "__main__":
    main()
