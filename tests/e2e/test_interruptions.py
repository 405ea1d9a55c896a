"""What comes between a command and its end: signals, full disks, folders that are read-only or somebody else's. Each
is met with one sentence, and nothing that was there is lost."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request

import pytest
from conftest import BIN

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "attack"))
import tiny_models  # noqa: E402

BUILTIN = ROOT / "models" / "builtin"
INTERNAL, USAGE, INTERRUPTED = 1, 2, 130
FULL = pathlib.Path("/dev/full")


def train(out, *more, steps=100000, batch=1, every=2):
    return [str(word) for word in (
        BIN / "dmc", "train", "-m", BUILTIN, "-o", out, "--data", ROOT / "docs", "--batch", batch, "--length", "32",
        "--warmup", "2", "--steps", steps, "--checkpoint-every", every, "--eval-every", "0", "--threads", "1",
        *more)]  # fmt: skip


def cpu_seconds(process):
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sentences(said):
    return [line for line in said.splitlines() if line.startswith("dmc: ")]


def refused(done, code, *parts):
    assert done.returncode == code, done.stderr
    [sentence] = sentences(done.stderr)
    for part in parts:
        assert part in sentence, done.stderr


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@contextlib.contextmanager
def started(command, steps):
    """A training that has done so many steps, and does not outlive the test."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log = pathlib.Path(command[command.index("-o") + 1]) / "train.jsonl"
    try:
        while not (log.exists() and log.read_text().count("\n") >= steps):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def steps(out):
    return [json.loads(line)["step"] for line in (out / "train.jsonl").open()]


@contextlib.contextmanager
def mounted(folder, options):
    """A tmpfs on `folder`, where this user may mount one."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True).returncode != 0:
        pytest.skip("this user cannot mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("command", [
    ["plan", "-m", "qwen3-8b", "--json"], ["inspect", "-m", BUILTIN, "--json"], ["inspect", "-m", BUILTIN], ["--help"],
    ["run", "-m", BUILTIN, "-p", "x", "-n", "2", "--json"]])  # fmt: skip
def test_output_that_cannot_be_written_is_no_success(command):
    if not FULL.exists():
        pytest.skip("there is no /dev/full")
    with FULL.open("w") as full:
        done = subprocess.run([BIN / "dmc", *map(str, command)], stdout=full, stderr=subprocess.PIPE, text=True)
    refused(done, INTERNAL, "cannot be written")


@pytest.mark.parametrize("more", [[], ["--stop", "zzz"]])
def test_a_long_prompt_ends_soon_when_interrupted(tmp_path, more):
    """A context of 2^18 tokens, which takes a minute to take in."""
    model, prompt, printed = tmp_path / "model", tmp_path / "prompt.txt", tmp_path / "printed"
    tiny_models.write_llama(model, {"max_position_embeddings": 1 << 18})
    prompt.write_text("".join(f"{i} " for i in range(40_000)))
    with printed.open("w") as out:
        process = subprocess.Popen(
            [BIN / "dmc", "run", "-m", model, "-f", prompt, "-n", "1", "--threads", "1", *more],
            stdout=out, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while printed.stat().st_size < prompt.stat().st_size:  # it is printed before it is taken in
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        time.sleep(0.5)
        assert process.poll() is None
        used = cpu_seconds(process.pid)
        process.send_signal(signal.SIGINT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == INTERRUPTED and process.stderr.read() == ""
    assert printed.read_text().rstrip("\n") == prompt.read_text(), "a token came after all"
    assert usage.ru_utime + usage.ru_stime - used < 1


@pytest.mark.parametrize("sent", [signal.SIGHUP, signal.SIGTERM])
def test_a_hangup_leaves_a_checkpoint(tmp_path, sent):
    out = tmp_path / "out"
    with started(train(out, every=1000), 3) as process:
        process.send_signal(sent)
        if sent == signal.SIGHUP:
            process.send_signal(sent)  # a terminal that closes says so more than once
        _, said = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED, said
    assert (out / "checkpoint.safetensors").exists() and "--resume" in said
    with started(train(out, "--resume", every=1000), len(steps(out)) + 1):
        pass


def test_nohup_is_obeyed(tmp_path):
    out = tmp_path / "out"
    with started(["nohup", *train(out)], 2) as process:
        process.send_signal(signal.SIGHUP)
        before = len(steps(out))
        while len(steps(out)) < before + 3:
            assert process.poll() is None
            time.sleep(0.01)


def test_interrupting_twice_ends_at_once_and_loses_nothing(tmp_path):
    out = tmp_path / "out"
    with started(train(out), 4) as process:
        process.send_signal(signal.SIGSTOP)  # so that both come within one step
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode in (-signal.SIGINT, INTERRUPTED)
    told = sentences(said)
    assert "once more" in told[0]
    if process.returncode == -signal.SIGINT:
        assert len(told) == 2 and "ended at once" in told[1]
    with started(train(out, "--resume"), len(steps(out)) + 1):
        pass
    assert steps(out)[:5] == [1, 2, 3, 4, 5]
    assert not list(out.glob("*.tmp-*"))


def test_one_run_at_a_time_writes_into_a_folder(tmp_path):
    out = tmp_path / "out"
    with started(train(out), 2) as process:
        for more in ([], ["--resume"], ["--overwrite"]):
            refused(run(train(out, *more)), USAGE, "--out", f"process {process.pid},", str(out))
        assert process.poll() is None
        process.kill()
        process.wait()
    count = len(steps(out))
    with started(train(out, "--resume"), count + 1):  # a killed owner locks nobody out
        pass


def test_serving_goes_on_when_its_log_and_its_clients_leave():
    command = [BIN / "dmc", "serve", "-m", ROOT / "models" / "builtin-dms", "--port", "0", "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        while "http://" not in said:
            said = process.stderr.readline()
            assert said, "did not start"
        process.stderr.close()  # what it says at its end has nobody to go to
        address = ("127.0.0.1", int(re.search(r":(\d+)", said.partition("http://")[2])[1]))
        body = json.dumps({"prompt": "a", "max_tokens": 300, "stream": True, "ignore_eos": True})
        for _ in range(3):
            with socket.create_connection(address) as client:
                head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
                client.sendall(f"{head}\r\nContent-Type: application/json\r\n\r\n{body}".encode())
                assert client.recv(100).startswith(b"HTTP/1.1 200")
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves with a reset
        with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/health", timeout=60) as answer:
            assert answer.status == 200
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_resuming_what_never_was_says_what_to_do(tmp_path):
    refused(run(train(tmp_path / "out", "--resume")), USAGE, "--resume", "begin the run without")
    assert not (tmp_path / "out").exists()


def test_a_log_that_has_no_room_on_resume_loses_no_step(tmp_path):
    out = tmp_path / "out"
    with started(train(out), 12) as process:
        process.kill()
        process.wait()
    before = (out / "train.jsonl").read_text()
    done = run(["bash", "-c", 'ulimit -f 1; exec "$@"', "-", *train(out, "--resume")])
    refused(done, INTERNAL, "train.jsonl" if len(before) > 1024 else "checkpoint")
    with started(train(out, "--resume"), before.count("\n") + 2):
        pass
    found = steps(out)
    assert found == list(range(1, len(found) + 1))


def test_a_stopped_process_of_several_is_named(tmp_path):
    out = tmp_path / "out"
    with started(train(out, "--processes", "2", batch=2), 2) as process:
        [child] = (pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")).read_text().split()
        os.kill(int(child), signal.SIGSTOP)
        start = time.monotonic()
        line = ""
        while "stopped" not in line:
            line = process.stderr.readline()
            assert time.monotonic() - start < 60, "nothing was said for a minute"
        assert "process 1 of 2" in line and f"kill -CONT {child}" in line
        os.kill(int(child), signal.SIGCONT)
        before = len(steps(out))
        while len(steps(out)) <= before:
            assert process.poll() is None
            time.sleep(0.01)


@pytest.mark.parametrize("size, named", [("16k", ".safetensors"), ("24m", "checkpoint.safetensors")])
def test_a_full_disk_is_told_and_keeps_what_was_there(tmp_path, size, named):
    """The checkpoint of some 30 MB does not fit."""
    with mounted(tmp_path / "disk", f"size={size}") as disk:
        refused(run(train(disk / "out", steps=4)), INTERNAL, named, "unchanged")
        assert not list(disk.rglob("*.tmp-*"))
        assert steps(disk / "out") == [1, 2]


def stop_between_files(process, out):
    """Stops it at a moment when no file of `out` is half written."""
    process.send_signal(signal.SIGSTOP)
    while list(out.rglob("*.tmp-*")):
        process.send_signal(signal.SIGCONT)
        time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)


def test_a_disk_without_room_for_the_model_keeps_the_checkpoint(tmp_path):
    with mounted(tmp_path / "disk", "size=70m") as disk:
        out = disk / "out"
        with started(train(out, steps=40), 2) as process:
            while not (out / "checkpoint.safetensors").exists():
                time.sleep(0.01)
            stop_between_files(process, out)  # the room must not change while it is filled
            room = os.statvfs(disk)
            (disk / "ballast").write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - 3 * 4096)))
            process.send_signal(signal.SIGCONT)
            _, said = process.communicate(timeout=300)
        assert process.returncode == INTERNAL
        [sentence] = sentences(said)
        assert "unchanged" in sentence or "cannot be written" in sentence
        (disk / "ballast").unlink()
        done = run(train(out, "--resume", steps=40))
        assert done.returncode == 0, done.stderr
        assert steps(out) == list(range(1, 41)) and (out / "model.safetensors").exists()


def test_a_full_disk_is_told_by_what_reports(tmp_path):
    with mounted(tmp_path / "disk", "size=64k") as disk:
        (disk / "ballast").write_bytes(bytes(60 << 10))
        for command in (["sweep", "--quick", "-m", BUILTIN, "-o", disk / "sweep", "--policies", "dense"],):
            done = run([str(word) for word in (BIN / "dmc", *command)])
            assert done.returncode in (INTERNAL, 3), done.stderr
            assert len(sentences(done.stderr)) == 1 and "written" in done.stderr or "write" in done.stderr


def test_folders_that_are_read_only(tmp_path):
    with mounted(tmp_path / "disk", "size=1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        refused(run(train(disk / "out", steps=2)), USAGE, "--out", "Read-only")
        refused(run(train(disk, steps=2)), USAGE, "--out", "Read-only")
