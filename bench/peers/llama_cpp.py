"""llama.cpp from the source package of llama-cpp-python: fetched and built once."""

import os
import shutil
import sys
import tarfile

from process import PeerError, run_logged

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"  # newest when this was written; its package carries llama.cpp's sources

# A plain release build for this machine's processor. All that is off is not needed to measure.
BUILD_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "GGML_NATIVE": "ON",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_COMMIT": f"{PACKAGE}-{VERSION}",
    "LLAMA_BUILD_NUMBER": "0",
}


class LlamaCpp:
    """Folders under `work`: sdist (as downloaded), src (unpacked), llama (built)."""

    def __init__(self, work, jobs):
        self.work, self.jobs = work, jobs
        self.source = work / "src" / "vendor" / "llama.cpp"
        self.build = work / "llama"
        self.bench = self.build / "bin" / "llama-bench"

    def ensure(self, say):
        if self.bench.is_file():
            return
        if not (self.source / "CMakeLists.txt").is_file():
            self._fetch(say)
        self._build(say)

    def ensure_server(self, say):
        """Path of llama-server, which compare.py of this folder does not need."""
        server = self.build / "bin" / "llama-server"
        if not server.is_file():
            if not (self.source / "CMakeLists.txt").is_file():
                self._fetch(say)
            self._build(say, "llama-server", {"LLAMA_BUILD_SERVER": "ON", "LLAMA_USE_PREBUILT_UI": "OFF"})
        return server

    def _fetch(self, say):
        archive = self.work / "sdist" / f"{PACKAGE.replace('-', '_')}-{VERSION}.tar.gz"
        if not archive.is_file():
            say(f"downloading {archive.name} (73 MiB)")
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", PACKAGE]
            command += ["--dest", archive.parent, f"{PACKAGE}=={VERSION}"]
            run_logged(command, self.work / "log" / "download.txt", f"Downloading {PACKAGE}")
        partial = self.work / "src.partial"
        shutil.rmtree(partial, ignore_errors=True)
        with tarfile.open(archive) as package:
            package.extractall(partial, filter="data")
        shutil.rmtree(self.work / "src", ignore_errors=True)
        (content,) = partial.iterdir()
        content.rename(self.work / "src")
        partial.rmdir()
        if not (self.source / "CMakeLists.txt").is_file():
            raise PeerError(f"{archive.name} has no vendor/llama.cpp inside; delete it and try again")

    def _build(self, say, target="llama-bench", more=None):
        options = [f"-D{key}={value}" for key, value in (BUILD_OPTIONS | (more or {})).items()]
        log = self.work / "log"
        configure = ["cmake", "-S", self.source, "-B", self.build, "-G", "Ninja", *options]
        run_logged(configure, log / "configure-llama.txt", "Configuring llama.cpp")
        say(f"building llama.cpp (many minutes, once; log: {log / 'build-llama.txt'})")
        compile_ = ["ninja", "-C", self.build, f"-j{self.jobs}", target]
        run_logged(compile_, log / "build-llama.txt", "Building llama.cpp")


def build_attention_op(llama, repository, say):
    """Our attention operator and llama.cpp's in one program; returns its path."""
    build, log = llama.work / "op", llama.work / "log"
    options = [
        "-DCMAKE_BUILD_TYPE=Release",
        "-DDMC_TORCH=OFF",
        "-DDMC_TESTS=OFF",
        f"-DDMC_LLAMA_CPP={llama.source}",
        f"-DDMC_LLAMA_CPP_BUILD={llama.build}",
    ]
    say("building the attention operator")
    configure = ["cmake", "-S", repository, "-B", build, "-G", "Ninja", *options]
    run_logged(configure, log / "configure-op.txt", "Configuring bench_attention_op")
    compile_ = ["ninja", "-C", build, f"-j{llama.jobs}", "bench_attention_op"]
    run_logged(compile_, log / "build-op.txt", "Building bench_attention_op")
    return build / "bin" / "bench_attention_op"


def default_jobs():
    return max(1, os.cpu_count() or 1)
