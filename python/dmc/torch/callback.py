"""A retrofit in the Trainer of transformers, for those whose loop that is."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from typing import Any

import torch
import torch.distributed as dist
import transformers
from torch import Tensor, nn

from . import model as models
from .options import OptionError, RetrofitOptions, usual_decision_scale

_FILE = "dmc_decisions.json"  # in a checkpoint of the Trainer


class RetrofitCallback(transformers.TrainerCallback):
    """Teaches the model of a transformers.Trainer to compress its cache, within the Trainer's steps:

        callback = RetrofitCallback(model, RetrofitOptions(cr=4), length=2048)
        Trainer(model, args, train_dataset=rows, callbacks=[callback]).train()
        callback.export("models/mine", "mine-4x")

    Make it before the Trainer. Rows have `length` input_ids, and labels: full sequences without
    padding. The loss that is reported is the model's own; what decisions add to it goes into the
    gradients alone. While the Trainer evaluates, decisions are those of a model in use. Logs have
    "cr" and "wanted_cr"; the Trainer's checkpoints have what a resumed run needs.

    finetune_share: of all steps, those at the end that keep the full ratio. Of the others, where a
    channel decides, the first seventh lets it fade; in the rest the ratio rises."""

    def __init__(
        self,
        model: nn.Module,
        options: RetrofitOptions | None = None,
        *,
        length: int,
        seed: int = 1,
        finetune_share: float = 0.5,
    ):
        options = options or RetrofitOptions()
        if options.distill:
            raise OptionError("distill: a Trainer has no teacher; leave it out, or use dmc.torch's own")
        if not 0.0 < finetune_share < 1.0:
            raise OptionError(f"finetune_share: {finetune_share} was given, expected 0 to 1")
        self._chosen_scale = options.decision_scale
        self.decisions = models.retrofit(model, options, length=length, seed=seed)
        self.model, self.length, self.finetune_share = model, length, finetune_share
        self._stages: list[tuple[str, int]] = []
        self._step, self._rows, self._tokens_of_step, self._record = 0, 0, 0, {}
        self._first_row, self._rows_of_batch, self._parts = 0, None, 1
        model.forward = self._with_decisions(model.forward)

    def stages(self, steps: int) -> list[tuple[str, int]]:
        """Each with its steps."""
        finetune = round(steps * self.finetune_share)
        rest = steps - finetune
        neuron = self.decisions.options.decisions == "neuron"
        zero_out = max(1, round(rest / 7)) if neuron else 0
        stages = [("zero-out", zero_out)] if neuron else []
        stages += [("retrofit", rest - zero_out), ("finetune", finetune)]
        if min(count for _, count in stages) < 1:
            raise OptionError(f"max_steps: {steps} are too few for {', '.join(s for s, _ in stages)}")
        return stages

    def export(self, source: str | pathlib.Path, out: str | pathlib.Path, dtype: str = "f32") -> None:
        """Writes the directory that `dmc` runs; `source`: where config.json and tokenizer are."""
        models.export(
            self.model, self.decisions, source, out,
            tokens=self._step * self._tokens_of_step, length=self.length, dtype=dtype,
        )  # fmt: skip

    # What the Trainer calls

    def on_train_begin(self, args, state, control, **_):
        if args.fp16:
            raise OptionError("fp16: what decisions add to the gradients is not scaled; use bf16")
        self._stages = self.stages(state.max_steps)
        self._parts = args.gradient_accumulation_steps
        rows = args.train_batch_size * self._parts
        self._first_row, self._rows_of_batch = args.process_index * rows, args.world_size * rows
        self._tokens_of_step = self._rows_of_batch * self.length
        if args.world_size > 1:
            self.decisions.data_group = dist.group.WORLD
        if self._chosen_scale is None:
            ramp = dict(self._stages)["retrofit"]
            hidden = self.model.config.hidden_size
            scale = usual_decision_scale(args.learning_rate, hidden, ramp)
            self.decisions.options = dataclasses.replace(
                self.decisions.options, decision_scale=scale
            )
        if state.global_step > 0:
            self._resume(pathlib.Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._step = state.global_step

    def on_step_begin(self, args, state, control, **_):
        self._step, self._rows = state.global_step, 0

    def on_step_end(self, args, state, control, **_):
        stage, step, steps = self._place()
        wanted = self.decisions.wanted_cr
        self._record = {"cr": self.decisions.end_step(), "wanted_cr": wanted}
        if stage == "zero-out" and step + 1 == steps:
            models.clear_decision_channel(self.model)
        self._step = state.global_step

    def on_log(self, args, state, control, logs=None, **_):
        if logs is not None and "loss" in logs:
            logs.update(self._record)
            state.log_history[-1].update(self._record)

    def on_save(self, args, state, control, **_):
        folder = pathlib.Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            values = {"weight": self.decisions.weight, "offset": self.decisions.offset}
            (folder / _FILE).write_text(json.dumps(values) + "\n", encoding="utf-8")

    # What the model does

    def _resume(self, folder: pathlib.Path) -> None:
        try:
            values = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            self.decisions.weight, self.decisions.offset = values["weight"], values["offset"]
        except (OSError, ValueError, KeyError) as error:
            raise OptionError(
                f"resume_from_checkpoint: {folder / _FILE}: not what a retrofit leaves there ({error})"
            ) from None

    def _place(self) -> tuple[str, int, int]:
        """The stage that this step belongs to, its number there, and how many there are."""
        step = self._step
        for stage, steps in self._stages:
            if step < steps:
                return stage, step, steps
            step -= steps
        stage, steps = self._stages[-1]
        return stage, steps - 1, steps

    def _with_decisions(self, forward):
        @functools.wraps(forward)  # the Trainer looks at its parameters
        def run(*arguments: Any, **keywords: Any) -> Any:
            if not (self.model.training and torch.is_grad_enabled() and self._stages):
                self.decisions.begin_step("served", 0, 1, global_step=0)
                return forward(*arguments, **keywords)
            return self._train(forward, *arguments, **keywords)

        return run

    def _train(self, forward, *arguments: Any, **keywords: Any) -> Any:
        stage, step, steps = self._place()
        self.decisions.begin_step(
            stage, step, steps, global_step=self._step,
            row=self._first_row + self._rows, rows_of_batch=self._rows_of_batch,
        )  # fmt: skip
        outputs = forward(*arguments, **keywords)
        if getattr(outputs, "loss", None) is None:
            raise OptionError("labels: a retrofit needs them, and the model's own loss of them")
        self._rows += outputs.logits.shape[0]
        extra = self.decisions.extra_loss()
        if extra.requires_grad:
            outputs.loss = _AddGradient.apply(outputs.loss, extra, 1.0 / self._parts)
        return outputs


class _AddGradient(torch.autograd.Function):
    """`loss`, whose backward pass also follows `extra`, by `share` whatever becomes of the loss: the
    Trainer divides by tokens of the whole batch, by parts, or not at all."""

    @staticmethod
    def forward(ctx, loss: Tensor, extra: Tensor, share: float) -> Tensor:
        ctx.like, ctx.share = extra, share
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient, torch.full_like(ctx.like, ctx.share), None
