"""Files by name from the network: whole and checked, or not there.

`fetch` brings a file that is needed as a whole, `stream` the beginning of one that is too large for that.
What has arrived of a file lies beside its place as `<name>.part`. A file that the user fetched by hand is put
there under its own name, and is checked like any other.
"""

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.fetching.published import File
from hrvgan.fetching.transfer import CHUNK, PATIENCE, Changed, Part, Patience
from hrvgan.fetching.web import PROBLEMS, Unavailable, ask, identity
from hrvgan.files import file_digest, sync
from hrvgan.lock import locked
from hrvgan.progress import bar


def downloads() -> Path:
    """Where archives lie: the environment variable HRVGAN_DOWNLOADS, by default data/downloads."""
    return Path(os.environ.get("HRVGAN_DOWNLOADS", "data/downloads"))


def fetch(file: File, folder: str | Path, *, refresh: bool = False, patience: Patience = PATIENCE) -> Path:
    """The path of `file` in `folder`, once it is there and of the right size and hash.

    A file that lies there already is only checked. Otherwise its addresses are tried in turn; a transfer that
    was cut goes on where it stopped, also in another process. Two processes that want one file take turns.
    `refresh` downloads a file without a hash again if it has changed where it came from.
    Raises InputError: Unavailable if no address has it, else for a file at hand that is not the right one.
    """
    final = Path(folder) / file.name
    with _alone(final):
        if refresh and final.exists() and _outdated(final, file):
            final.unlink()
        if final.exists():
            if wrong := mismatch(final, file):
                raise InputError(f"{final}: {wrong}; delete it to download it, or put the right file there")
            return final
        causes = []
        for url in file.urls:
            try:
                return _download(url, final, file, patience)
            except Unavailable as error:
                causes.append(str(error))
    wrong = "; ".join(causes) or "no address is known"
    raise Unavailable(f"{file.name}: {wrong}. Try again later, or fetch it by hand and put it at {final}")


def _download(url: str, final: Path, file: File, patience: Patience) -> Path:
    """Two rounds at most: what changed on the way, or arrived damaged, is fetched anew once."""
    path = final.with_name(f"{final.name}.part")
    options = {"size": file.size, "pinned": bool(file.sha256), "patience": patience}
    for last in (False, True):
        with Part(path, url, **options) as part:
            try:
                _drain(part, file.name)
            except Changed:
                part.restart()
                if last:
                    raise
                continue
            if not (wrong := mismatch(path, file)):
                break
            part.restart()
            if last:
                raise Unavailable(f"{url}: {wrong}; it was fetched twice, so it is another file now")
    sync(path)
    path.replace(final)
    sync(final.parent)
    if file.sha256:
        part.about.unlink(missing_ok=True)
    else:
        part.about.replace(_origin(final))
    return final


def _origin(final: Path) -> Path:
    """Where stands from where the file `final` came, and as what, unless its hash says all that matters."""
    return final.with_name(f".{final.name}.json")


def _outdated(final: Path, file: File) -> bool:
    if file.sha256 or not _origin(final).exists():
        return False  # the right file in any case, or one that was fetched by hand
    origin = json.loads(_origin(final).read_text(encoding="utf-8"))
    if origin["url"] not in file.urls:
        return True  # another file of this name
    was, now = origin["identity"], upstream(File(file.name, (origin["url"],))) or {}
    return any(was[key] != now[key] for key in was.keys() & now.keys())


def _drain(part: Part, name: str) -> None:
    part.confirm()
    size = {"total": part.size, "initial": part.have, "unit": "B", "unit_scale": True, "unit_divisor": 1024}
    with bar(desc=name, **size) as progress:
        while data := part.more():
            progress.update(len(data))


def mismatch(path: Path, file: File) -> str:
    """What is wrong with the file at `path`, in words with both values, or ""."""
    size = path.stat().st_size
    if file.size not in (None, size):
        return f"{size:,} bytes, {file.size:,} expected"
    if file.sha256 and (found := file_digest(path)) != file.sha256:
        return f"sha256 {found}, {file.sha256} expected"
    return ""


@contextlib.contextmanager
def stream(file: File, folder: str | Path, *, patience: Patience = PATIENCE) -> Iterator[io.BufferedReader]:
    """The bytes of `file` from its beginning on, as many as are read, whatever its size.

    What was read stays in `folder`, so that the next stream begins on disk. If the network is away the bytes
    on disk must do; if the file has changed since they were read, they are dropped. A whole file in `folder`
    is read in place. Reading raises InputError as `fetch` does.
    """
    final = Path(folder) / file.name
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone(final))
        if final.exists():
            yield stack.enter_context(open(final, "rb"))
            return
        path, url = final.with_name(f"{final.name}.part"), file.urls[0]
        part = stack.enter_context(Part(path, url, size=file.size, whole=False, patience=patience))
        try:
            part.confirm()
        except Changed:
            part.restart()
        except Unavailable:
            if not part.have:
                raise
        yield stack.enter_context(io.BufferedReader(_PartReader(part), CHUNK))


class _PartReader(io.RawIOBase):
    """The bytes of a part, which grows where they end."""

    def __init__(self, part: Part):
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


def _alone(final: Path) -> contextlib.AbstractContextManager[None]:
    """One process at a time works on a file; another one waits."""
    return locked(final.with_name(f".{final.name}.lock"), f"download of {final.name}", wait=True)


def upstream(file: File, *, timeout: float = 10.0) -> dict[str, str | int] | None:
    """What tells the published file from another: etag, last_modified, size. None if it cannot be asked now."""
    for url in file.urls:
        try:
            with ask(url, pinned=bool(file.sha256), timeout=timeout) as answer:
                return identity(answer)
        except (Unavailable, *PROBLEMS):
            continue
    return None
