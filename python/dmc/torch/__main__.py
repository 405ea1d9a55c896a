"""torchrun -m dmc.torch retrofit CONFIG.toml; python -m dmc.torch tokenize ..."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import sys


def main(arguments: list[str] | None = None) -> int:
    from .options import OptionError

    given = _parser().parse_args(arguments)
    try:
        return given.run(given)
    except OptionError as error:
        print(f"dmc.torch: error: {error}", file=sys.stderr, flush=True)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m dmc.torch", description="Retrofits Hugging Face models with PyTorch's FSDP2."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    retrofit = commands.add_parser(
        "retrofit",
        help="teach a model to compress its own KV cache",
        description="Trains what CONFIG.toml says, in the processes that torchrun started (alone: "
        "in one), and writes the directory that `dmc` runs.",
    )
    retrofit.add_argument("config", help="TOML file; recipes/ has some")
    retrofit.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="in the place of what the file says, as out='\"my-4x\"' or retrofit.cr=8",
    )
    retrofit.add_argument("--resume", action="store_true", help="go on from the checkpoint in out")
    retrofit.add_argument(
        "--overwrite", action="store_true", help="begin anew in an out that is in use"
    )
    retrofit.set_defaults(run=_retrofit)
    tokens = commands.add_parser(
        "tokenize",
        help="make token shards of text",
        description="Writes OUT.bin and OUT.idx (Megatron's format) from .txt, .md, .py and .jsonl "
        '(with a "text"), also .gz and .bz2; every document ends with the model\'s eos_token_id.',
    )
    tokens.add_argument("sources", nargs="+", metavar="FILE", help="files or folders of text")
    tokens.add_argument(
        "-m", "--model", required=True, help="directory with tokenizer.json, config.json"
    )
    tokens.add_argument("-o", "--out", required=True, help="the shard's name, without .bin")
    tokens.add_argument("--separator", type=int, help="token at each document's end (default: eos)")
    tokens.add_argument(
        "--valid-one-in",
        type=int,
        default=0,
        metavar="N",
        help="put one in N documents into OUT-valid (default: none)",
    )
    tokens.set_defaults(run=_tokenize)
    return parser


def _tokenize(given: argparse.Namespace) -> int:
    from .data import tokenize
    from .options import OptionError

    separator = given.separator
    if separator is None:
        config = json.loads((pathlib.Path(given.model) / "config.json").read_text(encoding="utf-8"))
        eos = config.get("eos_token_id")
        separator = eos[0] if isinstance(eos, list) and eos else eos
    if not isinstance(separator, int) or separator < 0:
        raise OptionError("separator: the model's config.json has no eos_token_id; give the token")
    counts = tokenize(given.model, separator, given.sources, given.out, given.valid_one_in)
    print(
        f"{given.out}: {counts['documents']} documents, {counts['tokens']} tokens", file=sys.stderr
    )
    return 0


def _retrofit(given: argparse.Namespace) -> int:
    import torch
    import torch.distributed as dist

    from .heartbeat import Heartbeat
    from .launch import leave, run
    from .options import OptionError, read_config

    options = read_config(given.config, given.set)
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    alone = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group(
        "cuda:nccl,cpu:gloo" if cuda else "gloo",
        **alone,
        timeout=datetime.timedelta(seconds=options.timeout),
    )
    rank, size = dist.get_rank(), dist.get_world_size()
    heartbeat = Heartbeat(rank, size) if size > 1 else None
    try:
        status = run(options, resume=given.resume, overwrite=given.overwrite)
    except OptionError as error:  # all ranks say the same
        print(f"dmc.torch: error: {error}", file=sys.stderr, flush=True)
        leave(2)
    except (dist.DistError, RuntimeError) as error:
        if heartbeat is None or not _is_loss_of_peer(error):
            raise
        names = " and ".join(f"rank {lost}" for lost in heartbeat.lost_ranks())
        print(
            f"dmc.torch: error: rank {rank} of {size} has lost {names or 'another process'}, which is "
            "gone or stands still; see what it said, and go on from the last checkpoint with "
            "--resume",
            file=sys.stderr,
            flush=True,
        )
        leave(1)
    dist.destroy_process_group()
    if size > 1:
        leave(status)
    return status


def _is_loss_of_peer(error: BaseException) -> bool:
    import torch.distributed as dist

    words = (
        "Connection closed by peer",
        "Connection reset by peer",
        "Timed out",
        "timed out",
        "Broken pipe",
        "NCCL",
        "gloo",
    )
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)


if __name__ == "__main__":
    sys.exit(main())
