"""A model on dmc's engine."""

from __future__ import annotations

import atexit
import dataclasses
import json
import math
import os
import pathlib
import typing
import weakref
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from . import _core
from .errors import InvalidArgumentError
from .outputs import CompletionOutput, KvRecord, Likelihood, Logprob, RequestOutput, Score
from .sampling import SamplingParams

Prompt = typing.Union[str, Sequence[int]]
Message = Mapping[str, typing.Any]
Params = typing.Union[SamplingParams, Sequence[SamplingParams], None]

_TURN = 0.1  # seconds until Python looks for Ctrl-C again
_engines: weakref.WeakSet[_core.Engine] = weakref.WeakSet()
_at_exit: weakref.WeakSet[typing.Any] = weakref.WeakSet()  # to close() before engines stop


@atexit.register
def _stop_engines() -> None:
    """Threads must not compute any more when the process takes itself apart."""
    for user in list(_at_exit):
        user.close()
    for engine in list(_engines):
        engine.stop()


def _is_one(prompts: Prompt | Sequence[Prompt]) -> bool:
    return isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], (int, np.integer)))


def _with(params: SamplingParams | None, changes: Mapping[str, typing.Any]) -> SamplingParams:
    try:
        return dataclasses.replace(params or SamplingParams(), **changes)
    except TypeError:
        known = [field.name for field in dataclasses.fields(SamplingParams)]
        unknown = ", ".join(name for name in changes if name not in known)
        raise TypeError(f"{unknown}: not among the sampling parameters {', '.join(known)}") from None


def _find(model: str | os.PathLike[str]) -> str:
    """A model that comes with the package may be named alone: "builtin-4x"."""
    name = os.fspath(model)
    shipped = pathlib.Path(__file__).parent / "share" / "dmc" / "models" / name
    if os.sep not in name and not os.path.exists(name) and shipped.is_dir():
        return str(shipped)
    return name


class _Reply:
    """A request and what has come of it so far."""

    def __init__(self, llm: LLM, prompt: str | None, ids: list[int], params: SamplingParams, chat: bool):
        self._llm = llm
        rated = params.logprobs is not None
        outputs = [
            CompletionOutput(i, "", [], cumulative_logprob=0.0 if rated else None, logprobs=[] if rated else None)
            for i in range(params.n)
        ]
        self.output = RequestOutput(prompt, ids, outputs)
        if params.prompt_logprobs is not None:
            self.output.prompt_logprobs = [None]
        self.ticket = llm._engine.submit(ids, params._asked(chat))

    def events(self) -> Iterator[_core.Event]:
        """Until the end. Who leaves early, by Ctrl-C or otherwise, cancels the request."""
        try:
            while not self.ticket.done():
                for event in self.ticket.take(_TURN):
                    self._note(event)
                    yield event
        finally:
            self.ticket.cancel()

    def finish(self) -> RequestOutput:
        for _ in self.events():
            pass
        return self.output

    def _rated(self, rated: _core.Logprobs) -> dict[int, Logprob]:
        decode = self._llm.decode
        listed = {t.token: Logprob(t.logprob, i + 1, decode([t.token])) for i, t in enumerate(rated.top)}
        own = rated.token
        listed.setdefault(own.token, Logprob(own.logprob, rated.rank, decode([own.token])))
        return listed

    def _note(self, event: _core.Event) -> None:
        if event.prompt_logprobs:
            assert self.output.prompt_logprobs is not None
            self.output.prompt_logprobs += [self._rated(rated) for rated in event.prompt_logprobs]
            return
        output = self.output.outputs[event.choice]
        output.text += event.text
        if event.token is not None:
            output.token_ids.append(event.token)
        if event.logprobs is not None and output.logprobs is not None:
            output.logprobs.append(self._rated(event.logprobs))
            output.cumulative_logprob += event.logprobs.token.logprob
        if event.finish_reason:
            output.finish_reason = event.finish_reason
            output.stop_reason = event.stop_string if event.stop_string is not None else event.stop_token
            output.kv = self._llm._record(event.kv)


class LLM:
    """A model that writes and rates texts.

    `model` is a Hugging Face directory, a GGUF file, "org/name" of what `hf download` has fetched, or
    a model that comes with dmc ("builtin", "builtin-4x", "builtin-dms"). Any thread may call any
    method; requests of all of them are computed together.

    weights: f32, bf16, f16, int8 or int4; "" leaves them as the files have them.
    kv: precision of the cache's closed slots: f32, bf16, f16, int8 or fp8.
    policy: "" is what the model was retrofitted for, else "dense"; "h2o", "tova", "window" and
        "snapkv" compress any model, to a budget of slots a head or to a ratio cr.
    cr: on a retrofitted model, a ratio to hold; 0: what the model chooses.
    max_model_len: tokens of prompt and text together; None: the model's own context.
    max_num_seqs: texts that are computed at once; the others wait.
    kv_cache_memory_bytes: what the cache may take; 0: as much as it needs.
    enable_prefix_caching: beginnings of prompts stay in the cache for the next ones.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        weights: str = "",
        kv: str = "f32",
        policy: str = "",
        budget: int = 0,
        cr: float = 0.0,
        decision_bias: float = 0.0,
        adapter: str | os.PathLike[str] = "",
        device: str = "cpu",
        max_model_len: int | None = None,
        max_num_seqs: int = 64,
        kv_cache_memory_bytes: int = 0,
        enable_prefix_caching: bool = True,
    ):
        self._engine = _core.Engine(
            _find(model), weights=weights, kv=kv, device=device, adapter=os.fspath(adapter), policy=policy,
            budget=budget, cr=cr, decision_bias=decision_bias, context=max_model_len or 0,
            max_sequences=max_num_seqs, cache_bytes=kv_cache_memory_bytes,
            share_prefixes=enable_prefix_caching,
        )  # fmt: skip
        _engines.add(self._engine)
        self._shape = self._engine.shape

    @property
    def shape(self) -> dict[str, int]:
        """layers, heads, kv_heads, head_dim, hidden_size, vocab_size, context and parameters."""
        return dict(self._shape)

    @property
    def policy(self) -> str:
        """What decides which tokens share or lose their slots."""
        return self._engine.policy

    @property
    def eos_token_ids(self) -> list[int]:
        """Tokens that end a text."""
        return list(self._engine.eos_ids)

    def close(self) -> None:
        """Ends what runs; the model is of no more use. Otherwise it ends with the last reference."""
        self._engine.stop()

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a prompt, with what the model wants around it (BOS) and special tokens known,
        or of plain text."""
        return self._engine.encode(text, as_prompt=add_special_tokens)

    def decode(self, ids: Sequence[int]) -> str:
        return self._engine.decode(list(ids))

    def generate(
        self, prompts: Prompt | Sequence[Prompt], sampling_params: Params = None, **params: typing.Any
    ) -> list[RequestOutput]:
        """Continues each prompt, a text or a list of token ids; all of them at once.

        Sampling parameters may be given by name: generate(prompts, max_tokens=50, temperature=0).
        """
        listed = [prompts] if _is_one(prompts) else list(prompts)
        return self._finish(self._start(listed, sampling_params, params))

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: Params = None,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, typing.Any]] | None = None,
        chat_template_kwargs: Mapping[str, typing.Any] | None = None,
        **params: typing.Any,
    ) -> list[RequestOutput]:
        """The model's reply to each conversation, a list of {"role": ..., "content": ...}."""
        one = len(messages) > 0 and isinstance(messages[0], Mapping)
        conversations = [messages] if one else list(messages)
        variables = dict(chat_template_kwargs or {}) | ({"tools": list(tools)} if tools else {})
        ids = [self._chat_ids(c, add_generation_prompt, variables) for c in conversations]
        return self._finish(self._start(ids, sampling_params, params, chat=True))

    def stream(
        self, prompt: Prompt | Sequence[Message], sampling_params: SamplingParams | None = None, **params: typing.Any
    ) -> Iterator[str]:
        """The text of one prompt or the reply to one conversation, piece by piece as it is written.

        A stream that is dropped is cancelled.
        """
        wanted = _with(sampling_params, params)
        if wanted.n != 1:
            raise InvalidArgumentError(f"a stream is of one text, found {wanted.n}", "n")
        chat = len(prompt) > 0 and isinstance(prompt[0], Mapping)
        ids = self._chat_ids(prompt, True, {}) if chat else prompt
        reply = self._start([ids], wanted, {}, chat)[0]
        return (event.text for event in reply.events() if event.text)

    def score(self, text: Prompt, window: int | None = None) -> Score:
        """How well the model predicts a text with its cache compressed, as `dmc eval` measures it.

        The text is cut into windows of so many tokens (None: the model's context) that are taken in
        one by one; of each, all tokens but the first are rated. Nothing is put around the text.
        """
        ids = self.encode(text, add_special_tokens=False) if isinstance(text, str) else list(text)
        rated = _core.score(self._engine, ids, window or 0)
        return Score(-rated.loss * rated.predicted, rated.predicted, rated.accuracy, self._record(rated.kv))

    def loglikelihood(self, context: Prompt, continuations: str | Sequence[Prompt]) -> list[Likelihood]:
        """How likely each continuation is after a context, which is taken in once for all.

        Texts are cut into tokens as lm-evaluation-harness does: white space at the context's end goes
        to the continuation, and what both together have beyond the context's tokens is rated. A
        context that is too long loses its beginning.
        """
        listed = [continuations] if isinstance(continuations, str) else list(continuations)
        if isinstance(context, str):
            kept = context.rstrip()
            start = len(self.encode(kept))
            listed = [self.encode(context + c)[start:] if isinstance(c, str) else list(c) for c in listed]
            context = self.encode(kept)
        rated = self._engine.rate(list(context), [list(c) for c in listed])
        return [Likelihood(r.log_prob, len(c), r.greedy) for r, c in zip(rated, listed)]

    def inspect(self, text: Prompt) -> KvRecord:
        """What is left of a text in the cache when it has been taken in: by_head tells where."""
        output = self.generate([text], max_tokens=0)[0]
        assert output.kv is not None
        return output.kv

    def _chat_ids(self, messages: Sequence[Message], reply: bool, variables: Mapping[str, typing.Any]) -> list[int]:
        return self._engine.encode_chat(json.dumps(list(messages)), json.dumps(variables), reply)

    def _record(self, kv: _core.Kv) -> KvRecord:
        shape = (self._shape["layers"], self._shape["kv_heads"])
        slots = np.array(kv.slots, np.int64)
        return KvRecord(kv.seen, slots.reshape(shape if slots.size == math.prod(shape) else (0, 0)), kv.bytes)

    def _start(
        self, prompts: Sequence[Prompt], given: Params, changes: Mapping[str, typing.Any], chat: bool = False
    ) -> list[_Reply]:
        if given is None or isinstance(given, SamplingParams):
            given = [_with(given, changes)] * len(prompts)
        elif changes:
            given = [_with(params, changes) for params in given]
        if len(given) != len(prompts):
            raise InvalidArgumentError(f"{len(given)} for {len(prompts)} prompts", "sampling_params")
        replies: list[_Reply] = []
        try:
            for prompt, params in zip(prompts, given):
                text = prompt if isinstance(prompt, str) else None
                ids = self.encode(prompt) if isinstance(prompt, str) else [int(i) for i in prompt]
                replies.append(_Reply(self, text, ids, params, chat))
        except BaseException:
            _cancel(replies)
            raise
        return replies

    def _finish(self, replies: list[_Reply]) -> list[RequestOutput]:
        try:
            return [reply.finish() for reply in replies]
        finally:
            _cancel(replies)


def _cancel(replies: list[_Reply]) -> None:
    for reply in replies:
        reply.ticket.cancel()
