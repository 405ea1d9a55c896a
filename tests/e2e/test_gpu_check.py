"""tools/gpu_check without a GPU: what it lists, what it refuses, what it leaves behind."""
import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def gpu_check(*arguments):
    return subprocess.run([ROOT / "tools" / "gpu_check", *arguments], capture_output=True, text=True)


def test_a_dry_run_lists_what_needs_a_gpu(tmp_path):
    run = gpu_check("--dry-run", "--out", tmp_path, "grid", "parity", "bench", "peers")
    assert run.returncode == 0, run.stderr
    parts = json.loads((tmp_path / "summary.json").read_text())["parts"]
    assert [part["part"] for part in parts] == ["grid", "parity", "bench", "peers"]
    for part in parts:
        assert part["status"] == "needs a GPU"
        assert all(pathlib.Path(command[0]).is_absolute() for command in part["commands"])


def test_an_unknown_part_is_one_sentence():
    run = gpu_check("grdi")
    assert run.returncode == 1
    assert run.stderr == ("gpu_check: there is no part 'grdi'; there are build, host, grid, parity, "
                          "device, text, memcheck, bench, model, latency, fp8, model13, "
                          "transformers, peers, train-build, train, train-step\n")
