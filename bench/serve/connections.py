#!/usr/bin/env python3
"""What connections cost a server: memory of idle ones, and how late events come when many stream.

    bench/serve/connections.py                   # 2,000 idle connections, 500 streams

Starts dmc serve with room for them, opens the idle connections, each of which asks once, then the
streams beside them. Printed are the server's memory for each, the gaps between a stream's events,
and how long /health takes meanwhile, which is what the sessions of streams leave to others.
"""

import argparse
import asyncio
import os
import time
import types

from http_stream import Connection, gauges
from load import Server, percentile


def resident(process):
    with open(f"/proc/{process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def idle(url, count):
    connections = [Connection(url) for _ in range(count)]
    for begin in range(0, count, 50):
        await asyncio.gather(
            *(connection.ask("GET", "/livez") for connection in connections[begin : begin + 50])
        )
    return connections


async def stream(url, tokens, gaps):
    body = {"prompt": "a", "max_tokens": tokens, "ignore_eos": True, "stream": True}
    connection, last = Connection(url), None
    async for now, event in connection.events("/v1/completions", body | {"seed": id(gaps)}):
        if event.get("choices"):
            if last is not None:
                gaps.append(now - last)
            last = now
    connection.close()


async def probe(url, times):
    connection = Connection(url)
    while True:
        start = time.perf_counter()
        await connection.ask("GET", "/health")
        times.append(time.perf_counter() - start)
        await asyncio.sleep(0.1)


def milliseconds(name, seconds):
    values = [1000 * percentile(seconds, part) for part in (0.5, 0.99)]
    return f"{name} p50 {values[0]:.1f} ms, p99 {values[1]:.1f} ms"


async def measure(server, arguments):
    await idle(server.url, 20)  # warms up
    before = resident(server.process)
    kept = await idle(server.url, arguments.idle)
    after = resident(server.process)
    print(f"{arguments.idle} idle connections: {(after - before) / arguments.idle / 1024:.1f} KiB each")
    quiet, busy, gaps = [], [], []
    for times, work in (
        (quiet, [asyncio.sleep(2)]),
        (busy, [stream(server.url, arguments.tokens, gaps) for _ in range(arguments.streams)]),
    ):
        prober = asyncio.create_task(probe(server.url, times))
        start = time.perf_counter()
        await asyncio.gather(*work)
        seconds = time.perf_counter() - start
        prober.cancel()
    streaming = resident(server.process)
    events = arguments.streams * arguments.tokens
    print(f"{arguments.streams} streams beside them: {events / seconds:.0f} events/s, the process has "
          f"{streaming >> 20} MiB")
    print(milliseconds("gaps between a stream's events:", gaps))
    print(milliseconds("/health, nothing streams:", quiet))
    print(milliseconds("/health, all stream:", busy))
    page = gauges(await Connection(server.url).ask("GET", "/metrics"))
    print(f"connections {page['dmc_connections']:.0f}, texts that run {page['dmc_requests_running']:.0f}")
    for connection in kept:
        connection.close()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--model", default="models/builtin-dms")
    parser.add_argument("--idle", type=int, default=2000)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=100, help="of a stream")
    arguments = parser.parse_args()
    start = types.SimpleNamespace(
        model=arguments.model, cache_memory="1GiB", clients=max(1, arguments.streams)
    )
    most = str(arguments.idle + arguments.streams + 100)
    server = Server(start, ["--connections", most, "--queue", "1000"])
    try:
        asyncio.run(measure(server, arguments))
    finally:
        server.end()


if __name__ == "__main__":
    main()
