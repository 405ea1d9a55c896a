#!/usr/bin/env python3
"""Others' attention at the sizes of bench_gpu, one line of JSON a result: PyTorch's
scaled_dot_product_attention, and FlashAttention and FlashInfer where they are installed.

    attention_peers.py            on the GPU
    attention_peers.py --host     small sizes on the CPU, to see that it works; times mean nothing

Decoding is dense and uniform (every head the same number of keys): what a stock engine reads at equal
slots. Prefill is causal over all tokens: what compressed prefill is measured against. `error` is the
distance from SDPA in f32 on the same numbers, relative to the result's norm.
"""
import json
import statistics
import sys
import time

try:
    import torch
except ImportError:
    print(json.dumps({"name": "sdpa", "missing": "torch"}))
    sys.exit(0 if "--host" in sys.argv else 1)

from torch.nn.functional import scaled_dot_product_attention

HOST = "--host" in sys.argv
DEVICE = "cpu" if HOST else "cuda"
BEYOND_L2 = 1e6 if HOST else 256e6
HEAD_DIM, PAGE = 128, 16
# batch, KV heads, query heads of each, slots
DECODES = [(2, 2, 1, 64), (2, 2, 4, 64)] if HOST else [
    (16, 32, 1, 2048), (4, 32, 1, 4096), (1, 32, 1, 4096), (64, 8, 4, 2048), (64, 8, 8, 2048)]
PROMPTS = (64,) if HOST else (4096, 32768)


def host_median_us(work, rounds):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(1e6 * (time.perf_counter() - start))
    return statistics.median(times)


def median_us(work, warm_ups=3, replays=30):
    """Median time of work() in a CUDA graph."""
    for _ in range(warm_ups):
        work()
    if HOST:
        return host_median_us(work, warm_ups)
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
    return torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16)


# A decoder takes q [batch, query heads, d] and a layer's k and v [batch, slots, KV heads, d], and
# returns a function without arguments that attends: [batch, query heads, d].

def sdpa(q, k, v):
    q, k, v = q.unsqueeze(2), k.transpose(1, 2).contiguous(), v.transpose(1, 2).contiguous()
    grouped = q.shape[1] > k.shape[1]
    return lambda: scaled_dot_product_attention(q, k, v, enable_gqa=grouped).squeeze(2)


def flash_attention(q, k, v):
    from flash_attn import flash_attn_with_kvcache
    lengths = torch.full((len(q),), k.shape[1], dtype=torch.int32, device=DEVICE)
    q = q.unsqueeze(1)
    return lambda: flash_attn_with_kvcache(q, k, v, cache_seqlens=lengths).squeeze(1)


def flashinfer(q, k, v):
    from flashinfer import BatchDecodeWithPagedKVCacheWrapper
    batch, slots, kv_heads, _ = k.shape
    pages = slots // PAGE
    k, v = (x.reshape(batch * pages, PAGE, kv_heads, HEAD_DIM) for x in (k, v))
    integers = {"dtype": torch.int32, "device": DEVICE}
    wrapper = BatchDecodeWithPagedKVCacheWrapper(
        torch.empty(128 << 20, dtype=torch.uint8, device=DEVICE), "NHD",
        use_tensor_cores=q.shape[1] >= 4 * kv_heads)
    wrapper.plan(torch.arange(batch + 1, **integers) * pages, torch.arange(batch * pages, **integers),
                 torch.full((batch,), PAGE, **integers), q.shape[1], kv_heads, HEAD_DIM, PAGE,
                 q_data_type=torch.bfloat16, kv_data_type=torch.bfloat16)
    return lambda: wrapper.run(q, (k, v))


DECODERS = {"sdpa": sdpa, "flash_attn": flash_attention, "flashinfer": flashinfer}


def bench_decode(decoder, batch, kv_heads, group, slots):
    """One query token a sequence over `slots` keys a head."""
    layer_bytes = batch * kv_heads * slots * 2 * HEAD_DIM * 2
    layers = max(1, min(16, round(BEYOND_L2 / layer_bytes + 0.5)))
    q = random(batch, kv_heads * group, HEAD_DIM)
    pairs = [(random(batch, slots, kv_heads, HEAD_DIM), random(batch, slots, kv_heads, HEAD_DIM))
             for _ in range(layers)]
    attend = [decoder(q, k, v) for k, v in pairs]
    exact = sdpa(q.float(), *(x.float() for x in pairs[0]))()
    error = ((attend[0]().float() - exact).norm() / exact.norm()).item()
    us = median_us(lambda: [work() for work in attend]) / layers
    return {"us_a_layer": us, "GB/s": layer_bytes / us * 1e-3, "error": error}


def bench_decodes(name, decoder):
    for batch, kv_heads, group, slots in DECODES:
        case = f"{name} decode batch={batch} kv_heads={kv_heads} group={group} slots={slots}"
        try:
            report(case, **bench_decode(decoder, batch, kv_heads, group, slots))
        except ImportError as error:
            report(name, missing=str(error))
            return
        except Exception as error:  # one that does not run here must not cost the others' results
            report(case, failed=f"{type(error).__name__}: {error}")


def bench_prefill(tokens, heads=2 if HOST else 32):
    q, k, v = (random(1, heads, tokens, HEAD_DIM) for _ in range(3))
    us = median_us(lambda: scaled_dot_product_attention(q, k, v, is_causal=True), replays=10)
    report(f"sdpa prefill tokens={tokens}", attention_us=us,
           TFLOPs=4 * HEAD_DIM * heads * tokens * tokens / 2 / us * 1e-6)


def main():
    if not HOST and not torch.cuda.is_available():
        sys.exit("attention_peers.py: torch sees no GPU on this machine; --host runs without")
    report("torch", version=torch.__version__, device=DEVICE if HOST else torch.cuda.get_device_name())
    for name, decoder in DECODERS.items():
        bench_decodes(name, decoder)
    for tokens in PROMPTS:
        bench_prefill(tokens)


if __name__ == "__main__":
    main()
