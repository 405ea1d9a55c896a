#!/usr/bin/env python3
"""The same model, weights and bytes of cache: dmc dense, dmc compressed, and llama.cpp's server, under load.

    bench/serve/compare.py -m model.gguf --adapter adapter.safetensors
    bench/serve/compare.py -m model.gguf --force-cr 4 --kinds dense,compressed --seconds 20   # without llama.cpp

For each context and round in turn, each server is started with --cache of KV cache in f16 and asked by as many
clients as --clients, which ask again when they are answered, for --seconds. Texts that are being written when the
time is over count with the tokens they got. llama-server gets as many slots as whole requests fit its cache, as it
divides that among them. It is built from the source package of llama-cpp-python, once (bench/peers), unless
--llama-server names one. Ratios against dmc dense are taken round by round, and their median is shown.
"""

import argparse
import asyncio
import json
import pathlib
import re
import shlex
import socket
import statistics
import subprocess
import sys
import time

from load import BIN, ROOT, Answer, Prompts, ask, percentile, token_ids, watch

from http_stream import Connection, Refused

PEERS = ROOT / "bench" / "peers"


class Served:
    """A server that is ready to be asked; ended with SIGTERM. Its log goes to a file."""

    def __init__(self, name, command, url, log):
        self.name, self.url, self.log = name, url, log
        self.file = open(log, "w")
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=self.file, stderr=subprocess.STDOUT
        )

    async def ready(self, seconds=120):
        end = time.time() + seconds
        while time.time() < end:
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} did not start: {self.log.read_text()[-2000:]}")
            try:
                connection = Connection(self.url)
                await connection.ask("GET", "/health")
                connection.close()
                return
            except (OSError, Refused, IndexError, ValueError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.2)
        raise SystemExit(f"{self.name} was not ready after {seconds} s: see {self.log}")

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.file.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def bytes_of(text):
    number, unit = re.fullmatch(r"(\d+)([KMG]iB)", text).groups()
    return int(number) << {"KiB": 10, "MiB": 20, "GiB": 30}[unit]


def token_bytes(arguments):
    """That a token takes in a dense cache of 16 bits, in either engine."""
    command = [BIN / "dmc", "plan", "-m", arguments.model, "--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout)["cache_bytes_per_dense_token"])


def find_llama(arguments):
    if arguments.llama_server:
        return arguments.llama_server
    sys.path.insert(0, str(PEERS))
    from llama_cpp import LlamaCpp

    work = ROOT / "build" / "peers"
    llama = LlamaCpp(work, arguments.jobs)
    return llama.ensure_server(lambda text: print(f"compare: {text}", file=sys.stderr))


def command_of(kind, arguments, context, lengths, port):
    """(command, sequences that can run at once or None where the server decides)."""
    dmc = [BIN / "dmc", "serve", "-m", arguments.model, "--port", port, "--no-page", "--kv", "f16"]
    dmc += ["--context", context, "--cache-memory", arguments.cache, "--max-sequences", arguments.clients]
    dmc += ["--threads", arguments.threads, "--queue", 4096]
    if kind == "dense":
        return [*dmc, "--policy", "dense"], None
    if kind == "compressed":
        how = ["--adapter", arguments.adapter] if arguments.adapter else []
        how += ["--force-cr", arguments.force_cr] if arguments.force_cr else []
        return [*dmc, *how, *shlex.split(arguments.options)], None
    cells = bytes_of(arguments.cache) // token_bytes(arguments)
    slots = max(1, min(arguments.clients, cells // sum(lengths)))
    command = [find_llama(arguments), "-m", arguments.model, "--port", port, "--host", "127.0.0.1"]
    command += ["-c", slots * (cells // slots if slots > 1 else min(cells, context)), "-np", slots]
    command += ["-t", arguments.threads, "-tb", arguments.threads, "-ctk", "f16", "-ctv", "f16"]
    return command, slots


class Load:
    """Clients that ask again as soon as they are answered, until time is over."""

    def __init__(self, url, arguments, prompts):
        self.url, self.arguments, self.prompts, self.answers = url, arguments, prompts, []

    async def client(self):
        connection = Connection(self.url)
        while True:
            prompt, tokens = self.prompts.next()
            answer = Answer(len(prompt))
            self.answers.append(answer)
            await ask(connection, prompt, tokens, self.arguments, answer)
            if answer.error:
                await asyncio.sleep(0.5)

    async def run(self):
        samples = []
        watcher = asyncio.create_task(watch(self.url, self.arguments, samples))
        begin = time.perf_counter()
        tasks = [asyncio.create_task(self.client()) for _ in range(self.arguments.clients)]
        await asyncio.sleep(self.arguments.seconds)
        seconds = time.perf_counter() - begin
        for task in [*tasks, watcher]:
            task.cancel()
        await asyncio.gather(*tasks, watcher, return_exceptions=True)
        return self.result(begin, seconds, samples)

    def result(self, begin, seconds, samples):
        begun = [a for a in self.answers if len(a.times) > 1 and not a.error]
        first = min((a.times[1] for a in begun), default=begin)
        written = sum(len(a.times) - 1 for a in begun)
        gaps = [1000 * gap for a in begun for gap in a.between]
        waits = [1000 * a.first for a in begun]
        running = [sample["dmc_requests_running"] for sample in samples if "dmc_requests_running" in sample]
        return {
            "sequences in flight, most": max(running, default=float("nan")),
            "sequences in flight, mean": statistics.fmean(running) if running else float("nan"),
            "requests/s": sum(a.done for a in begun) / seconds,
            "written tok/s": written / max(1e-9, begin + seconds - first),
            "read and written tok/s": (written + sum(a.prompt for a in begun)) / seconds,
            "TTFT p50 (ms)": percentile(waits, 0.5),
            "TTFT p99 (ms)": percentile(waits, 0.99),
            "inter-token p50 (ms)": percentile(gaps, 0.5),
            "inter-token p99 (ms)": percentile(gaps, 0.99),
            "begun": len(begun),
            "failed": sum(a.error is not None for a in self.answers),
            "compression ratio": samples[-1].get("dmc_kv_compression_ratio", float("nan")) if samples else float("nan"),
            "errors": sorted({a.error for a in self.answers if a.error})[:3],
        }


async def measure(kind, arguments, context, lengths, number):
    port = free_port()
    command, slots = command_of(kind, arguments, context, lengths, port)
    log = arguments.logs / f"{kind}-{context}-{number}.txt"
    served = Served(kind, command, f"http://127.0.0.1:{port}", log)
    try:
        await served.ready()
        ids = await ids_of(served.url, arguments, kind)
        prompts = Prompts(arguments, ids, arguments.seed + number)
        prompts.lengths = f"{lengths[0]}:{lengths[1]}"
        result = await Load(served.url, arguments, prompts).run()
    finally:
        served.end()
    if slots is not None:
        result["sequences in flight, most"] = result["sequences in flight, mean"] = slots
    return result


IDS = []  # the same prompts for all servers


async def ids_of(url, arguments, kind):
    if not IDS:
        if kind == "llama-server" and not arguments.vocabulary:
            raise SystemExit("with llama-server alone say --vocabulary N")
        IDS.append(await token_ids(url, arguments))
    return IDS[0]


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--model", type=pathlib.Path, required=True, help="a GGUF file")
    parser.add_argument("--adapter", help="that compresses it (dmc retrofit --decisions adapter)")
    parser.add_argument("--force-cr", type=float, help="instead: merge at random, for speed alone")
    parser.add_argument("--options", default="", help="further ones of the compressed dmc serve")
    parser.add_argument("--kinds", default="dense,compressed,llama-server")
    parser.add_argument("--contexts", default="2048,8192", help="tokens; of each a quarter is written")
    parser.add_argument("--cache", default="384MiB", help="bytes of KV cache, f16")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=80, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--text", help="file that prompts are pieces of; without it random tokens")
    parser.add_argument("--vocabulary", type=int)
    parser.add_argument("--llama-server", help="program; without it one is built")
    parser.add_argument("--jobs", type=int, default=2, help="of that build")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--logs", type=pathlib.Path, default=ROOT / "build" / "compare-serve")
    parser.add_argument("--json", help="file for all numbers")
    arguments = parser.parse_args()
    arguments.shared, arguments.prefixes, arguments.lengths = 0, 1, "chat"
    arguments.key = arguments.model_name = None
    arguments.logs.mkdir(parents=True, exist_ok=True)
    return arguments


def print_table(context, lengths, by_kind):
    kinds = list(by_kind)
    print(f"\n{context} tokens of context: {lengths[0]} read, {lengths[1]} written")
    print(" " * 28 + "".join(f"{kind:>14}" for kind in kinds))
    for name in next(iter(by_kind.values()))[0]:
        if name == "errors":
            continue
        cells = [statistics.median(each[name] for each in by_kind[kind]) for kind in kinds]
        print(f"{name:<28}" + "".join(f"{cell:>14.2f}" for cell in cells))
    if "dense" in by_kind and len(kinds) > 1:
        print("against dmc dense:")
        for name in ("sequences in flight, mean", "requests/s", "written tok/s", "read and written tok/s"):
            ratios = []
            for kind in kinds:
                pairs = zip(by_kind[kind], by_kind["dense"])
                ratios.append(statistics.median(a[name] / b[name] if b[name] else float("nan") for a, b in pairs))
            print(f"  {name:<26}" + "".join(f"{ratio:>13.2f}x" for ratio in ratios))
    for kind in kinds:
        for error in {error for each in by_kind[kind] for error in each["errors"]}:
            print(f"{kind} failed: {error}")


def main():
    arguments = parse()
    kinds = arguments.kinds.split(",")
    if "llama-server" in kinds:
        arguments.llama_server = find_llama(arguments)
    everything = {}
    for context in map(int, arguments.contexts.split(",")):
        lengths = (context * 3 // 4, context // 4)
        by_kind = {kind: [] for kind in kinds}
        for number in range(arguments.rounds):
            for kind in kinds:
                by_kind[kind].append(asyncio.run(measure(kind, arguments, context, lengths, number)))
        print_table(context, lengths, by_kind)
        everything[context] = by_kind
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
