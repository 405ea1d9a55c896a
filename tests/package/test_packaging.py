"""What packaging/ says agrees with what there is: the unit, and the container's lists of packages and files.

No container is built here. Instead the files that it copies are configured alone, and every input of
the program must be among them.
"""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

from tests.conftest import BIN, ROOT

CONTAINERFILE = (ROOT / "packaging" / "Containerfile").read_text().replace("\\\n", " ")
UNIT = ROOT / "packaging" / "dmc.service"
# Of `run`'s packages: what no build of the program alone needs. (Debian's base image has certificates where they
# are wanted; ccache and mold only make builds faster; Python and Gloo are for training.)
NOT_TO_BUILD = set(
    "ca-certificates ccache clang-format-14 libedit-dev libgloo-dev libgtest-dev mold python3 python3-venv".split()
)


def installed(stage):
    lists = re.findall(r"apt-get install -y --no-install-recommends\s+(.*?)\s+&&", CONTAINERFILE)
    return set(lists[stage].split())


def test_the_container_is_built_with_the_packages_that_run_names():
    named = re.search(r"^packages=\((.*?)\)", (ROOT / "run").read_text(), re.M | re.S)[1].split()
    assert NOT_TO_BUILD <= set(named)
    assert installed(0) == set(named) - NOT_TO_BUILD


def test_the_container_has_the_libraries_that_the_program_needs():
    if not (shutil.which("dpkg") and shutil.which("readelf")):
        pytest.skip("tells packages of libraries by dpkg")
    dynamic = subprocess.check_output(["readelf", "-d", BIN / "dmc"], text=True)
    needed = set()
    for library in re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic):
        found = subprocess.run(["dpkg", "-S", f"*/{library}"], capture_output=True, text=True).stdout
        needed |= {line.split(":")[0] for line in found.splitlines()}
    needed -= {"libedit2", "libc6", "libgcc-s1"}  # left out; always there
    needed = {package for package in needed if not re.search(r"-cross$|^lib(32|x32)", package)}
    assert needed == installed(1)


def test_the_files_that_the_container_copies_suffice(tmp_path):
    if not (shutil.which("cmake") and shutil.which("ninja")):
        pytest.skip("needs cmake and ninja")
    build_stage = CONTAINERFILE.split("FROM ")[1]
    for words in re.findall(r"^COPY (.+)$", build_stage, re.M):
        *sources, _ = words.split()
        for name in sources:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, tmp_path / name)
    configure = re.search(r"cmake --preset [^&]+", build_stage)[0].split()
    subprocess.run(configure, cwd=tmp_path, check=True, capture_output=True)
    ninja = re.search(r"ninja -C \S+ \S+", build_stage)[0].split()
    done = subprocess.run([*ninja, "-n"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (tmp_path / "build-inference" / "cmake_install.cmake").read_text().splitlines():
        for path in re.findall(rf'"({re.escape(str(tmp_path))}/models/[^"]+)"', line):
            assert pathlib.Path(path).exists()


def test_the_unit_is_valid(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / "dmc.service"
    unit.write_text(UNIT.read_text().replace("/usr/bin/dmc", str(BIN / "dmc")))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_the_unit_and_the_container_start_what_there_is(dmc):
    """Options that they name are options of dmc serve."""
    text = UNIT.read_text() + CONTAINERFILE
    known = dmc("serve", "--help").stdout
    for option in set(re.findall(r"(?<!\S)--(?:host|cache|session)[a-z-]*", text)):
        assert option in known, option
    assert os.access(BIN / "dmc", os.X_OK)
