"""Running other programs: one-sentence errors, logs, and how much of the machine others took."""

import os
import resource
import subprocess
import time


class PeerError(Exception):
    """What the user has to know, in one sentence."""


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def run_logged(command, log, what):
    """Runs a step of the preparation; its output goes to the file `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as out:
        out.write("$ " + " ".join(map(str, command)) + "\n")
        out.flush()
        try:
            status = subprocess.run(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        except FileNotFoundError:
            raise PeerError(f"{what} needs {command[0]}, which was not found") from None
    if status.returncode != 0:
        raise PeerError(f"{what} failed ({last_line(log.read_text())}); the whole log is {log}")


def cores_busy_seconds():
    """CPU seconds that all programs on this machine have used since it started."""
    fields = open("/proc/stat").readline().split()[1:]
    user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_measured(command):
    """Returns (stdout, share): share is the part of all cores that other programs used meanwhile."""
    start, busy, ours = time.monotonic(), cores_busy_seconds(), children_seconds()
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise PeerError(f"{command[0]} was not found") from None
    if done.returncode != 0:
        raise PeerError(
            f"{os.path.basename(str(command[0]))} ended with status {done.returncode}: "
            + last_line(done.stderr or done.stdout)
        )
    others = (cores_busy_seconds() - busy) - (children_seconds() - ours)
    share = others / ((time.monotonic() - start) * os.cpu_count())
    return done.stdout, max(0.0, share)
