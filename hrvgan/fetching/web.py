"""One request for a file, safely: proxies of the environment, verified certificates, a limit of time."""

import warnings

import requests
import urllib3

from hrvgan.errors import InputError

PROBLEMS = (OSError, urllib3.exceptions.HTTPError)  # of requests, urllib3 and sockets: worth another try
RETRIED = {408, 425, 429, 500, 502, 503, 504}


class Unavailable(InputError):
    """The file cannot be had from this address; perhaps from another, or later."""


class Busy(OSError):
    """The server asks to be asked again, after `wait` seconds if it says so."""

    def __init__(self, cause: str, wait: str):
        super().__init__(cause)
        self.wait = float(wait) if wait.isdecimal() else 0.0


def ask(
    url: str, *, start: int = 0, known: dict | None = None, pinned: bool = False, timeout: float = 30.0
) -> requests.Response:
    """The server's answer to a request for `url` from byte `start` on, its body unread.

    `known` is what `identity` said of the file before. Where the bytes are `pinned` by a hash, a certificate
    that cannot be verified and a redirection from https to http are let pass; nowhere else.
    Raises Unavailable, Busy, or one of PROBLEMS.
    """
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    validator = (known or {}).get("etag") or (known or {}).get("last_modified") or "W/"
    if start and not validator.startswith("W/"):
        headers["If-Range"] = validator
    try:
        answer = _get(url, pinned, headers=headers, stream=True, timeout=timeout)
        _refuse(url, answer, pinned)
    except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema,
            requests.exceptions.TooManyRedirects) as error:  # fmt: skip
        raise Unavailable(f"{url}: {error}") from error
    return answer


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
        # Nobody knows who answers: no password from ~/.netrc.
        return requests.get(url, verify=False, auth=lambda request: request, **options)


def _refuse(url: str, answer: requests.Response, pinned: bool) -> None:
    """Closes the answer and raises unless it is one that holds the file, or says that it has no more of it."""
    way = [hop.url for hop in (*answer.history, answer)]
    cause = ""
    if url.startswith("https:") and not pinned and not all(hop.startswith("https:") for hop in way):
        cause = f"leads to an address without encryption ({way[-1]}), and no hash is known"
    elif answer.status_code not in (200, 206, 416):
        cause = f"the server answers {answer.status_code} {answer.reason}"
    elif answer.status_code != 416 and answer.headers.get("Content-Type", "").startswith("text/html"):
        cause = "the server sends a web page in place of the file"
    if cause:
        answer.close()
        if answer.status_code in RETRIED:
            raise Busy(cause, answer.headers.get("Retry-After", ""))
        raise Unavailable(f"{url}: {cause}")


def identity(answer: requests.Response) -> dict[str, str | int]:
    """What tells the file behind an answer from another: etag, last_modified, size, as far as it says."""
    found = {"etag": answer.headers.get("ETag"), "last_modified": answer.headers.get("Last-Modified")}
    if answer.status_code == 200:
        size = answer.headers.get("Content-Length", "")
    else:  # "bytes 100-199/200" or "bytes */200"
        size = answer.headers.get("Content-Range", "").rpartition("/")[2]
    found["size"] = int(size) if size.isdecimal() else None
    return {key: value for key, value in found.items() if value is not None}


def in_words(problem: Exception) -> str:
    """The innermost cause, without the wrapping of the libraries."""
    for cause in (getattr(problem, "reason", None), *problem.args[:1]):
        if isinstance(cause, Exception):
            return in_words(cause)
        if isinstance(cause, str):
            return cause
    return str(problem) or type(problem).__name__
