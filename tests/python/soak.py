#!/usr/bin/env python3
"""Short calls and dropped streams from several threads: soak.py [--calls 5000]. Memory must not grow.

Fails if the process is larger at the end than after a first tenth of the calls, beyond a little.
"""

import argparse
import pathlib
import sys
import threading

import dmc


def resident_kib():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def work(llm, calls, failures):
    try:
        for i in range(calls):
            if i % 2:
                output = llm.generate(f"x = {i % 50}", max_tokens=2, ignore_eos=True)[0]
                assert len(output.outputs[0].token_ids) == 2
            else:
                next(llm.stream("x = ", max_tokens=50, ignore_eos=True))
    except BaseException as error:  # a thread's error would be lost
        failures.append(error)


def run(llm, calls, threads):
    failures = []
    all_threads = [threading.Thread(target=work, args=(llm, calls // threads, failures)) for _ in range(threads)]
    for thread in all_threads:
        thread.start()
    for thread in all_threads:
        thread.join()
    if failures:
        raise failures[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--model", default="builtin-4x")
    parser.add_argument("--growth", type=float, default=4.0, help="MiB that are allowed")
    options = parser.parse_args()
    llm = dmc.LLM(options.model)
    run(llm, max(200, options.calls // 10), options.threads)
    before = resident_kib()
    run(llm, options.calls, options.threads)
    growth = (resident_kib() - before) / 1024
    print(f"{options.calls} calls from {options.threads} threads: {before / 1024:.1f} MiB, then {growth:+.2f} MiB")
    return 0 if growth < options.growth else 1


if __name__ == "__main__":
    sys.exit(main())
