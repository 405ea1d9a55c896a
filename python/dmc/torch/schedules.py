"""How training changes over its steps, and the numbers it draws: the formulas of the C++ trainer
(src/policy/schedule.cpp, src/base/rng.h), so that both run the same."""

from __future__ import annotations

import math

import torch

_BITS = (1 << 64) - 1


def _fraction(part: int, whole: int) -> float:
    return 1.0 if whole <= 0 else part / whole


def fade(step: int, steps: int) -> float:
    """What is left of what a stage takes away; 0 after four fifths of it."""
    return max(0.0, 1.0 - _fraction(step, steps) / 0.8)


def ramped_cr(step: int, steps: int, target: float) -> float:
    return 1.0 + (target - 1.0) * min(1.0, _fraction(step, steps))


def merge_fraction(cr: float) -> float:
    """Of tokens, the share that must merge for a compression ratio."""
    return 1.0 - 1.0 / cr


def adapted_weight(weight: float, gain: float, wanted_cr: float, measured_cr: float) -> float:
    """The compression loss's next weight: it rises while the model lags behind, as in dual
    ascent."""
    return max(0.0, weight + gain * (merge_fraction(wanted_cr) - merge_fraction(measured_cr)))


def adapted_offset(offset: float, gain: float, wanted_cr: float, served_cr: float) -> float:
    """The decisions' next offset in the finetune stage: up while too many tokens merge or go as the
    model is served, down while too few do; it stays above 0."""
    return max(0.01, offset + gain * (merge_fraction(served_cr) - merge_fraction(wanted_cr)))


def learning_rate(step: int, total: int, warmup: int, decay: int, peak: float, floor: float):
    """Linear warm-up to the peak, then a cosine over the last `decay` steps down to the floor."""
    if step < warmup:
        return peak * _fraction(step + 1, warmup)
    into_decay = step - (total - decay)
    if into_decay < 0 or decay <= 0:
        return peak
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * _fraction(into_decay, decay)))


def _mix(x: int) -> int:  # SplitMix64's finalizer (Steele, Lea, Flood 2014)
    x = (x + 0x9E3779B97F4A7C15) & _BITS
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _BITS
    return x ^ (x >> 31)


def random_bits(seed: int, stream: int, index: int) -> int:
    """64 bits that depend on these three alone."""
    return _mix(_mix(_mix(seed & _BITS) ^ stream) ^ index)


def logistic_noise(seed: int, step: int, layer: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """[rows of the whole batch, T, all KV heads]: the difference of two Gumbel variables. Drawn on
    the CPU for everything, so that a run has the same noise however it is shared out."""
    generator = torch.Generator().manual_seed(random_bits(seed, step, layer))
    u = torch.rand(shape, generator=generator).clamp(1e-7, 1.0 - 1e-7)
    return u.log() - (1.0 - u).log()
