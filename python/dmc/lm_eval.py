"""dmc as a model of lm-evaluation-harness:

    python -m dmc.lm_eval run --model dmc --model_args path=builtin-4x --tasks piqa

The harness finds models by name among its own; this command adds "dmc" to them and is otherwise its
command. In a program: import dmc.lm_eval before lm_eval.simple_evaluate(model="dmc", ...).
"""

from __future__ import annotations

import typing

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from .errors import InvalidArgumentError
from .llm import LLM
from .sampling import SamplingParams

_AT_ONCE = 64  # texts that are written before the progress is shown again


@register_model("dmc")
class DmcLM(TemplateLM):
    """model_args: path (or pretrained), max_gen_toks, on (cpu or cuda), and the other
    options of dmc.LLM, such as kv=int8 or cr=4."""

    def __init__(
        self, path: str = "", pretrained: str = "", max_gen_toks: int = 256, on: str = "cpu",
        device: typing.Any = None, batch_size: typing.Any = None, max_batch_size: typing.Any = None, **options: typing.Any,
    ):  # fmt: skip
        super().__init__()
        if not (path or pretrained):
            raise InvalidArgumentError("give the model: --model_args path=DIR", "path")
        # The harness says cuda:0 where nobody asked for a device, so `on` is ours.
        self.llm = LLM(path or pretrained, device=on, **options)
        self._path = path or pretrained
        self.max_gen_toks = max_gen_toks

    @property
    def max_length(self) -> int:
        return self.llm.shape["context"]

    @property
    def eot_token_id(self) -> int:
        return next(iter(self.llm.eos_token_ids), 0)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has nothing before it: BOS, else the end of the text before."""
        return next(iter(self.llm.encode("")), self.eot_token_id)

    @property
    def tokenizer_name(self) -> str:
        return self._path

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: typing.Any) -> list[int]:
        return self.llm.encode(string, add_special_tokens is not False)

    def apply_chat_template(self, chat_history: typing.Any, add_generation_prompt: bool = True) -> str:
        raise InvalidArgumentError("not taken by this model yet; leave it out", "apply_chat_template")

    def _loglikelihood_tokens(
        self, requests: list[tuple[typing.Any, list[int], list[int]]], disable_tqdm: bool = False, **kwargs: typing.Any
    ) -> list[tuple[float, bool]]:
        """A context that several continuations share is taken in once."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (_, context, _) in enumerate(requests):
            groups.setdefault(tuple(context), []).append(i)
        results: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        with tqdm(total=len(requests), desc="loglikelihood", disable=disable_tqdm) as bar:
            for context, members in groups.items():
                rated = self.llm.loglikelihood(list(context), [requests[i][2] for i in members])
                for i, likelihood in zip(members, rated):
                    results[i] = (likelihood.logprob, likelihood.greedy)
                    if requests[i][0] is not None:
                        self.cache_hook.add_partial("loglikelihood", requests[i][0], results[i])
                bar.update(len(members))
        return results

    def loglikelihood_rolling(self, requests: list[typing.Any], disable_tqdm: bool = False) -> list[float]:
        sums = []
        for request in tqdm(requests, desc="loglikelihood_rolling", disable=disable_tqdm):
            tokens = self.tok_encode(request.args[0], add_special_tokens=False)
            windows = utils.get_rolling_token_windows(
                token_list=tokens, prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            )
            pairs = [(None, *utils.make_disjoint_window(window)) for window in windows]
            sums.append(sum(logprob for logprob, _ in self._loglikelihood_tokens(pairs, disable_tqdm=True)))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, sums[-1])
        return sums

    def generate_until(self, requests: list[typing.Any], disable_tqdm: bool = False) -> list[str]:
        texts: list[str] = []
        with tqdm(total=len(requests), desc="generate_until", disable=disable_tqdm) as bar:
            for first in range(0, len(requests), _AT_ONCE):
                asked = [request.args for request in requests[first : first + _AT_ONCE]]
                params = [self._params(options) for _, options in asked]
                # A context that is too long loses its beginning.
                prompts = [
                    self.tok_encode(context)[-max(1, self.max_length - p.max_tokens) :]
                    for (context, _), p in zip(asked, params)
                ]
                for args, output in zip(asked, self.llm.generate(prompts, params)):
                    texts.append(output.text)
                    self.cache_hook.add_partial("generate_until", args, output.text)
                bar.update(len(asked))
        return texts

    def _params(self, options: typing.Mapping[str, typing.Any]) -> SamplingParams:
        until = options.get("until") or ()
        until = [until] if isinstance(until, str) else list(until)
        tokens = next((int(options[n]) for n in ("max_gen_toks", "max_new_tokens", "max_tokens") if n in options), None)
        given = {n: options[n] for n in ("top_p", "top_k", "min_p", "repetition_penalty", "seed") if n in options}
        drawn = options.get("do_sample", options.get("temperature", 0) > 0)
        return SamplingParams(
            max_tokens=min(tokens if tokens is not None else self.max_gen_toks, self.max_length - 1),
            temperature=float(options.get("temperature", 1.0)) if drawn else 0.0,
            stop=[stop for stop in until if stop],
            **given,
        )


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
