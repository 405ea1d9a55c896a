"""`python -m dmc.torch retrofit`: a run with its folder, log, signals and progress."""

from __future__ import annotations

import atexit
import json
import os
import pathlib
import shutil
import signal
import sys
import typing

import torch.distributed as dist

from .options import OptionError, TrainOptions
from .trainer import Trainer


def run(options: TrainOptions, *, resume: bool = False, overwrite: bool = False) -> int:
    """`python -m dmc.torch retrofit`: trains, writes OUT/train.jsonl and the model; the exit
    status."""
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
        _say(
            f"{dist.get_world_size()} processes as {tuple(trainer.mesh.mesh.shape)} (data, heads), "
            f"batch {trainer.o.batch}, length {trainer.o.length}, lr {trainer.o.lr:.1e}"
        )

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


def leave(status: int) -> typing.NoReturn:
    """Ends a process of several, its exit functions run and its output written, but the interpreter
    not taken apart. Threads of gloo outlive destroy_process_group(), since torch's caches of meshes
    keep groups, and one that only then lets go of a tensor asks for the interpreter's lock: before
    Python 3.14 the thread is unwound for that, through a destructor, and the process aborts
    ("terminate called without an active exception")."""
    if status == 0:  # else they might wait for processes that are gone
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _claim(out: pathlib.Path, resume: bool, overwrite: bool) -> None:
    if resume:
        return
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise OptionError(
                f"out: {out} holds something; give --resume, --overwrite or another out"
            )
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
    line = (
        f"step {record['step']}/{total} {record['stage']}  loss {record['loss']:.3f}  "
        f"CR {record['cr']:.2f} (want {record['wanted_cr']:.2f})  "
        f"{record['tokens_per_second']:.0f} tok/s"
    )
    live = sys.stderr.isatty()
    if live or record["step"] % max(1, total // 20) == 0 or record["step"] == total:
        print(
            f"\r{line}\x1b[K" if live else line,
            file=sys.stderr,
            end="" if live else "\n",
            flush=True,
        )
