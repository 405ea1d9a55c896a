"""torchrun mesh_runs.py RUNS.json: trains each run of the list [[name, options, steps, resume]]
after the other, on the processes that there are, and leaves FOLDER/NAME.jsonl."""

import json
import pathlib
import sys

import torch
import torch.distributed as dist
from dmc.torch.launch import leave
from dmc.torch.options import RetrofitOptions, TrainOptions
from dmc.torch.trainer import Trainer

torch.set_num_threads(1)


def train(name, options, stop_after, resume, folder):
    retrofit = RetrofitOptions(**options.pop("retrofit"))
    trainer = Trainer(TrainOptions(**options, retrofit=retrofit))
    if resume:
        trainer.resume()
    records = []

    def on_step(record):
        records.append(record)
        trainer.stop = trainer.step == stop_after

    trainer.run(on_step)
    if dist.get_rank() == 0:
        text = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(text)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    path = pathlib.Path(sys.argv[1])
    for run in json.loads(path.read_text()):
        train(*run, path.parent)
    dist.destroy_process_group()
    leave(0)
