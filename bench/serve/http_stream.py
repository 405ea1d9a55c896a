"""A client of OpenAI's API on asyncio and nothing else: one connection, requests one after another."""

import asyncio
import json
import time
import urllib.parse


class Refused(Exception):
    """An answer that is no 200."""


class Connection:
    """Opened when it is needed, and again when the server has closed it."""

    def __init__(self, url, key=None):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname, parts.port or 80
        self.base = parts.path.rstrip("/")
        self.key = key
        self.reader = self.writer = None

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None

    async def send(self, method, path, body=None):
        """Sends a request and returns status and headers, the body unread."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(
                self.host, self.port, limit=1 << 20
            )
        data = b"" if body is None else json.dumps(body).encode()
        head = [f"{method} {self.base}{path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        if self.key:
            head.append(f"Authorization: Bearer {self.key}")
        if data:
            head += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        self.writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + data)
        await self.writer.drain()
        status = int((await self.reader.readline()).split()[1])
        headers = {}
        while (line := await self.reader.readline()).strip():
            name, value = line.decode("latin-1").split(":", 1)
            headers[name.lower()] = value.strip()
        return status, headers

    async def pieces(self, headers):
        """The body as it comes."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await self.reader.readline()).split(b";")[0], 16):
                yield await self.reader.readexactly(size)
                await self.reader.readline()
            await self.reader.readline()
        elif "content-length" in headers:
            yield await self.reader.readexactly(int(headers["content-length"]))
        else:
            while data := await self.reader.read(1 << 16):
                yield data
            self.close()

    async def ask(self, method, path, body=None):
        """A whole answer, as text."""
        try:
            status, headers = await self.send(method, path, body)
            text = b"".join([piece async for piece in self.pieces(headers)]).decode()
        except (IndexError, ValueError, asyncio.IncompleteReadError) as error:
            self.close()
            raise ConnectionError("the server has closed the connection") from error
        if headers.get("connection", "").lower() == "close":
            self.close()
        if status != 200:
            raise Refused(f"{status} {text[:200]}")
        return text

    async def events(self, path, body):
        """Server-sent events: (seconds, object) of each, without the last one, [DONE]."""
        status, headers = await self.send("POST", path, body)
        if status != 200:
            text = b"".join([piece async for piece in self.pieces(headers)]).decode()
            raise Refused(f"{status} {text[:200]}")
        rest = b""
        async for piece in self.pieces(headers):
            now = time.perf_counter()
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.startswith(b"data: {"):
                    yield now, json.loads(line[6:])


def gauges(text):
    """The samples of a /metrics page by name and labels."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, value in lines}
