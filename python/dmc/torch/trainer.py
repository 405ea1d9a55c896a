"""The training loop over FSDP2 and, where asked for, tensor parallelism: the run of the C++ trainer
(src/train/trainer.cpp), with a model in shards.

B sequences of T tokens a step; ranks form a mesh [data, heads], whose ranks along `data` have
B / data rows each, and along `heads` equally many heads and columns."""

from __future__ import annotations

import json
import math
import pathlib
import shutil
import signal
import sys
import time
from typing import Any, Callable

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
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
    """A model and its loss, so that all of its weights are used within one forward pass. Logits exist
    for a chunk of tokens at a time, forward and backward."""

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

    def forward(self, tokens: Tensor, targets: Tensor | None = None,
                teacher: Student | None = None) -> Any:
        """tokens [B, T], targets [B, T] or -100. Returns the sums over tokens of the language model's
        loss and of the divergence from the teacher, nats; without targets hidden states."""
        if targets is None:
            return self.hidden(tokens).flatten(0, 1)
        o = self.decisions.options
        wise = None
        if o.distill:
            wise = (self.dense_hidden(tokens).flatten(0, 1) if teacher is None else teacher(tokens))
        hidden, targets = self.hidden(tokens).flatten(0, 1), targets.flatten()
        chunk = max(1, _LOGITS_AT_ONCE // self.model.config.vocab_size)
        sums = hidden.new_zeros(2, dtype=torch.float32)
        for first in range(0, len(targets), chunk):
            part = slice(first, first + chunk)
            taught = None if wise is None else wise[part]
            sums = sums + checkpoint(self._chunk, hidden[part], targets[part], taught, teacher or self,
                                     use_reentrant=False)  # fmt: skip
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
        self.mesh = init_device_mesh(self.device.type, (world // heads, heads),
                                     mesh_dim_names=("data", "heads"))  # fmt: skip
        self.data_rank, ranks = self.mesh["data"].get_local_rank(), world // heads
        base = models.build(options.model)
        self._check_heads(base.config, heads)
        self.o = options = options.resolved(
            context=_context(base.config), hidden=base.config.hidden_size,
            shares=ranks * options.accumulate,
            parameters=sum(p.numel() for p in base.parameters()))  # fmt: skip
        self.decisions = models.retrofit(base, options.retrofit, length=options.length,
                                         seed=options.seed)  # fmt: skip
        self.decisions.data_group = self.mesh["data"].get_group() if ranks > 1 else None
        if heads > 1:
            self.decisions.head_group = self.mesh["heads"].get_group()
            self.decisions.first_head = (self.mesh["heads"].get_local_rank()
                                         * base.config.num_key_value_heads // heads)  # fmt: skip
        if options.activation_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        self.student = self._sharded(Student(base, self.decisions))
        self.teacher = self._sharded_teacher() if _needs_teacher(options) else None
        self.optimizer = self._optimizer()
        self.rows = options.batch // ranks // options.accumulate  # of a part of a step
        self.data = Mixture(options.train, options.weights, length=options.length,
                            batch=options.batch, vocab=base.config.vocab_size, seed=options.seed)
        self.valid = held_out_windows(options.valid, options.length, options.valid_windows,
                                      base.config.vocab_size)  # fmt: skip
        self.step = 0
        self.out = pathlib.Path(options.out)
        self.stop = False  # asked to end after this step

    @property
    def model(self) -> nn.Module:
        return self.student.model

    # Setting up

    def _check_heads(self, config, heads: int) -> None:
        if config.num_key_value_heads % heads or config.intermediate_size % heads:
            raise OptionError(f"tensor_parallel: {heads} does not divide the model's "
                              f"{config.num_key_value_heads} KV heads")  # fmt: skip

    def _sharded(self, student: Student) -> Student:
        if self.mesh["heads"].size() > 1:
            for layer in student.model.model.layers:
                _split_heads(layer, self.mesh["heads"])
        narrow = (self.o.precision or ("bf16" if self.device.type == "cuda" else "f32")) == "bf16"
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if narrow else MixedPrecisionPolicy()
        keywords = {"mesh": self.mesh["data"], "mp_policy": policy, "offload_policy":
                    CPUOffloadPolicy() if self.o.cpu_offload else OffloadPolicy()}  # fmt: skip
        for layer in student.model.model.layers:
            fully_shard(layer, **keywords)
        fully_shard(student, **keywords, reshard_after_forward=False)
        models.load_weights(student.model, self.o.model,
                            torch.device("cpu") if self.o.cpu_offload else self.device)  # fmt: skip
        if self.o.compile:
            for layer in student.model.model.layers:
                layer.compile()
        return student

    def _sharded_teacher(self) -> Student:
        teacher = Student(models.build(self.o.model))
        teacher.requires_grad_(False)
        return self._sharded(teacher).eval()

    def _optimizer(self) -> torch.optim.Optimizer:
        """AdamW as src/train/optimizer.cpp has it: matrices decay, vectors do not. A fused step takes
        parameters of one mesh."""
        groups: dict[Any, list[Tensor]] = {}
        for p in self.student.parameters():
            if p.requires_grad:
                groups.setdefault((p.dim() > 1, p.device_mesh), []).append(p)
        o = self.o
        return torch.optim.AdamW(
            [{"params": params, "weight_decay": o.weight_decay if decays else 0.0}
             for (decays, _), params in groups.items()],
            lr=o.lr, betas=(o.beta1, o.beta2), eps=o.epsilon, fused=True)  # fmt: skip

    # Running

    def run(self, on_step: Callable[[dict], None] = lambda record: None) -> bool:
        """All steps from where it stands; False if it was asked to stop, with a checkpoint written."""
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
            self.decisions.begin_step(stage, step, steps, global_step=self.step, row=first + row,
                                      rows_of_batch=o.batch)  # fmt: skip
            sums += self._backward(batch[row : row + self.rows]) / o.accumulate
        norm = self._clip()
        rate = learning_rate(self.step, o.total_steps(), o.warmup, o.finetune_steps, o.lr, o.final_lr)
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
            raise OptionError(f"lr: the loss is not finite at step {self.step + 1}; go on from the last "
                              "checkpoint with a lower one")  # fmt: skip
        self.step += 1
        tokens = o.batch * o.length
        return {"step": self.step, "stage": stage, "loss": loss, "divergence": divergence,
                "extra_loss": extra, "cr": cr, "wanted_cr": wanted, "compression_weight": weight,
                "decision_offset": offset,
                "learning_rate": rate, "gradient_norm": norm, "tokens": self.step * tokens,
                "tokens_per_second": tokens / (time.monotonic() - began), "_stop": stop > 0}

    def _backward(self, batch: Tensor) -> Tensor:
        """Adds the gradients of a part; returns its language-model loss, divergence and extra loss."""
        o = self.decisions.options
        lm, divergence = self.student(batch[:, :-1], batch[:, 1:], self.teacher) / batch[:, 1:].numel()
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
        """Loss in nats per token and ratio on held-out windows, with decisions as they are served."""
        self.student.eval()
        ranks, length = self.mesh["data"].size(), self.o.length
        sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        for first in range(0, len(self.valid), ranks):
            at = first + self.data_rank
            window = torch.from_numpy(self.valid[min(at, len(self.valid) - 1)])
            known = F.pad(window, (0, length - len(window)))[None].to(self.device)
            targets = F.pad(window[1:], (0, length - len(window) + 1), value=-100)[None].to(self.device)
            self.decisions.begin_step("served", 0, 1, global_step=0)
            lm = self.student(known, targets)[0]
            self.decisions.extra_loss()
            if at < len(self.valid):
                sums += torch.stack([lm.double(), lm.new_tensor(len(window) - 1.0).double(),
                                     self.decisions.served.mean().double(), lm.new_ones(()).double()])
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
        progress = {"step": self.step, "read": self.data.read, "weight": self.decisions.weight,
                    "offset": self.decisions.offset,
                    "identity": self.o.identity()}  # fmt: skip
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
        set_state_dict(self.student, self.optimizer, model_state_dict=model,
                       optim_state_dict=optimizer, options=_BY_NAME)  # fmt: skip
        self.step, self.data.read = progress["step"], list(progress["read"])
        self.decisions.weight, self.decisions.offset = progress["weight"], progress["offset"]

    def _state(self):
        return get_state_dict(self.student, self.optimizer, options=_BY_NAME)

    def export(self, out: pathlib.Path | None = None) -> None:
        stage = [name for name, _ in self.o.stages()][-1]
        models.export(self.model, self.decisions, self.o.model, out or self.out, stage=stage,
                      tokens=self.step * self.o.batch * self.o.length, length=self.o.length,
                      dtype=self.o.dtype)  # fmt: skip


def run(options: TrainOptions, *, resume: bool = False, overwrite: bool = False) -> int:
    """`python -m dmc.torch retrofit`: trains, writes OUT/train.jsonl and the model; the exit status."""
    out, first = pathlib.Path(options.out), dist.get_rank() == 0
    if first:
        _claim(out, resume, overwrite)
    dist.barrier()
    trainer = Trainer(options)
    if resume:
        trainer.resume()
    log = _open_log(out / "train.jsonl", trainer.step) if first else None

    def ask_to_stop(number, frame):
        trainer.stop = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    if first:
        _say(f"{dist.get_world_size()} processes as {tuple(trainer.mesh.mesh.shape)} (data, heads), "
             f"batch {trainer.o.batch}, length {trainer.o.length}, lr {trainer.o.lr:.1e}")

    def on_step(record: dict) -> None:
        if log is None:
            return
        log.write(json.dumps({k: v for k, v in record.items() if k != "_stop"}) + "\n")
        log.flush()
        _show(record, trainer.o.total_steps())

    finished = trainer.run(on_step)
    if not finished:
        if first:
            _say(f"stopped after step {trainer.step}; go on with --resume")
        return 130
    trainer.save()  # should writing the model fail, nothing is lost
    trainer.export()
    result = trainer.validate() if trainer.valid else {}
    if first:
        shutil.rmtree(out / "checkpoint", ignore_errors=True)
        (out / "result.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
        measured = "".join(f", {name.replace('_', ' ')} {x:.4f}" for name, x in result.items())
        _say(f"wrote {out}{measured}")
    return 0


def _split_heads(layer: nn.Module, mesh: DeviceMesh) -> None:
    """Heads and columns of a layer by rank (Shoeybi et al. 2019, "Megatron-LM", section 3)."""
    from torch.distributed.tensor.parallel import (ColwiseParallel, RowwiseParallel,
                                                   parallelize_module)  # fmt: skip

    plan = {f"self_attn.{x}_proj": ColwiseParallel() for x in "qkv"}
    plan |= {"mlp.gate_proj": ColwiseParallel(), "mlp.up_proj": ColwiseParallel()}
    plan |= {"self_attn.o_proj": RowwiseParallel(), "mlp.down_proj": RowwiseParallel()}
    parallelize_module(layer, mesh, plan)


def _parameters_split_by_hand(student: Student) -> list[Tensor]:
    """Whole on every rank, but used by it for its own heads alone."""
    names = ("q_norm", "k_norm", "decision_norm", "decision_proj")
    return [p for layer in student.model.model.layers for name in names
            for p in getattr(layer.self_attn, name, nn.Identity()).parameters()]  # fmt: skip


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
    return min(config.max_position_embeddings, window) if window and used else (
        config.max_position_embeddings)  # fmt: skip


def _require_same(ran: dict, asked: dict, of: str = "") -> None:
    for name in ran.keys() | asked.keys():
        if isinstance(ran.get(name), dict):
            _require_same(ran[name], asked[name], name + ".")
        elif ran.get(name) != asked.get(name):
            raise OptionError(f"resume: {of}{name} is {asked.get(name)!r}, but the run began with "
                              f"{ran.get(name)!r}; give that, or another out")  # fmt: skip


def _claim(out: pathlib.Path, resume: bool, overwrite: bool) -> None:
    if resume:
        return
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise OptionError(f"out: {out} holds something; give --resume, --overwrite or another out")
        for name in ("checkpoint", "checkpoint.new", "train.jsonl", "result.json"):
            path = out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)


def _open_log(path: pathlib.Path, steps_done: int):
    kept = path.read_text(encoding="utf-8").splitlines(True)[:steps_done] if path.exists() else []
    log = path.open("w", encoding="utf-8")
    log.writelines(kept)
    return log


def _say(text: str) -> None:
    print(f"dmc.torch: {text}", file=sys.stderr, flush=True)


def _show(record: dict, total: int) -> None:
    line = (f"step {record['step']}/{total} {record['stage']}  loss {record['loss']:.3f}  "
            f"CR {record['cr']:.2f} (want {record['wanted_cr']:.2f})  "
            f"{record['tokens_per_second']:.0f} tok/s")  # fmt: skip
    live = sys.stderr.isatty()
    if live or record["step"] % max(1, total // 20) == 0 or record["step"] == total:
        print(f"\r{line}\x1b[K" if live else line, file=sys.stderr, end="" if live else "\n", flush=True)
