#!/usr/bin/env python3
"""Loads a server of OpenAI's API and prints throughput and latencies as `vllm bench serve` does.

    bench/serve/load.py                                    # starts dmc serve, chats with it
    bench/serve/load.py --url http://127.0.0.1:8080        # a server that runs, also another engine's
    bench/serve/load.py --lengths long --clients 16 --cache-memory 256MiB -m models/smollm2 \\
        --serve '--force-cr 4' --serve '--policy dense'    # two of ours, compared in turns

Lengths are PROMPT:TOKENS, such as 1500:300, or "chat" (log-normal around 100 and 150 tokens, as
people's chats are) or "long" (prompts of 2,000 to 8,000 tokens, 200 written). Prompts are random
tokens, or with --text FILE pieces of a text. --shared N begins all prompts alike.
Requests come from --clients that ask again when they are answered, or with --rate R at random
times, R a second, of which --clients are served at once. Only Python's own library is needed.
"""

import argparse
import asyncio
import json
import os
import pathlib
import random
import re
import shlex
import statistics
import subprocess
import time

from http_stream import Connection, Refused, gauges

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("DMC_BIN", ROOT / "build" / "bin"))


class Server:
    """A dmc serve of our own."""

    def __init__(self, arguments, options):
        command = [BIN / "dmc", "serve", "-m", arguments.model, "--port", "0", "--no-page"]
        command += ["--cache-memory", arguments.cache_memory, "--max-sequences", arguments.clients]
        self.process = subprocess.Popen(
            [*map(str, command), *options], stderr=subprocess.PIPE, text=True
        )
        log = ""
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log)):
            line = self.process.stderr.readline()
            if not line:
                raise SystemExit(f"the server did not start: {log}")
            log += line
        self.url = found[0]

    def end(self):
        self.process.terminate()
        self.process.communicate(timeout=60)


# --- What is asked ---


class Prompts:
    """Random token ids, or pieces of a text; and how much of them."""

    def __init__(self, arguments, ids, seed):
        self.random = random.Random(seed)
        self.ids, self.lengths = ids, arguments.lengths
        self.shared = [self.piece(arguments.shared) for _ in range(arguments.prefixes)]

    def piece(self, count):
        if isinstance(self.ids, range):
            return self.random.choices(self.ids, k=count)
        at = self.random.randrange(max(1, len(self.ids) - count))
        return self.ids[at : at + count]

    def next(self):
        if self.lengths == "chat":
            prompt = self.random.lognormvariate(4.6, 0.9)
            tokens = self.random.lognormvariate(5.0, 0.7)
        elif self.lengths == "long":
            prompt, tokens = self.random.uniform(2000, 8000), 200
        else:
            prompt, tokens = map(int, self.lengths.split(":"))
        begin = self.random.choice(self.shared)
        return begin + self.piece(max(1, int(prompt))), max(1, int(tokens))


async def token_ids(url, arguments):
    """What prompts are made of."""
    connection = Connection(url, arguments.key)
    if arguments.text:
        text = pathlib.Path(arguments.text).read_text(errors="replace")[: 1 << 20]
        tokens, piece = [], 4000  # characters: a server takes as many as its context has room for
        for at in range(0, len(text), piece):
            body = {"prompt": text[at : at + piece], "add_special_tokens": False}
            tokens += json.loads(await connection.ask("POST", "/tokenize", body))["tokens"]
        return tokens
    if arguments.vocabulary:
        return range(3, arguments.vocabulary)
    api = await connection.ask("GET", "/openapi.json")  # ours has the bound of token ids
    found = re.search(r'"maximum":(\d+)', api.split('"/detokenize"')[-1])
    if not found:
        raise SystemExit("say --vocabulary N, this server does not")
    return range(3, int(found[1]))


class Answer:
    def __init__(self, prompt):
        self.prompt, self.tokens, self.cached = prompt, 0, 0
        self.error, self.done = None, False
        self.times = []  # of events with text; the first is when it was asked for

    @property
    def first(self):
        return self.times[1] - self.times[0]

    @property
    def whole(self):
        return self.times[-1] - self.times[0]

    @property
    def per_token(self):
        return (self.times[-1] - self.times[1]) / max(1, self.tokens - 1)

    @property
    def between(self):
        return [b - a for a, b in zip(self.times[1:], self.times[2:])]


async def ask(connection, prompt, tokens, arguments, answer=None):
    """Fills `answer` in as tokens come."""
    body = {
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": arguments.temperature,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if arguments.model_name:
        body["model"] = arguments.model_name
    answer = answer or Answer(len(prompt))
    answer.times.append(time.perf_counter())
    try:
        async for now, event in connection.events("/v1/completions", body):
            if event.get("choices"):
                answer.times.append(now)
            elif "error" in event:
                answer.error = str(event["error"])
            if usage := event.get("usage"):
                answer.tokens = usage["completion_tokens"]
                answer.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    except (Refused, OSError, ValueError, IndexError, asyncio.IncompleteReadError) as error:
        answer.error = str(error) or type(error).__name__
        connection.close()
    if answer.error is None and len(answer.times) < 2:
        answer.error = "nothing was written"
    answer.done = answer.error is None
    return answer


# --- A round ---


async def watch(url, arguments, samples):
    connection = Connection(url, arguments.key)
    while True:
        try:
            samples.append(gauges(await connection.ask("GET", "/metrics")))
        except (Refused, OSError, ValueError):
            return  # another engine's
        await asyncio.sleep(0.2)


class Round:
    def __init__(self, url, arguments, prompts):
        self.url, self.arguments, self.prompts = url, arguments, prompts
        self.answers, self.asked, self.begin = [], 0, time.perf_counter()

    def over(self):
        late = time.perf_counter() - self.begin > self.arguments.seconds
        return self.asked >= self.arguments.requests if self.arguments.requests else late

    async def one(self, connection):
        self.asked += 1
        answer = await ask(connection, *self.prompts.next(), self.arguments)
        self.answers.append(answer)
        if answer.error:
            await asyncio.sleep(0.2)

    async def client(self):
        connection = Connection(self.url, self.arguments.key)
        while not self.over():
            await self.one(connection)
        connection.close()

    async def at_a_rate(self):
        free = [Connection(self.url, self.arguments.key) for _ in range(self.arguments.clients)]
        limit, tasks = asyncio.Semaphore(self.arguments.clients), []

        async def serve():
            async with limit:
                connection = free.pop()
                await self.one(connection)
                free.append(connection)

        while not self.over():
            tasks.append(asyncio.create_task(serve()))
            await asyncio.sleep(self.prompts.random.expovariate(self.arguments.rate))
        await asyncio.gather(*tasks)

    async def run(self):
        samples = []
        watcher = asyncio.create_task(watch(self.url, self.arguments, samples))
        self.begin = time.perf_counter()
        if self.arguments.rate:
            await self.at_a_rate()
        else:
            await asyncio.gather(*(self.client() for _ in range(self.arguments.clients)))
        seconds = time.perf_counter() - self.begin
        watcher.cancel()
        return result(self.answers, seconds, samples)


# --- What is said ---


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(part * len(values)))] if values else float("nan")


def spread(name, seconds):
    ms = [1000 * value for value in seconds]
    found = {f"Mean {name} (ms)": statistics.fmean(ms) if ms else float("nan")}
    for label, part in (("Median", 0.5), ("P90", 0.9), ("P99", 0.99)):
        found[f"{label} {name} (ms)"] = percentile(ms, part)
    return found


def cache_use(samples):
    """While the server was as busy as it gets: the beginning and the end of a round do not count."""
    if not samples or "dmc_requests_running" not in samples[0]:
        return {}
    first, last = samples[0], samples[-1]
    counts = [sample["dmc_requests_running"] for sample in samples]
    busy = samples[len(samples) // 4 : -len(samples) // 8 or None]

    def mean(name):
        return statistics.fmean(sample.get(name, float("nan")) for sample in busy)

    def grown(name):
        return last[name] - first[name]

    pages = last.get("dmc_kv_pages", float("nan"))
    return {
        "Sequences in flight, mean": mean("dmc_requests_running"),
        "Sequences in flight, most": max(counts),
        "Pages held by sequences (%)": 100 * mean("dmc_kv_pages_running") / pages,
        "Pages free (%)": 100 * mean("dmc_kv_pages_free") / pages,
        "Compression ratio": last["dmc_kv_compression_ratio"],
        "Preemptions": grown("dmc_preemptions_total"),
        "Prompt tokens from snapshots": grown("dmc_prompt_tokens_cached_total"),
    }


def result(answers, seconds, samples):
    good = [answer for answer in answers if answer.error is None]
    written = sum(answer.tokens for answer in good)
    read = sum(answer.prompt for answer in good)
    return {
        "Successful requests": len(good),
        "Failed requests": len(answers) - len(good),
        "Duration (s)": seconds,
        "Total input tokens": read,
        "Total generated tokens": written,
        "Request throughput (req/s)": len(good) / seconds,
        "Output token throughput (tok/s)": written / seconds,
        "Total token throughput (tok/s)": (read + written) / seconds,
        **spread("TTFT", [answer.first for answer in good]),
        **spread("TPOT", [answer.per_token for answer in good if answer.tokens > 1]),
        **spread("ITL", [gap for answer in good for gap in answer.between]),
        **spread("E2EL", [answer.whole for answer in good]),
        **cache_use(samples),
        "errors": sorted({answer.error for answer in answers if answer.error})[:3],
    }


HEADINGS = {
    "Mean TTFT (ms)": "Time to First Token",
    "Mean TPOT (ms)": "Time per Output Token (excl. 1st token)",
    "Mean ITL (ms)": "Inter-token Latency",
    "Mean E2EL (ms)": "End-to-end Latency",
    "Sequences in flight, mean": "KV Cache",
}


def print_results(by_kind):
    """A column for each server, each number the median of its rounds."""
    kinds = list(by_kind)
    width = max(24, *(len(kind) + 2 for kind in kinds)) if len(kinds) > 1 else 12
    print("=" * (42 + width * len(kinds)))
    if len(kinds) > 1:
        print(" " * 42 + "".join(f"{kind or '(as trained)':>{width}}" for kind in kinds))
    for name in by_kind[kinds[0]][0]:
        if name == "errors":
            continue
        if name in HEADINGS:
            print(f"{HEADINGS[name]:-^{42 + width * len(kinds)}}")
        cells = (statistics.median(each.get(name, float("nan")) for each in by_kind[kind])
                 for kind in kinds)
        print(f"{name + ':':<42}" + "".join(f"{cell:>{width}.2f}" for cell in cells))
    for errors in {error for rounds in by_kind.values() for each in rounds for error in each["errors"]}:
        print("failed:", errors)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="of a server that runs; without it one is started")
    parser.add_argument("--key", help="API key")
    parser.add_argument("--model-name", help="field model of requests")
    parser.add_argument("--vocabulary", type=int, help="of the model of another engine's server")
    parser.add_argument("-m", "--model", default="models/builtin-dms", help="of a server of ours")
    parser.add_argument("--serve", action="append", help="its options; '' for none; repeat to compare")
    parser.add_argument("--cache-memory", default="24MiB", help="its pages")
    parser.add_argument("--clients", type=int, default=16, help="requests at once")
    parser.add_argument("--rate", type=float, help="requests a second; else as soon as answered")
    parser.add_argument("--requests", type=int, help="of a round; else --seconds")
    parser.add_argument("--seconds", type=float, default=20, help="that a round asks for")
    parser.add_argument("--rounds", type=int, default=1, help="with each server, in turns")
    parser.add_argument("--lengths", default="chat", help="chat, long, or PROMPT:TOKENS")
    parser.add_argument("--shared", type=int, default=0, help="tokens that prompts begin with alike")
    parser.add_argument("--prefixes", type=int, default=1, help="different ones of these")
    parser.add_argument("--text", help="file that prompts are pieces of")
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="file for all rounds' numbers")
    arguments = parser.parse_args()
    if arguments.lengths not in ("chat", "long") and not re.fullmatch(r"\d+:\d+", arguments.lengths):
        parser.error("--lengths: expected chat, long, or PROMPT:TOKENS such as 1500:300")
    return arguments


async def measure(url, arguments, number):
    ids = await token_ids(url, arguments)
    prompts = Prompts(arguments, ids, arguments.seed + 1000 * number)
    return await Round(url, arguments, prompts).run()


def main():
    arguments = parse()
    kinds = arguments.serve or [""]
    by_kind = {kind: [] for kind in kinds}
    for number in range(arguments.rounds):
        for kind in kinds:
            if arguments.url:
                by_kind[kind].append(asyncio.run(measure(arguments.url, arguments, number)))
                continue
            server = Server(arguments, shlex.split(kind))
            try:
                by_kind[kind].append(asyncio.run(measure(server.url, arguments, number)))
            finally:
                server.end()
    print_results(by_kind)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(by_kind, indent=1))


if __name__ == "__main__":
    main()
