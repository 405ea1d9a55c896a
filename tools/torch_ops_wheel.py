#!/usr/bin/env python3
"""torch_ops_wheel.py OPS.so FOLDER: a wheel of dmc.torch's operators alone, to install beside dmc.

The file goes where dmc.torch looks for it. It uses CPython in no way and torch through its stable
ABI, so one wheel serves every Python, and torch 2.10 and newer."""

import base64
import hashlib
import pathlib
import re
import sys
import sysconfig
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
PLACE = "dmc/torch/dmc_torch_ops.so"
TIME = (1980, 1, 1, 0, 0, 0)  # the same file whenever it is made


def version():
    return re.search(r"project\(dmc VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text())[1]


def metadata(tag):
    return {
        "METADATA": f"Metadata-Version: 2.4\nName: dmc-torch-ops\nVersion: {version()}\n"
        "Summary: Operators of dmc.torch, for CPUs\nLicense-Expression: Apache-2.0\n"
        f"Requires-Python: >=3.10\nRequires-Dist: dmc=={version()}\nRequires-Dist: torch>=2.10\n",
        "WHEEL": f"Wheel-Version: 1.0\nGenerator: dmc\nRoot-Is-Purelib: false\nTag: {tag}\n",
    }


def line_of_record(name, content):
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}\n"


def write(library, folder):
    """The path of the wheel."""
    tag = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
    info = f"dmc_torch_ops-{version()}.dist-info"
    files = {PLACE: pathlib.Path(library).read_bytes()}
    files |= {f"{info}/{name}": text.encode() for name, text in metadata(tag).items()}
    files[f"{info}/licenses/LICENSE"] = (ROOT / "LICENSE").read_bytes()
    record = "".join(line_of_record(name, content) for name, content in files.items())
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    path = pathlib.Path(folder) / f"dmc_torch_ops-{version()}-{tag}.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, TIME)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            wheel.writestr(entry, content)
    return path


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(write(*sys.argv[1:]))
