"""Archives, harmless and hostile, of every format: what comes out, and that nothing else does."""

import bz2
import contextlib
import io
import random
import re
import stat
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
import rar_writer
from hypothesis import given
from hypothesis import strategies as st

from hrvgan.errors import InputError
from hrvgan.fetching.archives import MAX_HEADER, unpack
from tests import processes

ROOT = Path(__file__).resolve().parents[1]
FORMATS = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "rar")
GOOD = {"a.txt": b"one", "deep/er/b c.bin": bytes(100_000), "deep/ünï.txt": b"", "deep/c.txt": b"three" * 99}


def make(path, entries):
    """Write `entries` as the archive that the suffix of `path` says: (name, bytes), or (name, b"", type of tar)."""
    entries = [(*entry, tarfile.REGTYPE)[:3] for entry in entries]
    writer = {"zip": make_zip, "rar": make_rar}.get(path.name.partition(".")[2], make_tar)
    writer(path, entries)
    return path


def make_rar(path, entries):
    links = {tarfile.SYMTYPE: "/etc/passwd"}
    files = [entry for entry in entries if entry[2] != tarfile.DIRTYPE]
    members = [rar_writer.member(name, data, link=links.get(kind, "")) for name, data, kind in files]
    path.write_bytes(rar_writer.rar(*members))


def make_zip(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, kind in entries:
            info = zipfile.ZipInfo(f"{name}/" if kind == tarfile.DIRTYPE else name)
            info.external_attr = (stat.S_IFLNK if kind == tarfile.SYMTYPE else stat.S_IFREG) << 16
            archive.writestr(info, data)


def make_tar(path, entries):
    with tarfile.open(path, f"w:{path.name.partition('.tar')[2][1:]}") as archive:
        for name, data, kind in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data), "/etc/passwd"
            archive.addfile(info, io.BytesIO(data))


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


LIMITS = {"max_bytes": 1_000_000, "max_members": 10}


@pytest.mark.parametrize("kind", FORMATS)
def test_everything_comes_out_as_it_went_in(tmp_path, out, kind):
    archive = make(tmp_path / f"x.{kind}", [("deep", b"", tarfile.DIRTYPE), *GOOD.items()])
    assert unpack(archive, out, **LIMITS) == [out / name for name in GOOD]
    assert tree(out) == GOOD


@pytest.mark.parametrize("kind", FORMATS)
def test_place_chooses_and_renames(tmp_path, out, kind):
    archive = make(tmp_path / f"x.{kind}", GOOD.items())
    unpack(archive, out, **LIMITS, target_path=lambda name: f"new/{name[-5:]}" if name.endswith("txt") else None)
    assert tree(out) == {"new/a.txt": b"one", "new/ï.txt": b"", "new/c.txt": b"three" * 99}


def refused(archive, out, message):
    with pytest.raises(InputError, match=message) as caught:
        unpack(archive, out, **LIMITS)
    assert str(caught.value).startswith(str(archive))
    assert tree(out).keys() <= {"good.txt"}  # Of a tar, what came before; of the others nothing.
    assert {path.name for path in out.parent.iterdir()} <= {"out", archive.name}


OUTSIDE = ("../evil", "good/../../evil", "/evil", "a\\..\\..\\evil", "C:/evil", "..")
UNPRINTABLE = ("new\nline", "nul\x01")  # 7-Zip shows such letters as _, and the file gets that harmless name


@pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k in FORMATS for n in OUTSIDE + (UNPRINTABLE if k != "rar" else ())]
)
def test_nothing_lands_outside(tmp_path, out, kind, name):
    refused(make(tmp_path / f"x.{kind}", [("good.txt", b"1"), (name, b"2")]), out, "inside the target")


PARTS = st.sampled_from(["..", ".", "", "a", "~", "C:"]) | st.text("a.\\:é\n\x01", max_size=3)


@given(st.lists(PARTS, min_size=1, max_size=5).map("/".join), st.sampled_from(["zip", "tar"]))
def test_no_name_leads_outside(name, kind):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "deep", "out")
        archive = make(Path(folder, f"x.{kind}"), [(name, b"1")])
        try:
            (file,) = unpack(archive, out, max_bytes=9) or [None]
        except InputError:
            assert not out.exists() or not any(out.rglob("*"))
        else:
            assert file is None or (file.resolve().is_relative_to(out.resolve()) and file.read_bytes() == b"1")
        assert {path for path in Path(folder).rglob("*") if not path.is_relative_to(out)} <= {archive, out.parent}


TAR_TYPES = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)


@pytest.mark.parametrize(
    ("kind", "what"), [("zip", tarfile.SYMTYPE), ("rar", tarfile.SYMTYPE), *(("tar.gz", what) for what in TAR_TYPES)]
)
def test_links_and_devices_are_never_made(tmp_path, out, kind, what):
    entries = [("good.txt", b"1"), ("door", b"", what), ("door/evil", b"2")]
    message = "'door' is a (link|special file), which is never unpacked"
    refused(make(tmp_path / f"x.{kind}", entries), out, message)


@pytest.mark.parametrize("kind", FORMATS)
def test_too_many_bytes_or_files_are_refused_by_what_is_declared(tmp_path, out, kind):
    bomb = make(tmp_path / f"x.{kind}", [("good.txt", b"1"), ("bomb", bytes(1_000_000))])
    refused(bomb, out, "unpacks to more than 10 files or 1,000,000 bytes")
    make(bomb, [(f"{number}", b"") for number in range(11)])
    with pytest.raises(InputError, match="more than 10 files"):
        unpack(bomb, out / "many", **LIMITS)
    assert len(tree(out / "many")) <= 10


@pytest.mark.parametrize("kind", FORMATS)
def test_one_name_twice_is_refused(tmp_path, out, kind):
    archive = tmp_path / f"x.{kind}"
    with pytest.warns(UserWarning, match="Duplicate") if kind == "zip" else contextlib.nullcontext():
        make(archive, [("good.txt", b"1"), ("good.txt", b"2")])
    with pytest.raises(InputError, match=r"'good\.txt' comes twice"):
        unpack(archive, out, **LIMITS)
    assert tree(out) == {"good.txt": b"1"}


def test_a_zip_that_is_longer_than_it_says_is_cut_and_refused(tmp_path, out):
    archive = make(tmp_path / "x.zip", [("bomb", bytes(900_000))])
    data = archive.read_bytes()
    archive.write_bytes(data.replace((900_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    refused_after_writing(archive, out)


@pytest.mark.parametrize("lie", [{"size": 2}, {"size": 900_000}, {"crc": 1}])
def test_a_rar_that_lies_about_a_file_is_refused(tmp_path, out, lie):
    archive = tmp_path / "x.rar"
    archive.write_bytes(rar_writer.rar(rar_writer.member("bomb", b"hello", **lie), rar_writer.member("b", b"xx")))
    refused_after_writing(archive, out)


def refused_after_writing(archive, out):
    with pytest.raises(InputError, match=r"x\.(zip|rar): .*fetch (it|the archive) again"):
        unpack(archive, out, **LIMITS)
    assert sum(len(data) for data in tree(out).values()) <= 1000


def test_a_tar_cannot_make_python_read_a_gigabyte_of_name(tmp_path, out):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, MAX_HEADER + 1
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(MAX_HEADER * 2))
    refused(tmp_path / "x.tar", out, "a broken archive .a header of 1,048,577 bytes")


def test_a_bz2_of_several_streams_is_read_to_its_end(tmp_path, out):
    """As pbzip2 and lbzip2 write it; tarfile's own stream reader stops after the first."""
    data = make(tmp_path / "x.tar", GOOD.items()).read_bytes()
    (tmp_path / "x.tar.bz2").write_bytes(bz2.compress(data[:5000]) + bz2.compress(data[5000:]))
    unpack(tmp_path / "x.tar.bz2", out, **LIMITS)
    assert tree(out) == GOOD


@pytest.mark.parametrize("kind", ["zip", "rar"])
def test_a_disk_too_small_is_told_first(tmp_path, out, kind):
    archive, size = tmp_path / f"x.{kind}", 2**50  # a petabyte
    if kind == "rar":
        archive.write_bytes(rar_writer.rar(rar_writer.member("a", b"x", size=size)))
    else:
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr("a", b"x")
            opened.infolist()[0].file_size = size  # The directory, written at the end, says so.
    with pytest.raises(InputError, match=r"out: 1,125,899\.91 GB needed, .* GB free; free some disk"):
        unpack(archive, out, max_bytes=2**60)
    assert tree(out) == {}


@pytest.mark.parametrize(
    "content", [b"", b"just text, no archive" * 99, b"PK\x03\x04 not really", b"Rar!\x1a\x07\x01\x00"]
)
def test_what_is_no_archive_is_refused(tmp_path, out, content):
    (tmp_path / "x").write_bytes(content)
    refused(tmp_path / "x", out, "x: (a broken archive|unpacks)")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_archive_is_refused(tmp_path, out, kind):
    draw = random.Random(0)
    archive = make(tmp_path / f"x.{kind}", [("good.txt", draw.randbytes(60_000))])
    archive.write_bytes(archive.read_bytes()[:40_000])
    with pytest.raises(InputError, match="fetch it again"):
        unpack(archive, out, **LIMITS)


@pytest.mark.parametrize("kind", FORMATS)
def test_mutated_archives_do_no_harm(tmp_path, out, kind):
    """Flipped bytes: members as they were, or an InputError; nothing outside, nothing else raised."""
    draw = random.Random(kind)
    archive = make(tmp_path / f"x.{kind}", [("a", b"1" * 600), ("b/c", b"2" * 600), ("d", b"")])
    data = archive.read_bytes()
    for turn in range(30 if kind == "rar" else 120):
        mutated = bytearray(data)
        for _ in range(draw.choice((1, 1, 3, 30))):
            mutated[draw.randrange(len(mutated))] = draw.randrange(256)
        archive.write_bytes(mutated[: draw.choice((None, None, draw.randrange(len(mutated))))])
        target = out / str(turn)
        with contextlib.suppress(InputError):
            unpack(archive, target, **LIMITS)
        assert sum(map(len, tree(target).values())) <= LIMITS["max_bytes"]
    assert {path.name for path in tmp_path.iterdir()} == {"out", archive.name}
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_a_disk_that_fills_up_is_told(tmp_path, out):
    """A limit on the size of files stands in for a full disk: the write fails in the kernel alike."""
    archive = make(tmp_path / "x.tar", [("a", bytes(500_000))])
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1))"
    call = f"unpack(Path({str(archive)!r}), Path({str(out)!r}), max_bytes=10**6)"
    code = f"{limit}; from pathlib import Path; from hrvgan.fetching.archives import unpack; {call}"
    done = processes.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert re.search(r"InputError: .*x\.tar: cannot be unpacked \(.*File too large.*\); free some disk", done.stderr)
