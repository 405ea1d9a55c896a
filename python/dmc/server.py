"""The OpenAI API on a model that is loaded."""

from __future__ import annotations

import sys
import typing
from collections.abc import Sequence

from . import _core
from .llm import _TURN, LLM, _at_exit


class Server:
    """Serves `llm` from now on, on threads of its own, until close() or the end of a with block.

    Its requests and those of llm.generate() are computed together. What is served is what `dmc serve`
    serves: the OpenAI API, and a page to chat at /.

    port: 0: any that is free; .port has it.
    host: "0.0.0.0" lets other machines in, who then need a key, or you say insecure=True.
    api_keys: one of them must be shown; none: nobody is asked.
    allowed_hosts: further names that requests may have for this server (Host header).
    name: the model's id; "": its folder's name.
    page: whether there is a page to chat.
    """

    def __init__(
        self,
        llm: LLM,
        port: int = 8080,
        *,
        host: str = "127.0.0.1",
        api_keys: Sequence[str] = (),
        allowed_hosts: Sequence[str] = (),
        name: str = "",
        insecure: bool = False,
        page: bool = True,
    ):
        self._server = _core.Server(
            llm._engine, host=host, port=port, keys=list(api_keys), hosts=list(allowed_hosts), name=name,
            insecure=insecure, page=page,
        )  # fmt: skip
        self._host = f"[{host}]" if ":" in host else host
        _at_exit.add(self)

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    @property
    def name(self) -> str:
        """The model's id in requests."""
        return self._server.name

    def wait(self) -> None:
        """Until it has ended; Ctrl-C is a KeyboardInterrupt as elsewhere."""
        while not self._server.wait(_TURN):
            pass

    def close(self) -> None:
        """Takes no more requests, and waits for those that run, half a minute at most; Ctrl-C
        meanwhile ends it at once."""
        if self._server.wait(0):
            return
        self._server.stop()
        try:
            self.wait()
        except KeyboardInterrupt:
            self._server.stop()
            self.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(llm: LLM, port: int = 8080, **options: typing.Any) -> None:
    """Serves `llm` until Ctrl-C, with Server's options."""
    with Server(llm, port, **options) as server:
        print(f"{server.name} at {server.url}; Ctrl-C ends it", file=sys.stderr, flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            print("ending: no new requests; what runs is finished", file=sys.stderr, flush=True)
