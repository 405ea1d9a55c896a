"""What comes back, with vLLM's names; and what the cache took."""

from __future__ import annotations

import dataclasses
import math

import numpy as np


@dataclasses.dataclass
class KvRecord:
    """What a text has in the KV cache."""

    seen: int  # tokens taken in
    slots: np.ndarray  # kept of them, int64 [layers, kv_heads]
    bytes: int

    @property
    def kept(self) -> float:
        """Slots, the mean over layers and heads."""
        return float(self.slots.mean()) if self.slots.size else float(self.seen)

    @property
    def ratio(self) -> float:
        """Tokens seen for each slot kept."""
        return self.seen / self.kept if self.kept else 1.0

    @property
    def by_head(self) -> np.ndarray:
        """The ratio of each layer and KV head, float64 [layers, kv_heads]."""
        return self.seen / np.maximum(self.slots, 1)

    @property
    def by_layer(self) -> np.ndarray:
        """The ratio of each layer, float64 [layers]."""
        return self.seen / np.maximum(self.slots.mean(axis=1), 1) if self.slots.size else np.ones(0)

    def __repr__(self) -> str:
        return f"KvRecord(seen={self.seen}, kept={self.kept:.1f}, ratio={self.ratio:.2f}, bytes={self.bytes})"


@dataclasses.dataclass
class Logprob:
    logprob: float  # natural logarithm
    rank: int  # 1: no token was likelier
    decoded_token: str


@dataclasses.dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None = None  # "stop" or "length"
    stop_reason: int | str | None = None  # the token or string that ended it
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None  # of each token: it, and the likeliest
    kv: KvRecord | None = None


@dataclasses.dataclass
class RequestOutput:
    prompt: str | None  # None: it was given as token ids or messages
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    # Of each token of the prompt; of the first, which nothing is before, None.
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None

    @property
    def text(self) -> str:
        """Of the first output."""
        return self.outputs[0].text

    @property
    def kv(self) -> KvRecord | None:
        """Of the first output."""
        return self.outputs[0].kv


@dataclasses.dataclass
class Score:
    """How well a text is predicted."""

    logprob: float  # natural logarithm, the sum over the tokens that were rated
    tokens: int  # that were rated
    accuracy: float  # the share of them that was the model's first choice
    kv: KvRecord  # of all windows together

    @property
    def loss(self) -> float:
        """Nats a token."""
        return -self.logprob / self.tokens

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)


@dataclasses.dataclass
class Likelihood:
    """How likely a continuation is."""

    logprob: float  # natural logarithm, the sum over its tokens
    tokens: int
    greedy: bool  # each of them was the model's first choice
