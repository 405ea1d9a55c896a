#!/usr/bin/env python3
"""What is installed from a build of the preset package: check_package.py BUILD_DIR.

Another project finds the CMake package dmc, builds the example against it, away from dmc's sources,
and runs it. Needs no Python packages.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path("build-package")


def output_of(*words, **options):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.prefix = pathlib.Path(cls.folder.name) / "installed"
        output_of("cmake", "--install", BUILD, "--prefix", cls.prefix)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_another_project_builds_and_runs_on_it(self):
        source, build = (pathlib.Path(self.folder.name) / name for name in ["source", "build"])
        shutil.copytree(ROOT / "examples" / "embed_cache", source)
        options = [f"-DCMAKE_PREFIX_PATH={self.prefix}", "-DCMAKE_BUILD_TYPE=Release"]
        output_of("cmake", "-G", "Ninja", "-S", source, "-B", build, *options)
        output_of("cmake", "--build", build)
        printed = output_of(build / "embed_cache")
        self.assertEqual(re.findall(r": (\d+) tokens", printed), ["100", "150", "150", "100"])
        ratios = [float(n) for n in re.findall(r"([\d.]+) of them a slot", printed)]
        self.assertTrue(all(1.2 < ratio < 4 for ratio in ratios), printed)
        self.assertEqual(ratios[0], ratios[3])  # the forks went on by themselves

    def test_the_library_shows_its_interface_alone(self):
        library = next(self.prefix.glob("lib*/**/libdmc.so"))
        names = output_of("nm", "-DC", "--defined-only", library)
        self.assertIn("dmc::KvCache::attend(", names)
        self.assertNotIn("dmc::cache::", names)
        self.assertNotIn("hwy", names)
        self.assertNotIn("pcre2", output_of("ldd", library))

    def test_the_program_runs_with_the_models_beside_it(self):
        words = ["run", "-p", "def f(", "-n", "3", "--json"]
        self.assertIn('"text"', output_of(self.prefix / "bin" / "dmc", *words, cwd=self.prefix))


if __name__ == "__main__":
    BUILD = pathlib.Path(sys.argv.pop(1))
    unittest.main()
