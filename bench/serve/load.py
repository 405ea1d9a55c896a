#!/usr/bin/env python3
"""Loads `dmc serve` with clients that ask again as soon as they are answered.

    bench/serve/load.py --model models/builtin-dms --cache-memory 12MiB --clients 16 \
        --prompt 1500 --tokens 300 --serve '' --serve '--policy dense'

Each --serve is the options of a server; they are measured in turns (--rounds), each with fresh
prompts of random tokens, and a line of the table is the median of its rounds. Nothing but Python's
own library is needed.
"""

import argparse
import http.client
import json
import os
import pathlib
import random
import re
import shlex
import statistics
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("DMC_BIN", ROOT / "build" / "bin"))


class Server:
    def __init__(self, arguments, options):
        command = [BIN / "dmc", "serve", "-m", arguments.model, "--port", "0", *options]
        command += ["--cache-memory", arguments.cache_memory, "--max-sequences", arguments.clients]
        self.process = subprocess.Popen(
            list(map(str, command)), stderr=subprocess.PIPE, text=True
        )
        log = ""
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log)):
            line = self.process.stderr.readline()
            if not line:
                raise SystemExit(f"the server did not start: {log}")
            log += line
        self.port = int(found[1])
        self.vocabulary = int(
            re.search(r'"maximum":(\d+)', self.get("/openapi.json").split('"/detokenize"')[1])[1]
        )

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        return connection.getresponse().read().decode()

    def metrics(self):
        lines = self.get("/metrics").splitlines()
        return {k: float(v) for k, v in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def end(self):
        self.process.terminate()
        self.process.communicate(timeout=60)


class Client(threading.Thread):
    def __init__(self, server, arguments, seed, end):
        super().__init__()
        self.server, self.arguments, self.end = server, arguments, end
        self.random = random.Random(seed)
        self.first, self.between, self.answers, self.tokens, self.failed = [], [], 0, 0, 0

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=600)
        while time.time() < self.end:
            prompt = self.random.choices(range(3, self.server.vocabulary), k=self.arguments.prompt)
            body = {
                "prompt": prompt,
                "max_tokens": self.arguments.tokens,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
            }
            self.ask(connection, json.dumps(body))

    def ask(self, connection, body):
        start = last = time.perf_counter()
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            answer.read()
            self.failed += 1
            time.sleep(0.2)
            return
        count = 0
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            now = time.perf_counter()
            (self.between if count else self.first).append(now - last if count else now - start)
            last, count = now, count + 1
            if time.time() < self.end:
                self.tokens += 1
        self.answers += time.time() < self.end + 1


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(part * len(values)))] if values else float("nan")


def measure(server, arguments, seed):
    end = time.time() + arguments.seconds
    clients = [Client(server, arguments, seed + i, end) for i in range(arguments.clients)]
    for client in clients:
        client.start()
    running = []
    while time.time() < end:
        running.append(server.metrics()["dmc_requests_running"])
        time.sleep(0.25)
    for client in clients:
        client.join()
    first = [x for client in clients for x in client.first]
    between = [x for client in clients for x in client.between]
    metrics = server.metrics()
    return {
        "running": statistics.mean(running[len(running) // 4 :]),
        "tokens/s": sum(client.tokens for client in clients) / arguments.seconds,
        "TTFT p50 s": percentile(first, 0.5),
        "TTFT p99 s": percentile(first, 0.99),
        "ITL p50 ms": 1000 * percentile(between, 0.5),
        "ITL p99 ms": 1000 * percentile(between, 0.99),
        "CR": metrics["dmc_kv_compression_ratio"],
        "preempted": metrics["dmc_preemptions_total"],
        "refused": sum(client.failed for client in clients),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="models/builtin-dms")
    parser.add_argument("--serve", action="append", help="options of a server; '' for none")
    parser.add_argument("--cache-memory", default="12MiB")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=1500, help="tokens")
    parser.add_argument("--tokens", type=int, default=300, help="to write")
    parser.add_argument("--seconds", type=float, default=20, help="a round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    kinds = arguments.serve or ["", "--policy dense"]
    rounds = {kind: [] for kind in kinds}
    for number in range(arguments.rounds):
        for kind in kinds:
            server = Server(arguments, shlex.split(kind))
            try:
                rounds[kind].append(measure(server, arguments, 1000 * number))
            finally:
                server.end()
    names = list(rounds[kinds[0]][0])
    print("  ".join(f"{name:>10}" for name in names) + "  options")
    for kind in kinds:
        medians = [statistics.median(each[name] for each in rounds[kind]) for name in names]
        print("  ".join(f"{value:10.2f}" for value in medians) + f"  {kind or '(as trained)'}")


if __name__ == "__main__":
    main()
