"""Everything that defines a run, with the names, defaults and checks of `dmc retrofit`."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from dataclasses import dataclass, field
from typing import Any


class OptionError(ValueError):
    """An option that cannot be; says which, why, and what would do."""


@dataclass(frozen=True)
class Method:
    """What a decision does (src/train/method_table.cpp); sizes as (usual, largest)."""

    window: tuple[int, int]
    delay: tuple[int, int]
    pools: bool = True
    newest_weighs_one: bool = False
    importance_offset: float | None = None


METHODS = {
    "dmc": Method(window=(12, 1024), delay=(0, 0)),
    "dms": Method(window=(1, 1), delay=(64, 1 << 20), pools=False),
    "dmc-delayed": Method(
        window=(12, 1024), delay=(64, 1 << 20), newest_weighs_one=True, importance_offset=-4.0
    ),
}


@dataclass
class RetrofitOptions:
    """What the model is taught; None: as the method is used (resolved())."""

    method: str = "dmc-delayed"
    # Who decides: "neuron", a channel that each head gives up, or "adapter", a projection beside
    # each layer. None: an adapter, trained together with the model.
    decisions: str | None = None
    train_base: bool = False  # with an adapter that is asked for: the model's own weights, too
    cr: float = 4.0
    window: int | None = None
    delay: int | None = None
    offset: float = 3.0  # c of the decision and importance logits; the former's adapts at the end
    importance_offset: float | None = None
    temperature: float = 0.1
    # Factor on decision logits, folded into the weights at the end; None: by the learning rate.
    decision_scale: float | None = None
    compression_weight: float = 1.0  # at first; it adapts
    weight_gain: float = 0.4
    offset_gain: float = 3.0  # how fast the offset follows the served ratio in the finetune stage
    head_cap: float = 16.0  # a head's compression counts up to this ratio
    distill: str = ""  # "forward": KL(teacher || student), "reverse"; empty: none
    distill_weight: float = 1.0

    @property
    def table(self) -> Method:
        return METHODS[self.method]

    @property
    def adapter_alone(self) -> bool:
        return self.decisions == "adapter" and not self.train_base

    def resolved(self, length: int, usual_scale: float = 10.0) -> RetrofitOptions:
        """With nothing left open, checked, for sequences of so many tokens."""
        if self.decisions is None:
            self = dataclasses.replace(self, decisions="adapter", train_base=True)
        if self.decision_scale is None:
            self = dataclasses.replace(self, decision_scale=usual_scale)
        _one_of("method", self.method, METHODS)
        _one_of("decisions", self.decisions, ("neuron", "adapter"))
        _one_of("distill", self.distill, ("", "forward", "reverse"))
        _require(1.0 <= self.cr <= 64.0, "cr", self.cr, "a ratio from 1 to 64")
        for name in ("offset", "temperature", "decision_scale", "compression_weight"):
            _require(getattr(self, name) > 0.0, name, getattr(self, name), "more than 0")
        for name in ("weight_gain", "offset_gain"):
            _require(getattr(self, name) >= 0.0, name, getattr(self, name), "at least 0")
        _require(self.head_cap >= 1.0, "head_cap", self.head_cap, "a ratio of at least 1")
        _require(
            0.0 < self.distill_weight <= 1.0,
            "distill_weight",
            self.distill_weight,
            "more than 0 and at most 1",
        )
        if self.decisions != "adapter" and self.train_base:
            raise OptionError(
                'train_base: decisions = "neuron" always trains the model\'s own '
                "weights; leave it out"
            )
        method = self.table
        usual = max(1, min(int(length / (2 * self.cr)), method.delay[0])) if method.delay[0] else 0
        full = dataclasses.replace(
            self,
            window=method.window[0] if self.window is None else self.window,
            delay=usual if self.delay is None else self.delay,
            importance_offset=method.importance_offset
            if self.importance_offset is None
            else self.importance_offset,
        )
        _check_size(self.method, "window", method.window, full.window)
        _check_size(self.method, "delay", method.delay, full.delay)
        if full.delay > 0 and (full.delay >= length - 1 or (full.delay + 1) * self.cr > length):
            raise OptionError(
                f"delay: {full.delay} keeps so many of {length} tokens that a ratio of "
                f"{self.cr:g} cannot be reached; give a smaller one or a larger length"
            )
        return full


@dataclass
class TrainOptions:
    """A whole run: the tables of a configuration file, flat."""

    model: str = ""
    out: str = ""
    train: list[str] = field(default_factory=list)  # token shards, without .bin
    weights: list[float] | None = None  # of the shards; None: by their tokens
    valid: list[str] = field(default_factory=list)
    length: int | None = None
    batch: int | None = None
    accumulate: int = 1
    zero_out_steps: int | None = None  # in which a channel fades; None: a sixth of `steps`
    steps: int = 200  # in which the ratio rises
    finetune_steps: int | None = None  # at the full ratio, the rate decaying; None: as many
    lr: float | None = None
    final_lr: float | None = None
    warmup: int = 20
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-5
    clip: float = 1.0
    seed: int = 1
    dtype: str = "f32"  # of the model that is written
    retrofit: RetrofitOptions = field(default_factory=RetrofitOptions)
    # Not part of the run's identity: it may go on elsewhere.
    precision: str = ""  # of products: f32 or bf16; empty: bf16 on CUDA
    tensor_parallel: int = 1
    activation_checkpointing: bool = False
    cpu_offload: bool = False
    compile: bool = False
    checkpoint_every: int = 100
    eval_every: int = 0  # steps; 0: at the end alone
    valid_windows: int = 0  # at most so many; 0: all
    timeout: float = 600.0  # seconds that a process waits for the others

    _ELSEWHERE = (
        "precision",
        "tensor_parallel",
        "activation_checkpointing",
        "cpu_offload",
        "compile",
        "checkpoint_every",
        "eval_every",
        "valid_windows",
        "timeout",
        "out",
        "valid",
    )

    def stages(self) -> list[tuple[str, int]]:
        """Of resolved() options: each with its steps."""
        zero_out = (
            [("zero-out", self.zero_out_steps)] if self.retrofit.decisions == "neuron" else []
        )
        return [*zero_out, ("retrofit", self.steps), ("finetune", self.finetune_steps)]

    def total_steps(self) -> int:
        return sum(steps for _, steps in self.stages())

    def identity(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if k not in self._ELSEWHERE}

    def resolved(
        self, *, context: int, parameters: float, hidden: int, shares: int
    ) -> TrainOptions:
        """With what was left open chosen from the model, as src/train/defaults.cpp chooses.
        hidden: channels of the residual stream; shares: processes times parts of a batch."""
        length = self.length or min(2048, context)
        _require(2 <= length <= context, "length", length, f"2 to the model's context, {context}")
        rows = max(1, round(8192 / length))
        batch = self.batch or -(-rows // shares) * shares
        _require(
            batch > 0 and batch % shares == 0,
            "batch",
            batch,
            f"a multiple of {shares}, the processes times the parts of accumulate",
        )
        for name in ("zero_out_steps", "steps", "finetune_steps", "accumulate", "checkpoint_every"):
            given = getattr(self, name)
            _require(given is None or given >= 1, name, given, "at least 1")
        _one_of("dtype", self.dtype, ("f32", "bf16", "f16"))
        _one_of("precision", self.precision, ("", "f32", "bf16"))
        lr = self.lr or _usual_rate(parameters, batch * length, self.retrofit.adapter_alone)
        scale = usual_decision_scale(lr, hidden, self.steps)
        return dataclasses.replace(
            self,
            length=length,
            batch=batch,
            lr=lr,
            retrofit=self.retrofit.resolved(length, scale),
            final_lr=0.1 * lr if self.final_lr is None else self.final_lr,
            zero_out_steps=self.zero_out_steps or max(1, self.steps // 6),
            finetune_steps=self.finetune_steps or self.steps,
        )


def read_config(path: str | pathlib.Path, changes: list[str] | None = None) -> TrainOptions:
    """A TOML file with TrainOptions' names and a table [retrofit]; `changes`: "retrofit.cr=8"."""
    tomllib = _tomllib()
    try:
        values = tomllib.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        for change in changes or []:
            name, _, value = change.partition("=")
            table, _, key = name.rpartition(".")
            into = values.setdefault(table, {}) if table else values
            into.update(tomllib.loads(f"{key} = {value}"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"{path}: {error}") from None
    retrofit = _build(RetrofitOptions, values.pop("retrofit", {}), f"{path}, [retrofit]")
    options = _build(TrainOptions, values, str(path))
    options.retrofit = retrofit
    for name in ("model", "out", "train"):
        if not getattr(options, name):
            raise OptionError(f"{path}: {name} is missing")
    return options


def _tomllib():
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    return tomllib


def _build(kind, values: dict[str, Any], origin: str):
    known = {f.name: f for f in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in known or name == "retrofit":
            raise OptionError(f"{origin}: {name} is none of {', '.join(sorted(known))}")
        kinds = known[name].type
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fits = {
            "str": isinstance(value, str),
            "bool": isinstance(value, bool),
            "int": isinstance(value, int) and number,
            "float": number,
            "list[str]": isinstance(value, list) and all(isinstance(x, str) for x in value),
            "list[float]": isinstance(value, list)
            and all(isinstance(x, (int, float)) for x in value),
        }
        if not fits[kinds.split(" |")[0]] or (number and not math.isfinite(value)):
            raise OptionError(f"{origin}: {name} is {value!r}, expected {kinds.split(' |')[0]}")
    return kind(**values)


def _usual_rate(parameters: float, tokens_of_step: float, adapter_alone: bool) -> float:
    rate = 1e-3 if adapter_alone else 1e-4
    size = (3e6 / max(parameters, 1.0)) ** 0.2
    rate *= min(max(size, 0.1), 2.0) * math.sqrt(min(tokens_of_step / 8192, 4.0))
    return _two_digits(rate)


def usual_decision_scale(lr: float, hidden: int, steps: int) -> float:
    """Decisions' logits move by at most 0.75 a step, more where there are few in which the ratio
    rises."""
    return _two_digits(0.75 * max(1.0, 140.0 / steps) / (lr * hidden))


def _two_digits(x: float) -> float:
    unit = 10.0 ** (math.floor(math.log10(x)) - 1)
    return round(x / unit) * unit


def _require(holds: bool, name: str, given: Any, expected: str) -> None:
    if not holds:
        raise OptionError(f"{name}: {given} was given, expected {expected}")


def _one_of(name: str, given: str, known) -> None:
    _require(given in known, name, f'"{given}"', "one of " + ", ".join(f'"{x}"' for x in known))


def _check_size(method: str, name: str, size: tuple[int, int], given: int) -> None:
    usual, largest = size
    if usual == largest and given != usual:
        raise OptionError(f"{name}: method {method} cannot be given any; leave it out")
    _require(0 <= given <= largest, name, given, f"0 to {largest} with method {method}")
