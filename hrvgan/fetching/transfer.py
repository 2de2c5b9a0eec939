"""Resumable download of one file over HTTP: after a failure it is requested again from the byte where it stopped.

Requests use the proxies of the environment, verified certificates and a timeout.
"""

import json
import random
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3

from hrvgan.errors import InputError
from hrvgan.files import write_json

CHUNK = 1 << 20
GOES_ON = "the same command goes on where it stopped"
PROBLEMS = (OSError, urllib3.exceptions.HTTPError)  # of requests, urllib3 and sockets: worth a retry
RETRIED = {408, 425, 429, 500, 502, 503, 504}


class Unavailable(InputError):
    """The file cannot be downloaded from this address now."""


class Changed(Unavailable):
    """The published file differs from the one that was partially downloaded."""


class Busy(OSError):
    """The server asks for a retry, after `wait` seconds (0 if it does not say)."""

    def __init__(self, cause: str, wait: str):
        super().__init__(cause)
        self.wait = float(wait) if wait.isdecimal() else 0.0


@dataclass(frozen=True)
class Patience:
    """Retry policy."""

    tries: int = 6  # consecutive failures without a new byte
    pause: float = 1.0  # seconds before the second try, doubled before each further one
    timeout: float = 30.0  # seconds without a response, or without a byte
    longest: float = 120.0  # upper limit of a pause in seconds, whatever the server asks for


PATIENCE = Patience()


class PartialFile:
    """First bytes of the file at `url`, on disk at `path`, with a connection for the rest.

    `<path>.json` identifies the file. `size` is its full size in bytes, if known. `pinned`: a hash of the full file
    will be checked, so that a server without ETag and date may be trusted.
    """

    def __init__(self, path: Path, url: str, *, size: int | None, pinned: bool, patience: Patience):
        self.path, self.identity_path = path, path.with_name(f"{path.name}.json")
        self.url, self.expected, self.pinned, self.patience = url, size, pinned, patience
        self.response, self.failures = None, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(path, "ab")  # noqa: SIM115 (`close` closes it)
        self.have, self.identity = self.file.tell(), self._load_identity()
        if self.have and not self.identity and not pinned:
            self.restart()

    def _load_identity(self) -> dict[str, str | int]:
        try:
            saved = json.loads(self.identity_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return saved["identity"] if saved["url"] == self.url else {}

    @property
    def size(self) -> int | None:
        return self.identity.get("size", self.expected)

    def restart(self) -> None:
        """Discard all bytes so far."""
        self._disconnect()
        self.file.truncate(0)
        self.have, self.identity = 0, {}
        self.identity_path.unlink(missing_ok=True)

    def confirm(self) -> None:
        """Verify with the server that the bytes on disk belong to the current file. Raises as `more`."""
        while self.response is None:
            self._attempt(self._connect)

    def more(self) -> bytes:
        """Download the next bytes, write them to the file and return them; b"" at the end.

        Raises Unavailable if the server refuses or after `patience.tries` consecutive failures, Changed if the file is
        another one now, InputError if the disk is too small.
        """
        while self.size is None or self.have < self.size:
            data = self._attempt(self._receive)
            if data:
                self._write(data)
                return data
        return b""

    def _attempt(self, step):
        """Result of `step`, or None after a pause if it failed and is worth a retry."""
        try:
            return step()
        except PROBLEMS as problem:
            self._disconnect()
            self.failures += 1
            if self.failures >= self.patience.tries:
                times = f"{self.failures} failures in a row" if self.failures > 1 else "no second try"
                raise Unavailable(f"{self.url}: {_innermost(problem)} ({times}); {GOES_ON}") from problem
            pause = self.patience.pause * 2 ** (self.failures - 1) * random.uniform(0.75, 1.25)
            time.sleep(min(max(pause, getattr(problem, "wait", 0)), self.patience.longest))

    def _receive(self) -> bytes:
        if self.response is None:
            self._connect()
        data = self.response.raw.read1(CHUNK, decode_content=False)
        if data:
            return data
        if self.size is not None and self.have < self.size:
            raise OSError(f"the connection ended after {self.have:,} of {self.size:,} bytes")
        self.identity["size"] = self.have  # the regular end of a body of undeclared length
        return b""

    def _connect(self) -> None:
        options = {"identity": self.identity, "pinned": self.pinned, "timeout": self.patience.timeout}
        response = request(self.url, start=self.have, **options)
        try:
            current = identity_of(response)
            self._check(response, current)
            self.identity |= current
            write_json(self.identity_path, {"url": self.url, "identity": self.identity})
            if response.status_code == 200:
                self._skip(response, self.have)  # the server ignores Range and starts at byte 0
        except BaseException:
            response.close()
            raise
        self.response = response

    def _check(self, response, current: dict) -> None:
        if self.expected not in (None, current.get("size", self.expected)):
            sizes = f"{current['size']:,} bytes, {self.expected:,} expected"
            raise Unavailable(f"{self.url}: {sizes}; it is another file now, or cut off")
        keys = self.identity.keys() & current.keys() & ({"size"} if self.pinned else {*current})
        differs = any(self.identity[key] != current[key] for key in keys)
        if self.have and (differs or not (keys or self.pinned) or self.have > current.get("size", self.have)):
            raise Changed(f"{self.url}: changed since its first {self.have:,} bytes were read; start anew")
        at_have = response.headers.get("Content-Range", "").startswith(f"bytes {self.have}-")
        at_end = response.status_code == 416 and current.get("size") == self.have
        if response.status_code != 200 and not at_have and not at_end:
            raise Changed(f"{self.url}: the server does not go on at byte {self.have:,}; start anew")

    @staticmethod
    def _skip(response, count: int) -> None:
        while count:
            data = response.raw.read1(min(count, CHUNK), decode_content=False)
            if not data:
                raise OSError(f"the connection ended {count:,} bytes before the first new one")
            count -= len(data)

    def _write(self, data: bytes) -> None:
        try:
            self.file.write(data)
            self.file.flush()
        except OSError as error:
            self.have = self.path.stat().st_size  # The next run continues from the bytes that fitted.
            raise InputError(f"{self.path}: {error.strerror}; free some disk, {GOES_ON}") from error
        self.have, self.failures = self.have + len(data), 0

    def _disconnect(self) -> None:
        if self.response is not None:
            self.response.close()
        self.response = None

    def __enter__(self) -> "PartialFile":
        return self

    def __exit__(self, *_) -> None:
        self._disconnect()
        self.file.close()
        if not self.have:
            self.path.unlink(missing_ok=True)


def request(
    url: str, *, pinned: bool, timeout: float, start: int = 0, identity: dict | None = None
) -> requests.Response:
    """Request `url` from byte `start` on; return the response, its body unread.

    `identity` is that of an earlier response. Only if the bytes are `pinned` by a hash, an unverifiable certificate
    and a redirect from https to http are accepted. Raises Unavailable, Busy, or one of PROBLEMS.
    """
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    validator = (identity or {}).get("etag") or (identity or {}).get("last_modified") or "W/"
    if start and not validator.startswith("W/"):
        headers["If-Range"] = validator
    try:
        response = _get(url, pinned, headers=headers, stream=True, timeout=timeout)
        _check_response(url, response, pinned)
    except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema,
            requests.exceptions.TooManyRedirects) as error:  # fmt: skip
        raise Unavailable(f"{url}: {error}") from error
    return response


def _get(url: str, pinned: bool, **options) -> requests.Response:
    try:
        return requests.get(url, **options)
    except requests.exceptions.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise
        if not pinned:
            cause = "its certificate cannot be verified, and no hash is known that would vouch for the file"
            raise Unavailable(f"{url}: {cause}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        # The server is not authenticated: no password from ~/.netrc.
        return requests.get(url, verify=False, auth=lambda request: request, **options)


def _check_response(url: str, response: requests.Response, pinned: bool) -> None:
    """Close the response and raise unless it contains the file or says that no bytes are left (416)."""
    hops = [hop.url for hop in (*response.history, response)]
    cause = ""
    if url.startswith("https:") and not pinned and not all(hop.startswith("https:") for hop in hops):
        cause = f"leads to an address without encryption ({hops[-1]}), and no hash is known"
    elif response.status_code not in (200, 206, 416):
        cause = f"the server answers {response.status_code} {response.reason}"
    elif response.status_code != 416 and response.headers.get("Content-Type", "").startswith("text/html"):
        cause = "the server sends a web page in place of the file"
    if cause:
        response.close()
        if response.status_code in RETRIED:
            raise Busy(cause, response.headers.get("Retry-After", ""))
        raise Unavailable(f"{url}: {cause}")


def identity_of(response: requests.Response) -> dict[str, str | int]:
    """Identity of the file of a response: etag, last_modified, size, as far as the server declares them."""
    fields = {"etag": response.headers.get("ETag"), "last_modified": response.headers.get("Last-Modified")}
    if response.status_code == 200:
        size = response.headers.get("Content-Length", "")
    else:  # "bytes 100-199/200" or "bytes */200"
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
    fields["size"] = int(size) if size.isdecimal() else None
    return {key: value for key, value in fields.items() if value is not None}


def _innermost(problem: Exception) -> str:
    """Message of the innermost cause, without the wrapping of the libraries."""
    for cause in (getattr(problem, "reason", None), *problem.args[:1]):
        if isinstance(cause, Exception):
            return _innermost(cause)
        if isinstance(cause, str):
            return cause
    return str(problem) or type(problem).__name__
