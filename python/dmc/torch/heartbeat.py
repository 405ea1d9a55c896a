"""Which process of a run is gone or stands still. What carries the tensors notices only that one is."""

from __future__ import annotations

import os
import threading
import time

import torch.distributed as dist


class Heartbeat:
    """Counts up a number in the store that the launcher named, on a thread and a connection of its
    own, until the process ends."""

    INTERVAL = 0.5  # seconds
    TO_WATCH = 5  # intervals without a beat, which may be late on a busy machine

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.prefix = f"dmc.torch/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/"
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.store = dist.TCPStore(address, port, is_master=False, wait_for_workers=False)
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def lost_ranks(self) -> list[int]:
        """Those that do not count any more; of several processes that ask, the first is believed, for
        it may be gone when the others do."""
        key = self.prefix + "lost"
        try:
            if not self.store.check([key]):
                self.store.compare_set(key, "", " ".join(map(str, self._silent_ranks())))
            return [int(rank) for rank in self.store.get(key).split()]
        except (dist.DistError, RuntimeError):  # the store went with the process that served it
            return [0]

    def _beat(self) -> None:
        try:
            while True:
                self.store.add(f"{self.prefix}beats/{self.rank}", 1)
                time.sleep(self.INTERVAL)
        except (dist.DistError, RuntimeError):
            pass  # the store is gone, which the next exchange will tell

    def _counts(self) -> list[int]:
        return [self.store.add(f"{self.prefix}beats/{rank}", 0) for rank in range(self.size)]

    def _silent_ranks(self) -> list[int]:
        before = self._counts()
        time.sleep(self.TO_WATCH * self.INTERVAL)
        after = self._counts()
        return [rank for rank in range(self.size) if after[rank] == before[rank]]
