#!/usr/bin/env python3
"""transformers with scaled_dot_product_attention where bench_model measures dmc: the same shapes with
random bf16 weights, the same memory, the same places of a generation. One line of JSON a result.

    transformers_gpu.py [SHAPE] [PART...]      SHAPE: llama-2-7b (default), llama-2-13b, llama-3-8b, tiny
                                               PART: throughput, latency, ttft (default: all)
    transformers_gpu.py tiny --host            on the CPU, to see that it works; times mean nothing

A batch is static: all sequences have the same length, and its cache (StaticCache) has room for twice
the context. Steps run eagerly, as generate() runs them by default.
"""
import json
import statistics
import sys
import time

try:
    import torch
    import transformers
except ImportError as error:
    print(json.dumps({"name": "transformers", "missing": error.name}))
    sys.exit(0)

# layers, hidden, mlp, heads, KV heads, vocabulary; contexts and prompts in tokens, as bench_model's.
LENGTHS = {"contexts": (2048, 4096, 8192), "prompts": (512, 2048, 8192, 32768)}
SHAPES = {
    "llama-2-7b": ((32, 4096, 11008, 32, 32, 32000), LENGTHS),
    "llama-2-13b": ((40, 5120, 13824, 40, 40, 32000), LENGTHS),
    "llama-3-8b": ((32, 4096, 14336, 32, 8, 128256), LENGTHS),
    "tiny": ((2, 128, 96, 2, 2, 100), {"contexts": (512,), "prompts": (64, 256)}),
}
SHARE_OF_MEMORY, OTHER_BYTES = 0.9, 1 << 30  # as bench_model: for the cache, of what weights leave
HOST_BYTES = 8 << 20  # of the cache with --host
WARM_UP_STEPS, TIMED_STEPS, WAITED_STEPS, PROMPT_ROUNDS = 8, 64, 200, 5
CHUNK = 4096  # tokens of all sequences that one pass takes in
MOST_SEQUENCES = 1024


def report(**values):
    print(json.dumps({"name": "transformers", **values}), flush=True)


class Bench:
    """A random model on its device."""

    def __init__(self, shape, device):
        (layers, hidden, mlp, heads, kv_heads, vocab), lengths = SHAPES[shape]
        self.shape, self.device, self.vocab = shape, device, vocab
        self.contexts, self.prompts = lengths["contexts"], lengths["prompts"]
        longest = max(*self.prompts, 2 * max(self.contexts))
        config = transformers.LlamaConfig(
            num_hidden_layers=layers, hidden_size=hidden, intermediate_size=mlp, vocab_size=vocab,
            num_attention_heads=heads, num_key_value_heads=kv_heads,
            max_position_embeddings=longest, attn_implementation="sdpa")
        torch.manual_seed(1)
        with torch.device(device):
            self.model = transformers.LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
        self.model.eval()
        self.token_bytes = layers * 2 * hidden // heads * kv_heads * 2

    def synchronize(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def largest_batch(self, tokens):
        if self.device == "cuda":
            torch.cuda.empty_cache()
            budget = SHARE_OF_MEMORY * torch.cuda.mem_get_info()[0] - OTHER_BYTES
        else:
            budget = HOST_BYTES
        return max(1, min(MOST_SEQUENCES, int(budget // (tokens * self.token_bytes))))

    def step(self, tokens, cache):
        """Takes tokens [batch, some] in; returns the likeliest next ones, [batch, 1]."""
        logits = self.model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        return logits[:, -1:].argmax(-1)

    def random_tokens(self, batch, count):
        return torch.randint(self.vocab, (batch, count), device=self.device)

    def filled_cache(self, batch, tokens, room):
        """A static cache of `batch` sequences of `tokens`, with room for `room`."""
        cache = transformers.StaticCache(config=self.model.config, max_cache_len=room)
        chunk = max(1, CHUNK // batch)
        for at in range(0, tokens, chunk):
            self.step(self.random_tokens(batch, min(chunk, tokens - at)), cache)
        return cache


def batches(sizes, most):
    return sorted({most, *(min(size, most) for size in sizes)})


def throughput(bench):
    for context in bench.contexts:
        most = bench.largest_batch(2 * context)
        for batch in batches((1, 16), most):
            cache = bench.filled_cache(batch, context + context // 2, 2 * context)
            tokens = bench.random_tokens(batch, 1)
            for step in range(WARM_UP_STEPS + TIMED_STEPS):
                if step == WARM_UP_STEPS:
                    bench.synchronize()
                    start = time.perf_counter()
                tokens = bench.step(tokens, cache)
            bench.synchronize()
            seconds = (time.perf_counter() - start) / TIMED_STEPS
            report(shape=bench.shape, part="throughput", context=context, batch=batch,
                   largest_batch=batch == most, step_ms=1e3 * seconds,
                   tokens_per_second=batch / seconds)
            del cache


def quantile(values, share):
    return sorted(values)[int(share * (len(values) - 1) + 0.5)]


def latency(bench):
    context = bench.contexts[len(bench.contexts) // 2]
    most = bench.largest_batch(2 * context)
    for batch in batches((1, 8, 32), most):
        cache = bench.filled_cache(batch, context + context // 2, 2 * context)
        tokens, times = bench.random_tokens(batch, 1), []
        for _ in range(WARM_UP_STEPS + min(WAITED_STEPS, context // 2 - WARM_UP_STEPS)):
            start = time.perf_counter()
            tokens = bench.step(tokens, cache)
            tokens.tolist()  # waits
            times.append(1e3 * (time.perf_counter() - start))
        times = times[WARM_UP_STEPS:]
        report(shape=bench.shape, part="latency", context=context, batch=batch,
               largest_batch=batch == most, steps=len(times), p50_ms=quantile(times, 0.5),
               p95_ms=quantile(times, 0.95), p99_ms=quantile(times, 0.99))
        del cache


def ttft(bench):
    for length in bench.prompts:
        prompt, times = bench.random_tokens(1, length), []
        for _ in range(1 + PROMPT_ROUNDS):
            cache = transformers.DynamicCache(config=bench.model.config)
            start = time.perf_counter()
            bench.step(prompt, cache).tolist()
            times.append(1e3 * (time.perf_counter() - start))
        times = times[1:]
        report(shape=bench.shape, part="ttft", prompt=length, ttft_ms=statistics.median(times),
               slowest_ms=max(times))


PARTS = {"throughput": throughput, "latency": latency, "ttft": ttft}


def main():
    words = [word for word in sys.argv[1:] if word != "--host"]
    device = "cpu" if "--host" in sys.argv else "cuda"
    shape = words[0] if words else "llama-2-7b"
    if shape not in SHAPES:
        sys.exit(f"transformers_gpu.py: there is no shape {shape}; there are {', '.join(SHAPES)}")
    parts = words[1:] or list(PARTS)
    for part in parts:
        if part not in PARTS:
            sys.exit(f"transformers_gpu.py: there is no part {part}; there are {', '.join(PARTS)}")
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("transformers_gpu.py: torch sees no GPU on this machine; --host runs without")
    report(version=transformers.__version__, torch=torch.__version__)
    bench = Bench(shape, device)
    with torch.inference_mode():
        for part in parts:
            PARTS[part](bench)


if __name__ == "__main__":
    main()
