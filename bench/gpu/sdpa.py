#!/usr/bin/env python3
"""PyTorch's scaled_dot_product_attention at the sizes of bench_gpu, one line of JSON a result.

Decoding is dense and uniform (every head the same number of keys, contiguous): what a stock engine
reads at equal slots. Prefill is causal over all tokens: what compressed prefill is measured against.
"""
import json
import statistics
import sys

try:
    import torch
except ImportError:
    sys.exit("sdpa.py: this Python has no torch")

BEYOND_L2 = 256e6
HEAD_DIM = 128


def median_us(work, warm_ups=3, replays=30):
    """Median time of work() in a CUDA graph."""
    for _ in range(warm_ups):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    times = []
    for _ in range(warm_ups + replays):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1e3 * begin.elapsed_time(end))
    return statistics.median(times[warm_ups:])


def report(name, **values):
    print(json.dumps({"name": name, **values}), flush=True)


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def decode(batch, kv_heads, group, slots):
    """One query token a sequence over `slots` keys a head."""
    layer_bytes = batch * kv_heads * slots * 2 * HEAD_DIM * 2
    layers = max(1, min(16, round(BEYOND_L2 / layer_bytes + 0.5)))
    keys, values = ([random(batch, kv_heads, slots, HEAD_DIM) for _ in range(layers)]
                    for _ in range(2))
    q = random(batch, kv_heads * group, 1, HEAD_DIM)

    def work():
        for k, v in zip(keys, values):
            torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=group > 1)

    us = median_us(work) / layers
    report(f"sdpa decode batch={batch} kv_heads={kv_heads} group={group} slots={slots}",
           us_a_layer=us, GBps=layer_bytes / us * 1e-3)


def prefill(tokens, heads=32):
    q, k, v = (random(1, heads, tokens, HEAD_DIM) for _ in range(3))
    us = median_us(
        lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        replays=10)
    report(f"sdpa prefill tokens={tokens}", attention_us=us,
           TFLOPs=4 * HEAD_DIM * heads * tokens * tokens / 2 / us * 1e-6)


def main():
    if not torch.cuda.is_available():
        sys.exit("sdpa.py: torch sees no GPU on this machine")
    report("torch", version=torch.__version__, gpu=torch.cuda.get_device_name())
    for batch, kv_heads, group, slots in [(16, 32, 1, 2048), (4, 32, 1, 4096), (1, 32, 1, 4096),
                                          (64, 8, 4, 2048), (64, 8, 8, 2048)]:
        decode(batch, kv_heads, group, slots)
    for tokens in (4096, 32768):
        prefill(tokens)


if __name__ == "__main__":
    main()
