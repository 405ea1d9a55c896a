"""How a text is drawn, with vLLM's names and defaults."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence

from . import _core


@dataclasses.dataclass
class SamplingParams:
    n: int = 1  # texts for each prompt
    max_tokens: int = 16  # 0: the prompt is taken in, and rated if that is asked for
    min_tokens: int = 0
    temperature: float = 1.0  # 0: always the likeliest token
    top_p: float = 1.0
    top_k: int = 0  # 0 and -1: all
    min_p: float = 0.0
    seed: int | None = None  # None: another one each time
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = dataclasses.field(default_factory=dict)
    logprobs: int | None = None  # so many of the likeliest tokens beside each; None: none is rated
    prompt_logprobs: int | None = None

    def _asked(self, chat: bool) -> _core.Asked:
        asked = _core.Asked()
        asked.chat = chat
        asked.choices = self.n
        asked.top_k = 0 if self.top_k == -1 else self.top_k
        asked.seed = random.getrandbits(63) if self.seed is None else self.seed
        asked.stop = [self.stop] if isinstance(self.stop, str) else list(self.stop)
        asked.stop_ids = list(self.stop_token_ids)
        asked.keep_stop = self.include_stop_str_in_output
        asked.skip_special = self.skip_special_tokens
        asked.bias = sorted((int(token), float(bias)) for token, bias in self.logit_bias.items())
        for name in _SAME_NAME:
            setattr(asked, name, getattr(self, name))
        return asked


_SAME_NAME = [
    "max_tokens", "min_tokens", "temperature", "top_p", "min_p", "ignore_eos", "presence_penalty",
    "frequency_penalty", "repetition_penalty", "logprobs", "prompt_logprobs",
]  # fmt: skip
