#!/usr/bin/env python3
"""Lets dmc run, eval, chat and serve work for a long time and watches their memory, which must not grow.

    tests/attack/soak.py [--dmc build/bin/dmc] [--seconds 1800] [--load 0.5]

All four live at the same time and take turns of a fifth of a second, so that together they use `--load`
of one core and another's work is not in the way. One that comes to its end begins anew. Exit code 1 if
one has failed or is larger at the end than it was after a fifteenth of the time, beyond a fifth and 16 MB.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import pty
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
TURN = 0.2  # seconds that one of them runs
PATIENCE = 600  # seconds that anything may take while others have their turns
CHAT = (
    "{% for m in messages %}# {{ m.role }}\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}# assistant\n{% endif %}"
)
TEXTS = ("asyncio", "email", "http", "unittest", "xml", "multiprocessing")  # of Python's own library


class Program(threading.Thread):
    """A command and who uses it, until `over` is set."""

    name, unit = "", "times"

    def __init__(self, dmc, folder, over):
        super().__init__(daemon=True)
        self.dmc, self.folder, self.over = dmc, folder, over
        self.process, self.done, self.problem = None, 0, None

    def start_process(self, *arguments, **options):
        command = [str(word) for word in (self.dmc, *arguments)]
        self.process = subprocess.Popen(command, **options)

    def run(self):
        try:
            self.work()
        except Exception as error:  # also of an assertion: the report says it
            if not self.over.is_set():
                self.problem = f"{type(error).__name__}: {error}"

    def send(self, number):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def end(self):
        self.send(signal.SIGCONT)
        self.send(signal.SIGKILL)

    def megabytes(self):
        """Resident memory; None while there is no process."""
        with contextlib.suppress(OSError, AttributeError):
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
            if found := re.search(r"VmRSS:\s+(\d+)", status):
                return int(found[1]) / 1024
        return None

    def cpu_seconds(self):
        with contextlib.suppress(OSError, AttributeError, IndexError):
            stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0


class Repeated(Program):
    def arguments(self):
        raise NotImplementedError

    def work(self):
        while not self.over.is_set():
            log = self.folder / f"{self.name}.txt"
            with log.open("w") as said:
                self.start_process(*self.arguments(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
                code = self.process.wait()
            if not self.over.is_set():
                assert code == 0, f"exit code {code}: {log.read_text()[-300:]}"
                self.done += 1


class Run(Repeated):
    name = "run"

    def arguments(self):
        prompts = self.folder / "prompts.jsonl"
        prompts.write_text("".join(json.dumps(f"def function_{i}(") + "\n" for i in range(2000)))
        return ["run", "-m", MODELS / "builtin-4x", "--prompts", prompts, "-n", 100, "--threads", 1]


class Eval(Repeated):
    name = "eval"

    def arguments(self):
        library = pathlib.Path(sysconfig.get_paths()["stdlib"])
        return ["eval", "-m", MODELS / "builtin-dms", "--threads", 1, "--data", *(library / name for name in TEXTS)]


class Chat(Program):
    """Conversations at a terminal, of some turns each."""

    name, unit = "chat", "replies"

    def work(self):
        model = shutil.copytree(MODELS / "builtin-4x", self.folder / "chat-model")
        (model / "chat_template.jinja").write_text(CHAT)
        self.screen, child = pty.openpty()
        self.start_process(
            "run", "-m", model, "--chat", "-n", 40, "--threads", 1, stdin=child, stdout=child, stderr=child,
            env=os.environ | {"HOME": str(self.folder), "TERM": "dumb"}, start_new_session=True,
        )  # fmt: skip
        os.close(child)
        self.read("> ")
        while not self.over.is_set():
            os.write(self.screen, f"import module_{self.done}\n".encode())
            self.read("stopped:")
            self.read("> ")
            self.done += 1
            if self.done % 5 == 0:
                os.write(self.screen, b"/clear\n")
                self.read("> ")

    def read(self, until):
        shown, deadline = "", time.monotonic() + PATIENCE
        while until not in shown:
            assert time.monotonic() < deadline, f"no {until!r} in {shown[-300:]!r}"
            if select.select([self.screen], [], [], 0.5)[0]:
                shown += os.read(self.screen, 4096).decode(errors="replace")


class Serve(Program):
    """A client that asks for texts and streams, leaves some, and asks for nonsense."""

    name, unit = "serve", "requests"

    def work(self):
        self.start_process("serve", "-m", MODELS / "builtin-dms", "--port", 0, "--cache-memory", "8MiB", "--threads", 1,
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
        log = ""
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log)):
            line = self.process.stderr.readline()
            assert line, f"did not start: {log}"
            log += line
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        rng = random.Random(1)
        while not self.over.is_set():
            self.ask(int(found[1]), rng)
            self.done += 1

    def ask(self, port, rng):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        kind = rng.randrange(5)
        body = {"prompt": "x = 1\n" * rng.randrange(1, 100), "max_tokens": 40, "stream": kind in (1, 2)}
        sent = b"{" if kind == 4 else json.dumps(body).encode()
        connection.request("POST", "/v1/completions", sent, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if kind == 2:
            answer.read(100)  # and leaves
        else:
            answer.read()
        assert answer.status == (400 if kind == 4 else 200), answer.status
        connection.close()


def take_turns(programs, load, until):
    """Every process but one stands still, and that one, too, for a part of the time."""
    while time.monotonic() < until and not all(program.problem for program in programs):
        for program in programs:
            program.send(signal.SIGCONT)
            time.sleep(TURN)
            program.send(signal.SIGSTOP)
            time.sleep(TURN * (1 / load - 1))


def soak(options, folder):
    over = threading.Event()
    programs = [kind(options.dmc, folder, over) for kind in (Run, Eval, Chat, Serve)]
    start = time.monotonic()
    for program in programs:
        program.start()
    try:
        take_turns(programs, options.load, start + options.seconds / 15)
        early = [program.megabytes() for program in programs]
        print(f"after {time.monotonic() - start:.0f} s:", *(f"{p.name} {m or 0:.1f} MB" for p, m in zip(programs, early)),
              flush=True)  # fmt: skip
        take_turns(programs, options.load, start + options.seconds)
        late = [program.megabytes() for program in programs]
        used = [program.cpu_seconds() for program in programs]
    finally:
        over.set()
        for program in programs:
            program.end()
    return report(programs, early, late, used, time.monotonic() - start, options.seconds / 15)


def report(programs, early, late, used, seconds, first):
    print(f"{seconds:.0f} s; resident memory after {first:.0f} s and at the end")
    failed = False
    for program, before, after, cpu in zip(programs, early, late, used):
        problem = program.problem
        if problem is None and (before is None or after is None):
            problem = "has no process"
        if problem is None and after > 1.2 * before + 16:
            problem = "has grown"
        failed |= problem is not None
        print(f"{program.name:<6} {before or 0:7.1f} {after or 0:7.1f} MB  {program.done} {program.unit}, {cpu:.0f} s of "
              f"the processor{': ' + problem if problem else ''}")  # fmt: skip
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dmc", type=pathlib.Path, default=ROOT / "build" / "bin" / "dmc", help="the program")
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--load", type=float, default=0.5, help="of one core, for all together")
    options = parser.parse_args()
    options.dmc = options.dmc.resolve()
    with tempfile.TemporaryDirectory(prefix="dmc-soak-", ignore_cleanup_errors=True) as folder:
        return soak(options, pathlib.Path(folder))


if __name__ == "__main__":
    sys.exit(main())
