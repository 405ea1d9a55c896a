"""The training loop over FSDP2 and, where asked for, tensor parallelism: the run of the C++ trainer
(src/train/trainer.cpp), with a model in shards.

B sequences of T tokens a step; ranks form a mesh [data, heads], whose ranks along `data` have
B / data rows each, and along `heads` equally many heads and columns."""

from __future__ import annotations

import json
import math
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor, Shard
from torch.utils.checkpoint import checkpoint

from . import model as models
from .data import Mixture, held_out_windows
from .decisions import Decisions
from .options import OptionError, TrainOptions
from .schedules import learning_rate

_LOGITS_AT_ONCE = 1 << 24
# Parameter groups differ from mesh to mesh.
_BY_NAME = StateDictOptions(flatten_optimizer_state_dict=True)


class Student(nn.Module):
    """A model and its loss, so that all of its weights are used within one forward pass. Logits
    exist for a chunk of tokens at a time, forward and backward."""

    def __init__(self, model: nn.Module, decisions: Decisions | None = None):
        super().__init__()
        self.model, self.decisions = model, decisions

    def hidden(self, tokens: Tensor) -> Tensor:
        return self.model.model(input_ids=tokens, use_cache=False).last_hidden_state

    def dense_hidden(self, tokens: Tensor) -> Tensor:
        """Of the same weights with decisions off: a base that does not train is its own teacher."""
        stage, self.decisions.stage = self.decisions.stage, "dense"
        with torch.no_grad():
            hidden = self.hidden(tokens)
        self.decisions.stage = stage
        return hidden

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        return self.model.lm_head(hidden).float().log_softmax(-1)

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None, teacher: Student | None = None
    ) -> Any:
        """tokens [B, T], targets [B, T] or -100. Returns the sums over tokens of the language
        model's loss and of the divergence from the teacher, nats; without targets hidden states."""
        if targets is None:
            return self.hidden(tokens).flatten(0, 1)
        o = self.decisions.options
        wise = None
        if o.distill and torch.is_grad_enabled():
            wise = self.dense_hidden(tokens).flatten(0, 1) if teacher is None else teacher(tokens)
        hidden, targets = self.hidden(tokens).flatten(0, 1), targets.flatten()
        chunk = max(1, _LOGITS_AT_ONCE // self.model.config.vocab_size)
        sums = hidden.new_zeros(2, dtype=torch.float32)
        for first in range(0, len(targets), chunk):
            part = slice(first, first + chunk)
            taught = None if wise is None else wise[part]
            sums = sums + checkpoint(
                self._chunk,
                hidden[part],
                targets[part],
                taught,
                teacher or self,
                use_reentrant=False,
            )
        return sums

    def _chunk(self, hidden, targets, taught, teacher):
        student = self.log_probabilities(hidden)
        lm = F.nll_loss(student, targets, ignore_index=-100, reduction="sum")
        if taught is None:
            return torch.stack([lm, lm.new_zeros(())])
        with torch.no_grad():
            wise = teacher.log_probabilities(taught)
        apart = wise - student if self.decisions.options.distill == "forward" else student - wise
        by = wise if self.decisions.options.distill == "forward" else student
        return torch.stack([lm, (by.exp() * apart).sum()])


class Trainer:
    """A run of `options` on the ranks of torch.distributed's default group."""

    def __init__(self, options: TrainOptions, device: torch.device | None = None):
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        world = dist.get_world_size()
        heads = options.tensor_parallel
        if heads < 1 or world % heads:
            raise OptionError(f"tensor_parallel: {heads} does not divide {world} processes")
        self.mesh = init_device_mesh(
            self.device.type, (world // heads, heads), mesh_dim_names=("data", "heads")
        )
        self.data_rank, ranks = self.mesh["data"].get_local_rank(), world // heads
        base = models.build(options.model)
        self._check_heads(base.config, heads)
        self.o = options = options.resolved(
            context=_context(base.config),
            hidden=base.config.hidden_size,
            shares=ranks * options.accumulate,
            parameters=sum(p.numel() for p in base.parameters()),
        )
        self.decisions = models.retrofit(
            base, options.retrofit, length=options.length, seed=options.seed
        )
        self.decisions.data_group = self.mesh["data"].get_group() if ranks > 1 else None
        if heads > 1:
            self.decisions.head_group = self.mesh["heads"].get_group()
            self.decisions.first_head = (
                self.mesh["heads"].get_local_rank() * base.config.num_key_value_heads // heads
            )
        if options.activation_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        self.student = self._sharded(Student(base, self.decisions))
        self.teacher = self._sharded_teacher() if _needs_teacher(options) else None
        self.optimizer = self._optimizer()
        self.rows = options.batch // ranks // options.accumulate  # of a part of a step
        self.data = Mixture(
            options.train,
            options.weights,
            length=options.length,
            batch=options.batch,
            vocab=base.config.vocab_size,
            seed=options.seed,
        )
        self.valid = held_out_windows(
            options.valid, options.length, options.valid_windows, base.config.vocab_size
        )
        self.step = 0
        self.out = pathlib.Path(options.out)
        self.stop = False  # asked to end after this step

    @property
    def model(self) -> nn.Module:
        return self.student.model

    # Setting up

    def _check_heads(self, config, heads: int) -> None:
        if config.num_key_value_heads % heads or config.intermediate_size % heads:
            raise OptionError(
                f"tensor_parallel: {heads} does not divide the model's "
                f"{config.num_key_value_heads} KV heads"
            )

    def _sharded(self, student: Student) -> Student:
        if self.mesh["heads"].size() > 1:
            for layer in student.model.model.layers:
                _split_heads(layer, self.mesh["heads"])
        narrow = (self.o.precision or ("bf16" if self.device.type == "cuda" else "f32")) == "bf16"
        policy = (
            MixedPrecisionPolicy(torch.bfloat16, torch.float32)
            if narrow
            else MixedPrecisionPolicy()
        )
        keywords = {
            "mesh": self.mesh["data"],
            "mp_policy": policy,
            "offload_policy": CPUOffloadPolicy() if self.o.cpu_offload else OffloadPolicy(),
        }
        for layer in student.model.model.layers:
            fully_shard(layer, **keywords)
        fully_shard(student, **keywords, reshard_after_forward=False)
        models.load_weights(
            student.model, self.o.model, torch.device("cpu") if self.o.cpu_offload else self.device
        )
        if self.o.compile:
            for layer in student.model.model.layers:
                layer.compile()
        return student

    def _sharded_teacher(self) -> Student:
        teacher = Student(models.build(self.o.model))
        teacher.requires_grad_(False)
        return self._sharded(teacher).eval()

    def _optimizer(self) -> torch.optim.Optimizer:
        """AdamW as src/train/optimizer.cpp has it: matrices decay, vectors do not. A fused step
        takes parameters of one mesh."""
        groups: dict[Any, list[Tensor]] = {}
        for p in self.student.parameters():
            if p.requires_grad:
                groups.setdefault((p.dim() > 1, p.device_mesh), []).append(p)
        o = self.o
        return torch.optim.AdamW(
            [
                {"params": params, "weight_decay": o.weight_decay if decays else 0.0}
                for (decays, _), params in groups.items()
            ],
            lr=o.lr,
            betas=(o.beta1, o.beta2),
            eps=o.epsilon,
            fused=True,
        )

    # Running

    def run(self, on_step: Callable[[dict], None] = lambda record: None) -> bool:
        """All steps from where it stands; False if it was asked to stop, with a checkpoint
        written."""
        start = 0
        for stage, steps in self.o.stages():
            while self.step < start + steps:
                record = self._one_step(stage, self.step - start, steps)
                if stage == "zero-out" and self.step == start + steps:
                    models.clear_decision_channel(self.model)
                every = self.o.eval_every
                if self.valid and every and self.step % every == 0 and stage != "zero-out":
                    record |= self.validate()
                on_step(record)
                if record.pop("_stop"):
                    self.save()
                    return False
                if self.step % self.o.checkpoint_every == 0:
                    self.save()
            start += steps
        return True

    def _one_step(self, stage: str, step: int, steps: int) -> dict:
        o, began = self.o, time.monotonic()
        first = self.data_rank * self.rows * o.accumulate
        batch = self.data.next(first, self.rows * o.accumulate).to(self.device)
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        self.student.train()
        for part in range(o.accumulate):
            row = part * self.rows
            self.decisions.begin_step(
                stage, step, steps, global_step=self.step, row=first + row, rows_of_batch=o.batch
            )
            sums += self._backward(batch[row : row + self.rows]) / o.accumulate
        norm = self._clip()
        rate = learning_rate(
            self.step, o.total_steps(), o.warmup, o.finetune_steps, o.lr, o.final_lr
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        weight, offset = self.decisions.weight, self.decisions.offset
        wanted = self.decisions.wanted_cr
        cr = self.decisions.end_step()
        numbers = torch.cat([sums, sums.new_tensor([float(self.stop)])])
        dist.all_reduce(numbers)
        loss, divergence, extra, stop = (numbers / dist.get_world_size()).tolist()
        if not math.isfinite(loss + divergence):
            raise OptionError(
                f"lr: the loss is not finite at step {self.step + 1}; go on from the last "
                "checkpoint with a lower one"
            )
        self.step += 1
        tokens = o.batch * o.length
        return {
            "step": self.step,
            "stage": stage,
            "loss": loss,
            "divergence": divergence,
            "extra_loss": extra,
            "cr": cr,
            "wanted_cr": wanted,
            "compression_weight": weight,
            "decision_offset": offset,
            "learning_rate": rate,
            "gradient_norm": norm,
            "tokens": self.step * tokens,
            "tokens_per_second": tokens / (time.monotonic() - began),
            "_stop": stop > 0,
        }

    def _backward(self, batch: Tensor) -> Tensor:
        """Adds the gradients of a part; returns its language-model loss, divergence and extra
        loss."""
        o = self.decisions.options
        lm, divergence = (
            self.student(batch[:, :-1], batch[:, 1:], self.teacher) / batch[:, 1:].numel()
        )
        extra = self.decisions.extra_loss().to(lm.device)
        share = o.distill_weight if o.distill else 0.0
        loss = share * divergence + (1.0 - share) * lm + extra
        (loss / self.o.accumulate).backward()
        return torch.stack([lm.detach(), divergence.detach(), extra.detach()]).double()

    @torch.no_grad()
    def _clip(self) -> float:
        """Scales gradients to a norm of at most o.clip; returns it as it was. Parameters live on
        several meshes, which have no common norm, so squares are summed mesh by mesh."""
        split = [p for p in _parameters_split_by_hand(self.student) if p.grad is not None]
        if self.mesh["heads"].size() > 1:
            for p in split:  # each rank has what its own heads say about them
                dist.all_reduce(_local(p.grad), group=self.mesh["heads"].get_group())
        squares = torch.zeros(2, dtype=torch.float64, device=self.device)
        gradients = []
        for p in self.student.parameters():
            if p.grad is None:
                continue
            gradients.append(_local(p.grad))
            norm = torch.linalg.vector_norm(gradients[-1].to(torch.float32)).double()
            squares[int(_is_split(p, "heads"))] += norm.to(self.device) ** 2
        dist.all_reduce(squares, group=self.mesh["data"].get_group())
        dist.all_reduce(squares[1:], group=self.mesh["heads"].get_group())
        norm = squares.sum().sqrt().item()
        if norm > self.o.clip:
            torch._foreach_mul_(gradients, self.o.clip / norm)
        return norm

    @torch.no_grad()
    def validate(self) -> dict:
        """Loss in nats per token and ratio on held-out windows, with decisions as they are
        served."""
        self.student.eval()
        ranks, length = self.mesh["data"].size(), self.o.length
        sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        for first in range(0, len(self.valid), ranks):
            at = first + self.data_rank
            window = torch.from_numpy(self.valid[min(at, len(self.valid) - 1)])
            known = F.pad(window, (0, length - len(window)))[None].to(self.device)
            targets = F.pad(window[1:], (0, length - len(window) + 1), value=-100)[None].to(
                self.device
            )
            self.decisions.begin_step("served", 0, 1, global_step=0)
            lm = self.student(known, targets)[0]
            self.decisions.extra_loss()
            if at < len(self.valid):
                sums += torch.stack(
                    [
                        lm.double(),
                        lm.new_tensor(len(window) - 1.0).double(),
                        self.decisions.served.mean().double(),
                        lm.new_ones(()).double(),
                    ]
                )
        self.decisions.end_of_measure()
        dist.all_reduce(sums, group=self.mesh["data"].get_group())
        loss, tokens, served, windows = sums.tolist()
        return {"held_out_loss": loss / tokens, "held_out_cr": 1.0 / (1.0 - served / windows)}

    # Checkpoints

    def save(self) -> None:
        """OUT/checkpoint: replaced as a whole, so that whatever happens, one is there."""
        new, place = self.out / "checkpoint.new", self.out / "checkpoint"
        if dist.get_rank() == 0:
            shutil.rmtree(new, ignore_errors=True)
        dist.barrier()
        model, optimizer = self._state()
        progress = {
            "step": self.step,
            "read": self.data.read,
            "weight": self.decisions.weight,
            "offset": self.decisions.offset,
            "identity": self.o.identity(),
        }
        dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=new)
        if dist.get_rank() == 0:
            (new / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
            shutil.rmtree(place, ignore_errors=True)
            new.rename(place)
        dist.barrier()

    def resume(self) -> None:
        """From OUT/checkpoint, which may be of another number of processes and another mesh."""
        place = self.out / "checkpoint"
        if not (place / "progress.json").exists() and (self.out / "checkpoint.new").exists():
            place = self.out / "checkpoint.new"
        try:
            progress = json.loads((place / "progress.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OptionError(f"resume: {place}: no checkpoint to go on from ({error})") from None
        _require_same(progress["identity"], json.loads(json.dumps(self.o.identity())))
        model, optimizer = self._state()
        dcp.load({"model": model, "optimizer": optimizer}, checkpoint_id=place)
        set_state_dict(
            self.student,
            self.optimizer,
            model_state_dict=model,
            optim_state_dict=optimizer,
            options=_BY_NAME,
        )
        self.step, self.data.read = progress["step"], list(progress["read"])
        self.decisions.weight, self.decisions.offset = progress["weight"], progress["offset"]

    def _state(self):
        return get_state_dict(self.student, self.optimizer, options=_BY_NAME)

    def export(self, out: pathlib.Path | None = None) -> None:
        stage = [name for name, _ in self.o.stages()][-1]
        models.export(
            self.model,
            self.decisions,
            self.o.model,
            out or self.out,
            stage=stage,
            tokens=self.step * self.o.batch * self.o.length,
            length=self.o.length,
            dtype=self.o.dtype,
        )


def _split_heads(layer: nn.Module, mesh: DeviceMesh) -> None:
    """Heads and columns of a layer by rank (Shoeybi et al. 2019, "Megatron-LM", section 3)."""
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    plan = {f"self_attn.{x}_proj": ColwiseParallel() for x in "qkv"}
    plan |= {"mlp.gate_proj": ColwiseParallel(), "mlp.up_proj": ColwiseParallel()}
    plan |= {"self_attn.o_proj": RowwiseParallel(), "mlp.down_proj": RowwiseParallel()}
    parallelize_module(layer, mesh, plan)


def _parameters_split_by_hand(student: Student) -> list[Tensor]:
    """Whole on every rank, but used by it for its own heads alone."""
    names = ("q_norm", "k_norm", "decision_norm", "decision_proj")
    return [
        p
        for layer in student.model.model.layers
        for name in names
        for p in getattr(layer.self_attn, name, nn.Identity()).parameters()
    ]


def _local(x: Tensor) -> Tensor:
    return x.to_local() if isinstance(x, DTensor) else x


def _is_split(x: DTensor, dimension: str) -> bool:
    names = x.device_mesh.mesh_dim_names or ()
    return dimension in names and isinstance(x.placements[names.index(dimension)], Shard)


def _needs_teacher(options: TrainOptions) -> bool:
    return bool(options.retrofit.distill) and not options.retrofit.adapter_alone


def _context(config) -> int:
    window = getattr(config, "sliding_window", None)
    used = getattr(config, "use_sliding_window", True)
    return (
        min(config.max_position_embeddings, window)
        if window and used
        else (config.max_position_embeddings)
    )


def _require_same(ran: dict, asked: dict, of: str = "") -> None:
    for name in ran.keys() | asked.keys():
        if isinstance(ran.get(name), dict):
            _require_same(ran[name], asked[name], name + ".")
        elif ran.get(name) != asked.get(name):
            raise OptionError(
                f"resume: {of}{name} is {asked.get(name)!r}, but the run began with "
                f"{ran.get(name)!r}; give that, or another out"
            )
