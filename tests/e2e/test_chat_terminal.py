"""`dmc run --chat` as somebody sees it who types: in a terminal of its own."""

import os
import pty
import select
import subprocess
import time

from tests.conftest import BIN
from tests.e2e.test_chat import model  # noqa: F401


class Terminal:
    def __init__(self, home, *arguments):
        self.screen, child = pty.openpty()
        environment = os.environ | {"HOME": str(home), "TERM": "xterm"}
        environment.pop("XDG_STATE_HOME", None)
        self.process = subprocess.Popen(
            [BIN / "dmc", "run", *map(str, arguments)],
            stdin=child, stdout=child, stderr=child, env=environment, start_new_session=True,
        )
        os.close(child)

    def read(self, until, seconds=120):
        """What the screen shows up to `until`."""
        shown, end = "", time.time() + seconds
        while until not in shown:
            assert time.time() < end, f"no {until!r} in {shown!r}"
            if select.select([self.screen], [], [], 0.5)[0]:
                try:
                    shown += os.read(self.screen, 4096).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"ended at {shown!r}") from None
        return shown

    def type(self, text):
        os.write(self.screen, text.encode())

    def end(self):
        self.type("/quit\n")
        assert self.process.wait(60) == 0
        os.close(self.screen)


def test_commands_replies_and_the_history(model, tmp_path):  # noqa: F811
    terminal = Terminal(tmp_path, "-m", model, "--chat", "-n", 8, "--temperature", 0)
    terminal.read("> ")
    terminal.type("/help\n")
    assert "/cache" in terminal.read("All else is a message")
    terminal.type("/cache\n")
    terminal.read("nothing is in the cache yet")
    terminal.type("/nonsense\n")
    terminal.read("there is no /nonsense")
    terminal.type("import os\n")
    assert "CR" in terminal.read("stopped:")
    terminal.type("/cache\n")
    terminal.read("slots a head")
    terminal.type("/clear\n")
    terminal.read("> ")
    terminal.type("/cache\n")
    terminal.read("nothing is in the cache yet")
    terminal.end()
    history = tmp_path / ".local" / "state" / "dmc" / "history"
    if history.exists():  # where the build has libedit
        assert "import" in history.read_text() and history.stat().st_mode & 0o077 == 0
