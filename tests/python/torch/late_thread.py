"""late_thread.py RANK STORE: rank 0 ends while its process group's thread waits for the
interpreter's lock, to let go of a tensor."""

import atexit
import ctypes
import functools
import os
import sys
import time

import torch
import torch.distributed as dist
from dmc.torch.launch import leave

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
dist.barrier()
if rank == 1:
    time.sleep(1)
    dist.all_reduce(torch.ones(1))
    time.sleep(3)  # were the connection lost, the other's tensor would go for that
    os._exit(0)
torch.kept = dist.group.WORLD  # as torch's caches of meshes keep groups
dist.all_reduce(torch.ones(1), async_op=True)
dist.destroy_process_group()
atexit._clear()  # what holds the lock is the very last
atexit.register(functools.partial(ctypes.PyDLL(None).usleep, 3_000_000))
if sys.argv[3:] == ["plainly"]:
    sys.exit(0)
leave(0)
