"""Download of published files: complete and verified, or not at all.

`fetch` downloads a whole file, `stream` the beginning of one that is too large for that. A partial file is
`<name>.part` beside the target. A file that the user puts there under its own name is verified like any other.
"""

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.fetching.transfer import (
    CHUNK,
    PATIENCE,
    PROBLEMS,
    Changed,
    PartialFile,
    Patience,
    Unavailable,
    identity_of,
    request,
)
from hrvgan.files import PublishedFile, file_digest, locked, require_space, sync
from hrvgan.progress import bar


def downloads() -> Path:
    """Folder of downloaded archives: environment variable HRVGAN_DOWNLOADS, by default data/downloads."""
    return Path(os.environ.get("HRVGAN_DOWNLOADS", "data/downloads"))


def fetch(file: PublishedFile, folder: str | Path, *, refresh: bool = False, patience: Patience = PATIENCE) -> Path:
    """Download `file` into `folder` unless it is there; return its path after checking size and hash.

    Its addresses are tried in turn; an interrupted transfer resumes, also in another process. Two processes that want
    the same file take turns. With `refresh`, a file without a hash is downloaded again if it has changed at its
    source. Raises Unavailable if no address has it, InputError if an existing file has the wrong content.
    """
    final = Path(folder) / file.name
    with _file_lock(final):
        if refresh and final.exists() and _outdated(final, file):
            final.unlink()
        if final.exists():
            if problem := mismatch(final, file):
                raise InputError(f"{final}: {problem}; delete it to download it, or put the right file there")
            return final
        causes = []
        for url in file.urls:
            try:
                return _download(url, final, file, patience)
            except Unavailable as error:
                causes.append(str(error))
    problem = "; ".join(causes) or "no address is known"
    raise Unavailable(f"{file.name}: {problem}. Try again later, or fetch it by hand and put it at {final}")


def _download(url: str, final: Path, file: PublishedFile, patience: Patience) -> Path:
    """Download from `url`; start again once if the file changed meanwhile or arrived damaged."""
    path = final.with_name(f"{final.name}.part")
    options = {"size": file.size, "pinned": bool(file.sha256), "patience": patience}
    for last in (False, True):
        with PartialFile(path, url, **options) as part:
            try:
                _drain(part, file.name)
                if not (problem := mismatch(path, file)):
                    break
                raise Changed(f"{url}: {problem}; it was fetched twice, so it is another file now")
            except Changed:
                part.restart()
                if last:
                    raise
    sync(path)
    path.replace(final)
    sync(final.parent)
    if file.sha256:
        part.identity_path.unlink(missing_ok=True)
    else:
        part.identity_path.replace(_origin(final))
    return final


def _origin(final: Path) -> Path:
    """JSON file with the address and identity of the download `final`, kept if no hash is known."""
    return final.with_name(f".{final.name}.json")


def _outdated(final: Path, file: PublishedFile) -> bool:
    if file.sha256 or not _origin(final).exists():
        return False  # a pinned file, or one that the user put there
    origin = json.loads(_origin(final).read_text(encoding="utf-8"))
    if origin["url"] not in file.urls:
        return True  # a different file of the same name
    before, now = origin["identity"], upstream(PublishedFile(file.name, (origin["url"],))) or {}
    return any(before[key] != now[key] for key in before.keys() & now.keys())


def _drain(part: PartialFile, name: str) -> None:
    part.confirm()
    if part.size is not None:
        require_space(part.path, part.size - part.have)
    size = {"total": part.size, "initial": part.have, "unit": "B", "unit_scale": True, "unit_divisor": 1024}
    with bar(desc=name, **size) as progress:
        while data := part.more():
            progress.update(len(data))


def mismatch(path: Path, file: PublishedFile) -> str:
    """Message with both values if size or hash of the file at `path` is wrong, otherwise ""."""
    size = path.stat().st_size
    if file.size not in (None, size):
        return f"{size:,} bytes, {file.size:,} expected"
    if file.sha256 and (digest := file_digest(path)) != file.sha256:
        return f"sha256 {digest}, {file.sha256} expected"
    return ""


@contextlib.contextmanager
def stream(file: PublishedFile, folder: str | Path, *, patience: Patience = PATIENCE) -> Iterator[io.BufferedReader]:
    """Stream `file` from byte 0, downloading only as many bytes as are read.

    These bytes stay in `folder`, so that the next stream starts on disk. Without a network only the bytes on disk are
    available; if the file has changed since, they are discarded. A complete file in `folder` is read in place. Reading
    raises InputError as `fetch` does.
    """
    final = Path(folder) / file.name
    with contextlib.ExitStack() as stack:
        stack.enter_context(_file_lock(final))
        if final.exists():
            yield stack.enter_context(open(final, "rb"))
            return
        path, url = final.with_name(f"{final.name}.part"), file.urls[0]
        part = stack.enter_context(PartialFile(path, url, size=file.size, pinned=False, patience=patience))
        try:
            part.confirm()
        except Changed:
            part.restart()
        except Unavailable:
            if not part.have:
                raise
        yield stack.enter_context(io.BufferedReader(_PartReader(part), CHUNK))


class _PartReader(io.RawIOBase):
    """Raw stream over a partial file, which is extended by download when its end is reached."""

    def __init__(self, part: PartialFile):
        self.part, self.file = part, open(part.path, "rb")  # noqa: SIM115 (`close` closes it)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        count = self.file.readinto(buffer)
        if not count and self.part.more():
            count = self.file.readinto(buffer)
        return count

    def close(self) -> None:
        self.file.close()
        super().close()


def _file_lock(final: Path) -> contextlib.AbstractContextManager[None]:
    """Lock that serialises processes that download the same file."""
    return locked(final.with_name(f".{final.name}.lock"), f"download of {final.name}", wait=True)


def upstream(file: PublishedFile) -> dict[str, str | int] | None:
    """Identity of the published file: etag, last_modified, size. None if no server responds now."""
    for url in file.urls:
        try:
            with request(url, pinned=bool(file.sha256), timeout=10) as response:
                return identity_of(response)
        except (Unavailable, *PROBLEMS):
            continue
    return None
