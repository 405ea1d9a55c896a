"""Many clients at once: what is written does not change, and what is taken is given back."""

import concurrent.futures
import contextlib
import json
import os
import random
import socket
import threading
import time

import pytest

from tests.server.conftest import Server

TEXTS = ["import os\n", "def read_file(path):\n", "class Parser:\n    def ", "for i in range("]


def bodies(count):
    rng = random.Random(3)
    return [
        {
            "prompt": rng.choice(TEXTS) * rng.randint(1, 30),
            "max_tokens": rng.randint(20, 150),
            "temperature": rng.choice([0, 1]),
            "seed": i,
            "n": rng.choice([1, 1, 2]),
            "ignore_eos": True,
            "logprobs": 0,
        }
        for i in range(count)
    ]


def written(server, body):
    return [choice["logprobs"]["tokens"] for choice in server.complete(**body)["choices"]]


@pytest.mark.parametrize(
    "options",
    [["--cache-memory", "2500KiB"], ["--max-sequences", "3"], ["--step-tokens", "7"]]
    + [["--snapshots", "0", "--cache-memory", "2500KiB"]],
    ids=" ".join,
)
def test_texts_under_load_are_those_alone(server, options):
    asked = bodies(24)
    alone = [written(server, body) for body in asked]
    crowded = Server(*options, "--context", "700")
    try:
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            together = list(pool.map(lambda body: written(crowded, body), asked))
        assert together == alone
        if "2500KiB" in options:
            assert crowded.metric("dmc_preemptions_total") > 0
    finally:
        assert crowded.end() == 0


@pytest.mark.parametrize(
    "options",
    ["--policy dense", "--cr 3", "--kv int8", "--policy h2o --cr 2", "--policy snapkv --cr 2"]
    + ["--policy tova --budget 64", "--tensor-parallel-size 2 --cache-memory 2500KiB"],
)
def test_every_policy_writes_the_same_under_load(options):
    asked = bodies(12)
    server = Server(*options.split(), "--step-tokens", "50")
    try:
        alone = [written(server, body) for body in asked]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda body: written(server, body), asked))
        assert together == alone
    finally:
        assert server.end() == 0


def test_a_request_that_may_never_fit_is_refused_with_numbers():
    server = Server("--cache-memory", "400KiB")
    try:
        status, _, text = server.ask("/v1/completions", {"prompt": "a", "max_tokens": 2000})
        error = json.loads(text)["error"]
        assert status == 400 and error["param"] == "max_tokens" and "pages" in error["message"]
        assert server.ask("/v1/completions", {"prompt": "a", "max_tokens": 20})[0] == 200
    finally:
        assert server.end() == 0


def test_the_ratio_rises_under_pressure_within_its_bounds():
    body = {"prompt": TEXTS[2] * 40, "max_tokens": 200, "temperature": 0, "ignore_eos": True}
    server = Server("--elastic", "1.5..6", "--cache-memory", "4MiB", "--context", "700")
    try:
        alone = server.complete(**body)["usage"]["dmc"]
        assert 1.5 <= alone["held_ratio"] < 3
        asked = [body | {"prompt": text * 40} for text in TEXTS * 4]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            crowd = list(pool.map(lambda each: server.complete(**each)["usage"]["dmc"], asked))
        assert all(1.5 <= use["held_ratio"] <= 6 for use in crowd)
        assert max(use["held_ratio"] for use in crowd) == 6
        assert max(use["compression_ratio"] for use in crowd) > alone["compression_ratio"]
    finally:
        assert server.end() == 0


def test_a_request_names_its_own_ratio():
    body = {"prompt": TEXTS[2] * 40, "max_tokens": 200, "temperature": 0, "ignore_eos": True}
    answers = []
    for options, more in (["--cr", "4"], {}), (["--cr", "2"], {"dmc": {"cr": 4}}):
        server = Server(*options, "--context", "700")
        try:
            answers.append(server.complete(**body | more))
        finally:
            assert server.end() == 0
    as_served, as_asked = answers
    assert as_asked["choices"] == as_served["choices"]
    assert as_asked["usage"]["dmc"] == as_served["usage"]["dmc"]
    assert as_asked["usage"]["dmc"]["held_ratio"] == 4


def test_sigterm_lets_texts_end():
    server = Server()
    body = {"prompt": "a", "max_tokens": 400, "ignore_eos": True}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.complete, **body)
        while server.metric("dmc_requests_running") == 0:
            time.sleep(0.01)
        server.process.terminate()
        assert answer.result()["usage"]["completion_tokens"] == 400
    assert server.process.wait(30) == 0


def test_a_killed_server_serves_again_at_once():
    server = Server()
    server.process.kill()
    server.process.wait()
    start = time.time()
    again = Server("--port", server.port)
    assert again.ask("/health")[0] == 200
    print(f"served again after {time.time() - start:.2f} s")
    assert again.end() == 0


def resident(process):
    with open(f"/proc/{process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Client(threading.Thread):
    """Asks at random, well and badly, reads slowly, leaves early."""

    def __init__(self, server, seed, end):
        super().__init__()
        self.server, self.random, self.end = server, random.Random(seed), end
        self.counts, self.problems = {}, []

    def run(self):
        while time.time() < self.end:
            kind = self.random.choice([self.whole, self.stream, self.leave, self.slow, self.bad])
            try:
                kind()
                self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1
            except Exception as problem:  # told at the end
                self.problems.append(f"{kind.__name__}: {problem!r}")

    def body(self, **more):
        rng = self.random
        prompt = rng.choice(TEXTS) * rng.randint(1, 40)
        return {"prompt": prompt, "max_tokens": rng.randint(1, 80), "n": rng.choice([1, 2])} | more

    def whole(self):
        status, _, text = self.server.ask("/v1/completions", self.body())
        assert status in (200, 503), (status, text)

    def stream(self):
        status, _, text = self.server.ask("/v1/completions", self.body(stream=True))
        assert status == 503 or text.endswith("data: [DONE]\n\n"), (status, text)

    def send(self, body):
        data = json.dumps(body).encode()
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=60)
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data)
        )
        return connection

    def leave(self):
        with self.send(self.body(stream=self.random.random() < 0.5, max_tokens=500)) as connection:
            time.sleep(self.random.random() * 0.2)
            if self.random.random() < 0.5:
                connection.settimeout(5)
                with contextlib.suppress(TimeoutError):  # an answer that comes whole takes longer
                    connection.recv(100)

    def slow(self):
        with self.send(self.body(stream=True, logprobs=5)) as connection:
            for _ in range(20):
                if not connection.recv(64):
                    break
                time.sleep(0.01)

    def bad(self):
        raw = self.random.choice(
            [b"{", b"\xff\xfe", b"[" * 5000, b'{"prompt": 5}', b'{"prompt": "a", "n": -1}', b""]
        )
        status, _, text = self.server.ask("/v1/completions", raw=raw)
        assert status == 400 and "error" in json.loads(text), (status, text)


@pytest.mark.parametrize("snapshots, on_disk", [(0, False), (8, False), (8, True)])
def test_soak(snapshots, on_disk, tmp_path):
    """DMC_SOAK_SECONDS: how long (5); 24 clients."""
    seconds = float(os.environ.get("DMC_SOAK_SECONDS", 5))
    limit = 4 << 20
    sessions = ["--session-dir", tmp_path / "sessions", "--session-size", limit] if on_disk else []
    server = Server("--cache-memory", "8MiB", "--queue", "64", "--snapshots", snapshots, *sessions)
    start = time.time()
    clients = [Client(server, seed, start + seconds) for seed in range(24)]
    for client in clients:
        client.start()
    time.sleep(seconds / 5)
    early = resident(server.process)
    for client in clients:
        client.join()
    late = resident(server.process)
    try:
        deadline = time.time() + 20
        while server.metric("dmc_requests_running") + server.metric("dmc_requests_waiting") > 0:
            assert time.time() < deadline, "texts of clients that left go on"
            time.sleep(0.1)
        problems = [problem for client in clients for problem in client.problems]
        total = sum(sum(client.counts.values()) for client in clients)
        print(f"\n{total} requests in {seconds:.0f} s, resident {early >> 20} -> {late >> 20} MiB,")
        for name in ("dmc_preemptions_total", "dmc_kv_pages", "dmc_kv_pages_free", "dmc_kv_snapshots"):
            print(f"{name} {server.metric(name):.0f}")
        assert not problems, problems[:5]
        assert late < early * 1.2 + (16 << 20)
        if on_disk:
            saved, bytes_now = (server.metric(f"dmc_{name}") for name in ("sessions_saved_total", "session_bytes"))
            print(f"sessions saved {saved:.0f}, on disk {bytes_now / 1024:.0f} KiB")
            assert bytes_now <= limit and server.metric("dmc_sessions_damaged_total") == 0
        # Snapshots alone hold pages now; a request that needs the whole cache gets it.
        if snapshots == 0:
            assert server.metric("dmc_kv_pages_free") == server.metric("dmc_kv_pages")
        full = server.complete(prompt="a", max_tokens=1000, ignore_eos=True)
        assert full["usage"]["completion_tokens"] == 1000
    finally:
        assert server.end() == 0, server.log
