"""Training in several processes: the same run as in one, however they are started and whoever dies."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy
import pytest
from conftest import BIN
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
USAGE, INTERNAL = 2, 1
NUMBERS = ("loss", "divergence", "extra_loss", "cr", "wanted_cr", "gradient_norm")


def retrofit(out, *more, batch=2, finetune=2):
    return [str(word) for word in (
        BIN / "dmc", "retrofit", "-m", ROOT / "models" / "builtin", "-o", out, "--data", ROOT / "docs",
        "--cr", "2", "--batch", batch, "--length", "64", "--warmup", "2", "--zero-out-steps", "2",
        "--steps", "3", "--finetune-steps", finetune, "--checkpoint-every", "1", *more)]  # fmt: skip


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def place(rank, size, port, **more):
    variables = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} | more
    return os.environ | {name: str(value) for name, value in variables.items()}


@contextlib.contextmanager
def started(command, **options):
    """A process that does not outlive the test."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()


def ended(process):
    """What it said, and its exit code."""
    _, said = process.communicate(timeout=300)
    return said, process.returncode


def sentence(said):
    lines = [line for line in said.splitlines() if line.startswith("dmc: ")]
    assert len(lines) == 1, said
    return lines[0]


def log(out):
    return [json.loads(line) for line in (out / "train.jsonl").open()]


def wait_for_steps(out, count, *processes):
    path = out / "train.jsonl"
    while not ((out / "checkpoint.safetensors").exists() and path.read_text().count("\n") >= count):
        for process in processes:
            assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def children_of(process):
    return [int(word) for word in
            pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]  # fmt: skip


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process makes of the run."""
    out = tmp_path_factory.mktemp("alone") / "out"
    run(retrofit(out))
    return out


def same(expected, got):
    """Up to the order of sums, and to a decision that falls the other way by it, which the norm of
    the gradient shows most."""
    a, b = log(expected), log(got)
    assert [(r["step"], r["stage"], r["tokens"]) for r in a] == [(r["step"], r["stage"], r["tokens"]) for r in b]
    for x, y in zip(a, b):
        for number in NUMBERS:
            loose = 1e-2 if number == "gradient_norm" else 2e-3
            assert y[number] == pytest.approx(x[number], rel=loose, abs=2e-3), (number, x["step"])
    weights, others = (load_file(out / "model.safetensors") for out in (expected, got))
    for name, tensor in weights.items():
        tensor, other = tensor.astype(numpy.float64), others[name].astype(numpy.float64)
        assert numpy.linalg.norm(other - tensor) <= 2e-3 * numpy.linalg.norm(tensor), name
    assert not (got / "checkpoint.safetensors").exists()


def test_processes_of_a_launcher_do_what_one_does(alone, tmp_path):
    port = free_port()
    with started(retrofit(tmp_path / "out"), env=place(0, 2, port)) as first, \
         started(retrofit(tmp_path / "out"), env=place(1, 2, port)) as second:  # fmt: skip
        said, code = ended(first)
        silent, code_of_second = ended(second)
    assert (code, code_of_second) == (0, 0), said + silent
    assert "the model is in" in said and silent == "", "the first alone speaks"
    same(alone, tmp_path / "out")


def test_torchrun_launches_the_program(alone, tmp_path):
    torchrun = shutil.which("torchrun", path=pathlib.Path(sys.executable).parent)
    if torchrun is None:
        pytest.skip("torchrun is not beside this Python")
    run([torchrun, "--standalone", "--no-python", "--nproc-per-node", "2", *retrofit(tmp_path / "out")])
    same(alone, tmp_path / "out")


def test_the_program_starts_its_own(alone, tmp_path):
    done = run(retrofit(tmp_path / "out", "--processes", "2", "--json"))
    assert json.loads(done.stdout)["step"] == 7
    assert done.stderr.count("training 7/7") == 1, done.stderr
    same(alone, tmp_path / "out")


def test_a_run_goes_on_with_another_number_of_processes(alone, tmp_path):
    out = tmp_path / "out"
    with started(retrofit(out, "--processes", "2")) as process:
        wait_for_steps(out, 2, process)
        process.send_signal(signal.SIGINT)
        said, code = ended(process)
    assert code == 130 and "--resume" in said
    run(retrofit(out, "--resume"))
    same(alone, out)


@pytest.mark.parametrize("killed", [0, 1])
def test_who_dies_is_named_by_the_others_and_nothing_saved_is_lost(alone, tmp_path, killed):
    out, port = tmp_path / "out", free_port()
    command = retrofit(out, finetune=100000)
    with started(command, env=place(0, 2, port)) as first, started(command, env=place(1, 2, port)) as second:
        wait_for_steps(out, 3, first, second)
        processes = [first, second]
        processes.pop(killed).kill()
        said, code = ended(processes[0])
    assert code == INTERNAL
    assert f"process {killed} of 2" in sentence(said) and "--resume" in said
    with started([*command, "--resume"]) as process:
        steps = len(log(out))
        wait_for_steps(out, steps + 1, process)


def test_a_process_of_ones_own_that_dies_is_told_of(tmp_path):
    out = tmp_path / "out"
    with started(retrofit(out, "--processes", "3", batch=3, finetune=100000)) as process:
        wait_for_steps(out, 3, process)
        children = children_of(process)
        assert len(children) == 2
        os.kill(children[1], signal.SIGKILL)
        said, code = ended(process)
    assert code == INTERNAL
    assert "process 2 of 3" in sentence(said) and "signal 9" in sentence(said)
    assert (out / "checkpoint.safetensors").exists()
    assert not [child for child in children if pathlib.Path(f"/proc/{child}").exists()]


def test_processes_do_not_outlive_the_first(tmp_path):
    out = tmp_path / "out"
    with started(retrofit(out, "--processes", "2", finetune=100000)) as process:
        wait_for_steps(out, 1, process)
        [child] = children_of(process)
        process.kill()
        process.wait()
        while pathlib.Path(f"/proc/{child}").exists():
            time.sleep(0.01)


def test_what_fails_in_all_processes_is_said_once(tmp_path):
    done = subprocess.run(retrofit(tmp_path / "out", "--processes", "2", batch=3),
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == USAGE
    assert "--batch: 3" in sentence(done.stderr)
    assert not (tmp_path / "out").exists()


def test_environments_that_make_no_sense(tmp_path):
    def refused(*words, more=(), **variables):
        environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | variables
        done = subprocess.run(retrofit(tmp_path / "out", *more), env=environment, capture_output=True, text=True,
                              timeout=300)  # fmt: skip
        assert done.returncode == USAGE
        for word in words:
            assert word in sentence(done.stderr), done.stderr

    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    refused("WORLD_SIZE: is not set", RANK="0", **where)
    refused("RANK", '"2"', RANK="2", WORLD_SIZE="2", **where)
    refused("RANK", '"first"', RANK="first", WORLD_SIZE="2", **where)
    refused("MASTER_PORT: is not set", RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    refused("--processes: 3", "WORLD_SIZE", more=["--processes", "3"], RANK="0", WORLD_SIZE="2", **where)
    refused("--processes", more=["--processes", "0"])
