#!/usr/bin/env python3
"""Fails on an include that docs/architecture.md does not allow.

Checked for every C++ file under src: which folders it includes from (a test may include from any,
to hold one part against another), that project headers are named from the root of src and exist,
and that no LibTorch header appears left of the line.
"""
import pathlib
import re
import sys

# Folder -> folders it may include from (besides itself).
ALLOWED = {
    "base": set(),
    "text": {"base"},
    "model": {"base", "policy"},
    "policy": {"base"},
    "comm": {"base"},
    "kernels": {"base", "policy"},
    "cache": {"base", "policy", "kernels"},
    "embed": {"base", "policy", "kernels", "cache"},
    "engine": {"base", "text", "policy", "cache"},
    "runtime": {"base", "text", "model", "policy", "comm", "kernels", "cache", "engine"},
    "sandbox": {"base", "text"},
    "report": {"base"},
    "eval": {"base", "text", "policy", "engine", "runtime", "sandbox", "report"},
    "server": {"base", "text", "engine"},
    "ops": {"base", "policy", "kernels"},
    "nn": {"base", "model", "kernels", "ops"},
    "dist": {"base"},
    "train": {"base", "text", "model", "policy", "ops", "nn", "dist"},
}
TORCH = {"ops", "nn", "dist", "train", "cli/torch"}
# The command line ties everything together, in two programs.
ALLOWED["cli"] = set(ALLOWED) - TORCH
ALLOWED["cli/torch"] = set(ALLOWED)

PROJECT_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')
TORCH_INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]((?:torch|ATen|c10|caffe2)/[^>"]+)[>"]')


def folder_of(path):
    """The folder in the table that `path`, relative to src, lies in, or its first part."""
    nested = "/".join(path.parts[:2])
    return nested if nested in ALLOWED else path.parts[0]


def problem(src, folder, is_test, line):
    """The sentence about a bad include on `line`, or None."""
    torch = TORCH_INCLUDE.match(line)
    if torch:
        if folder not in TORCH:
            return f"{torch[1]} is a LibTorch header, and src/{folder} is built without LibTorch"
        return None
    include = PROJECT_INCLUDE.match(line)
    if not include:
        return None
    header = include[1]
    target = folder_of(pathlib.PurePath(header))
    if not (src / header).is_file():
        return f'"{header}" is not a file under src; name headers from the root of src'
    if target != folder and target not in ALLOWED[folder] and not is_test:
        allowed = ", ".join(sorted(ALLOWED[folder])) or "nothing else"
        return f"src/{folder} must not include from src/{target} (allowed: {allowed})"
    return None


def lint(src):
    """All problems under `src` as "file:line: message"."""
    problems = []
    for path in sorted(p for p in src.rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh"}):
        relative = path.relative_to(src)
        folder = folder_of(relative)
        if len(relative.parts) < 2 or folder not in ALLOWED:
            problems.append(f"{path}:1: not in a folder that tools/lint_includes.py knows")
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            message = problem(src, folder, path.stem.endswith("_test"), line)
            if message:
                problems.append(f"{path}:{number}: {message}")
    return problems


def main():
    src = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "src")
    problems = lint(src)
    print("\n".join(problems) if problems else "includes: no forbidden edge")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
