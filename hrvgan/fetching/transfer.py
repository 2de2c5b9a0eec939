"""A file that arrives over HTTP: whatever stops it, it is asked for again from the byte where it stopped."""

import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.fetching.web import PROBLEMS, Unavailable, ask, identity, in_words
from hrvgan.files import require_space, write_json

CHUNK = 1 << 20
GOES_ON = "the same command goes on where it stopped"


class Changed(Unavailable):
    """The file behind the address is not, or no longer, the one whose beginning is on disk."""


@dataclass(frozen=True)
class Patience:
    tries: int = 6  # in a row without a new byte
    pause: float = 1.0  # seconds before the second try, twice as long before each further one
    timeout: float = 30.0  # seconds without an answer, or without a byte
    longest: float = 120.0  # seconds of a pause, whatever the server asks for


PATIENCE = Patience()


class Part:
    """The first bytes of the file at `url`: on disk at `path`, and a connection that brings more.

    `<path>.json` says of what file they are. `size` is that of the whole, in bytes, where it is known.
    `pinned`: a hash of the whole will be checked, so that a server which tells nothing may be trusted.
    `whole`: all of it is wanted, so the disk must have room for it.
    """

    def __init__(
        self,
        path: Path,
        url: str,
        *,
        size: int | None = None,
        pinned: bool = False,
        whole: bool = True,
        patience: Patience = PATIENCE,
    ):
        self.path, self.about = path, path.with_name(f"{path.name}.json")
        self.url, self.expected, self.pinned, self.patience = url, size, pinned, patience
        self.whole, self.answer, self.failures = whole, None, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(path, "ab")  # noqa: SIM115 (`close` closes it)
        self.have, self.known = self.file.tell(), self._remembered()
        if self.have and not self.known and not pinned:
            self.restart()

    def _remembered(self) -> dict[str, str | int]:
        try:
            about = json.loads(self.about.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return about["identity"] if about["url"] == self.url else {}

    @property
    def size(self) -> int | None:
        return self.known.get("size", self.expected)

    def restart(self) -> None:
        """Forget all bytes so far."""
        self._disconnect()
        self.file.truncate(0)
        self.have, self.known = 0, {}
        self.about.unlink(missing_ok=True)

    def confirm(self) -> None:
        """Ask whether the bytes on disk are still those of the file, before they are read. Raises as `more`."""
        while self.answer is None:
            self._attempt(self._connect)

    def more(self) -> bytes:
        """The next bytes, written to the part already; none at the end of the file.

        Raises Unavailable if the server refuses or after `patience.tries` failures in a row, Changed if it
        has another file now, InputError if the disk is too small.
        """
        while self.size is None or self.have < self.size:
            data = self._attempt(self._receive)
            if data:
                self._write(data)
                return data
        return b""

    def _attempt(self, step):
        """What `step` returns, or None after a failure that is worth another try, and a pause."""
        try:
            return step()
        except PROBLEMS as problem:
            self._disconnect()
            self.failures += 1
            if self.failures >= self.patience.tries:
                times = f"{self.failures} failures in a row" if self.failures > 1 else "no second try"
                raise Unavailable(f"{self.url}: {in_words(problem)} ({times}); {GOES_ON}") from problem
            pause = self.patience.pause * 2 ** (self.failures - 1) * random.uniform(0.75, 1.25)
            time.sleep(min(max(pause, getattr(problem, "wait", 0)), self.patience.longest))

    def _receive(self) -> bytes:
        if self.answer is None:
            self._connect()
        data = self.answer.raw.read1(CHUNK, decode_content=False)
        if data:
            return data
        if self.size is not None and self.have < self.size:
            raise OSError(f"the connection ended after {self.have:,} of {self.size:,} bytes")
        self.known = {**self.known, "size": self.have}  # a body of untold length has ended as it should
        return b""

    def _connect(self) -> None:
        options = {"known": self.known, "pinned": self.pinned, "timeout": self.patience.timeout}
        answer = ask(self.url, start=self.have, **options)
        found = identity(answer)
        try:
            self._check(answer, found)
            self._remember(found)
            if answer.status_code == 200:
                self._skip(answer, self.have)  # the server ignores Range and begins anew
        except BaseException:
            answer.close()
            raise
        self.answer = answer

    def _check(self, answer, found: dict) -> None:
        if self.expected not in (None, found.get("size", self.expected)):
            sizes = f"{found['size']:,} bytes, {self.expected:,} expected"
            raise Unavailable(f"{self.url}: {sizes}; it is another file now, or cut off")
        keys = self.known.keys() & found.keys() & ({"size"} if self.pinned else {*found})
        differs = any(self.known[key] != found[key] for key in keys)
        if self.have and (differs or not (keys or self.pinned) or self.have > found.get("size", self.have)):
            raise Changed(f"{self.url}: changed since its first {self.have:,} bytes were read; start anew")
        at_have = answer.headers.get("Content-Range", "").startswith(f"bytes {self.have}-")
        at_end = answer.status_code == 416 and found.get("size") == self.have
        if answer.status_code != 200 and not at_have and not at_end:
            raise Changed(f"{self.url}: the server does not go on at byte {self.have:,}; start anew")

    def _remember(self, found: dict) -> None:
        self.known = {**self.known, **found}
        write_json(self.about, {"url": self.url, "identity": self.known})
        if self.whole and self.size is not None:
            require_space(self.path, self.size - self.have)

    @staticmethod
    def _skip(answer, count: int) -> None:
        while count:
            data = answer.raw.read1(min(count, CHUNK), decode_content=False)
            if not data:
                raise OSError(f"the connection ended {count:,} bytes before the first new one")
            count -= len(data)

    def _write(self, data: bytes) -> None:
        try:
            self.file.write(data)
            self.file.flush()
        except OSError as error:
            self.have = self.path.stat().st_size  # What fitted in stays, and is gone on from.
            raise InputError(f"{self.path}: {error.strerror}; free some disk, {GOES_ON}") from error
        self.have, self.failures = self.have + len(data), 0

    def _disconnect(self) -> None:
        if self.answer is not None:
            self.answer.close()
        self.answer = None

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_) -> None:
        self._disconnect()
        self.file.close()
        if not self.have:
            self.path.unlink(missing_ok=True)
