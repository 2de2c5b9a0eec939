"""Downloads from a real server on loopback that cuts, stalls, corrupts and changes its mind."""

import datetime
import hashlib
import ipaddress
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from web_server import Site

from hrvgan.cli import main
from hrvgan.errors import InputError
from hrvgan.features.weight_files import WEIGHTS
from hrvgan.fetching.download import fetch, stream, upstream
from hrvgan.fetching.transfer import Patience, Unavailable
from hrvgan.files import PublishedFile
from pipeline.upstream import main as note_upstream
from tests import processes

HASTY = Patience(tries=3, pause=0.01, timeout=0.4)
DATA = np.random.default_rng(0).bytes(300_000)
OTHER = DATA[:200_000] + b"other end" * 10_000
IMPORTS = (
    "from hrvgan.files import PublishedFile; from hrvgan.fetching.transfer import Patience; "
    "from hrvgan.fetching.download import fetch"
)
ROOT = Path(__file__).resolve().parents[1]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def site():
    with Site() as site:
        site.files["/a.bin"] = DATA
        yield site


@pytest.fixture
def pinned(site):
    return PublishedFile("a.bin", (f"{site.url}/a.bin",), len(DATA), sha256(DATA))


@pytest.fixture
def unpinned(site):
    return PublishedFile("a.bin", (f"{site.url}/a.bin",))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize("steps", [
    [], ["503"], ["cut:0"], ["cut:100000", "cut:100001", "cut:250000"], ["cut:99000", "whole"], ["stall:5000"],
    ["corrupt"], ["cut:1000", "corrupt"], ["cut:1000", "503", "cut:2000", "503"],
])  # fmt: skip
def test_a_file_arrives_whole_whatever_happens_on_the_way(site, pinned, tmp_path, steps):
    site.plan = list(steps)
    assert fetch(pinned, tmp_path, patience=HASTY).read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]
    assert not site.plan


def test_only_what_is_missing_is_asked_for(site, pinned, tmp_path):
    site.plan = ["cut:100000", "cut:250000"]
    fetch(pinned, tmp_path, patience=HASTY)
    assert site.ranges == ["", "bytes=100000-", "bytes=250000-"]


def test_without_validators_a_file_with_a_hash_still_resumes_and_one_without_begins_anew(site, tmp_path, pinned):
    site.validators = False
    for wanted, ranges in ((pinned, ["", "bytes=1000-"]), (PublishedFile("b.bin", pinned.urls), ["", "bytes=1000-"])):
        site.plan, site.log = ["cut:1000"], []
        assert fetch(wanted, tmp_path, patience=HASTY).read_bytes() == DATA
        assert site.ranges == ranges  # The sizes agree, which is something to go by.


def test_another_process_goes_on_where_a_killed_one_stopped(site, pinned, tmp_path):
    site.plan = ["stall:123456"]
    code = f"{IMPORTS}; fetch({pinned!r}, {str(tmp_path)!r})"
    part = tmp_path / "a.bin.part"
    with processes.start([sys.executable, "-c", code], cwd=ROOT) as child:
        processes.wait_for(lambda: part.exists() and part.stat().st_size == 123456, "123,456 bytes", process=child)
        child.kill()
    assert names(tmp_path) == ["a.bin.part", "a.bin.part.json"]
    assert fetch(pinned, tmp_path, patience=HASTY).read_bytes() == DATA
    assert site.ranges == ["", "bytes=123456-"]


@pytest.mark.parametrize("extra", [b"", b"and more"])
def test_a_part_that_is_whole_or_too_long_already(site, pinned, tmp_path, extra):
    (tmp_path / "a.bin.part").write_bytes(DATA + extra)
    assert fetch(pinned, tmp_path, patience=HASTY).read_bytes() == DATA
    assert site.ranges == (["bytes=300008-", ""] if extra else ["bytes=300000-"])


def test_processes_that_want_one_file_take_turns(site, pinned, tmp_path):
    site.plan = ["stall:1000"]
    code = f"{IMPORTS}; print('ready', flush=True); input(); "
    code += f"fetch({pinned!r}, {str(tmp_path)!r}, patience=Patience(timeout=1))"
    command = [sys.executable, "-c", code]
    options = {"cwd": ROOT, "stdin": subprocess.PIPE}
    with processes.start(command, **options) as first, processes.start(command, **options) as second:
        for process in (first, second):
            processes.wait_for(process.output, "its start", process=process)
        for process in (first, second):  # Both begin, and the stall is long enough for them to meet.
            process.stdin.write(b"\n")
            process.stdin.flush()
        assert (first.finish(), second.finish()) == (0, 0)
    assert site.ranges == ["", "bytes=1000-"]


def test_a_file_that_changed_meanwhile_is_not_glued_together(site, unpinned, tmp_path):
    site.plan = ["cut:250000", "503", "503", "503"]
    with pytest.raises(Unavailable, match="3 failures in a row"):
        fetch(unpinned, tmp_path, patience=HASTY)
    site.files["/a.bin"] = OTHER
    assert fetch(unpinned, tmp_path, patience=HASTY).read_bytes() == OTHER


def test_a_wrong_hash_says_both_and_leaves_nothing(site, pinned, tmp_path):
    site.files["/a.bin"] = wrong = DATA[::-1]
    with pytest.raises(Unavailable) as caught:
        fetch(pinned, tmp_path, patience=HASTY)
    for words in (sha256(DATA), sha256(wrong), "fetched twice", "fetch it by hand", str(tmp_path / "a.bin")):
        assert words in str(caught.value)
    assert names(tmp_path) == []


def test_a_wrong_size_is_refused_before_anything_is_transferred(site, pinned, tmp_path):
    site.files["/a.bin"] = DATA + b"!"
    with pytest.raises(Unavailable, match="300,001 bytes, 300,000 expected"):
        fetch(pinned, tmp_path, patience=HASTY)
    assert len(site.log) == 1


def test_a_file_fetched_by_hand_is_checked_and_needs_no_network(tmp_path):
    wanted = PublishedFile("a.bin", ("http://127.0.0.1:9/a.bin",), sha256=sha256(DATA))
    (tmp_path / "a.bin").write_bytes(DATA)
    assert fetch(wanted, tmp_path).read_bytes() == DATA
    (tmp_path / "a.bin").write_bytes(OTHER)
    with pytest.raises(InputError, match=f"{sha256(OTHER)}, {sha256(DATA)} expected; delete it"):
        fetch(wanted, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == OTHER  # It is the user's.


@pytest.mark.parametrize(("step", "message"), [
    ("404", "answers 404"), ("html", "a web page in place of the file"), ("to:nonsense://x", "nonsense"),
])  # fmt: skip
def test_the_next_address_is_tried_and_a_refusal_is_not_repeated(site, pinned, tmp_path, step, message):
    site.files["/b.bin"] = DATA
    site.plan = [step]
    both = PublishedFile("a.bin", (*pinned.urls, f"{site.url}/b.bin"), sha256=pinned.sha256)
    assert fetch(both, tmp_path / "1", patience=HASTY).read_bytes() == DATA
    assert [path for path, _ in site.log] == ["/a.bin", "/b.bin"]
    site.plan = [step]
    with pytest.raises(Unavailable, match=message):
        fetch(pinned, tmp_path / "2", patience=HASTY)


def test_nobody_there_is_one_sentence(tmp_path):
    with pytest.raises(Unavailable, match=r"refused.*3 failures in a row.*by hand and put it at"):
        fetch(PublishedFile("a.bin", ("http://127.0.0.1:9/a.bin",)), tmp_path, patience=HASTY)


def test_a_disk_too_small_is_told_before_anything_is_transferred(site, unpinned, tmp_path):
    site.plan = ["huge"]
    with pytest.raises(InputError, match=r"1,000,000\.00 GB needed, .* GB free; free some disk"):
        fetch(unpinned, tmp_path, patience=HASTY)


def test_a_disk_that_fills_up_is_told_and_the_transfer_goes_on_later(site, pinned, tmp_path):
    """A limit on the size of files stands in for a full disk: the write fails in the kernel alike."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1))"
    code = f"{limit}; {IMPORTS}; fetch({pinned!r}, {str(tmp_path)!r})"
    done = processes.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert re.search(r"InputError: .*a\.bin\.part: File too large; free some disk", done.stderr)
    assert fetch(pinned, tmp_path, patience=HASTY).read_bytes() == DATA
    assert site.ranges[-1] != ""


def test_a_proxy_of_the_environment_is_used(site, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", site.url)
    monkeypatch.setenv("no_proxy", "")
    assert fetch(PublishedFile("a.bin", ("http://data.invalid/a.bin",)), tmp_path, patience=HASTY).read_bytes() == DATA
    assert site.log == [("http://data.invalid/a.bin", "")]


# Certificates.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Files of a certificate that nobody vouches for, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(),
                                      now - datetime.timedelta(days=1), now + datetime.timedelta(days=1))  # fmt: skip
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
    )
    folder = tmp_path_factory.mktemp("certificate")
    (folder / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_a_certificate_is_let_pass_only_for_a_file_whose_hash_is_known(certificate, tmp_path, monkeypatch):
    with Site(certificate) as site:
        site.files["/a.bin"] = DATA
        url = (f"{site.url}/a.bin",)
        with pytest.raises(Unavailable, match="certificate cannot be verified, and no hash is known"):
            fetch(PublishedFile("a.bin", url), tmp_path, patience=HASTY)
        assert site.log == []
        assert upstream(PublishedFile("a.bin", url)) is None
        assert fetch(PublishedFile("a.bin", url, sha256=sha256(DATA)), tmp_path, patience=HASTY).read_bytes() == DATA
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate[0])  # The user vouches for it.
        assert fetch(PublishedFile("b.bin", url), tmp_path, patience=HASTY).read_bytes() == DATA


def test_a_way_from_https_to_http_is_refused_without_a_hash(certificate, site, tmp_path, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate[0])
    with Site(certificate) as secure:
        secure.plan = [f"to:{site.url}/a.bin"] * 2
        url = (f"{secure.url}/x",)
        with pytest.raises(Unavailable, match="without encryption"):
            fetch(PublishedFile("a.bin", url), tmp_path, patience=HASTY)
        assert fetch(PublishedFile("a.bin", url, sha256=sha256(DATA)), tmp_path, patience=HASTY).read_bytes() == DATA


# Streams.


def test_a_stream_transfers_little_more_than_is_read_and_begins_on_disk_the_next_time(site, unpinned, tmp_path):
    site.files["/a.bin"] = DATA * 100
    for count in (1_000, 2_000_000):
        with stream(unpinned, tmp_path, patience=HASTY) as source:
            assert source.read(count) == (DATA * 7)[:count]
    have = (tmp_path / "a.bin.part").stat().st_size
    assert 2_000_000 <= have < 5_000_000
    assert (tmp_path / "a.bin.part").read_bytes() == (DATA * 100)[:have]
    assert site.ranges[0] == ""
    assert 1_000 <= int(site.ranges[1][6:-1]) < have


def test_a_stream_needs_no_room_for_the_whole_file(site, unpinned, tmp_path):
    site.plan = ["huge"] * 4
    ended = pytest.raises(Unavailable, match="Connection broken")
    with stream(unpinned, tmp_path, patience=HASTY) as source, ended:
        source.read(1)


def test_a_stream_goes_on_after_a_cut_and_without_a_network_to_the_end_of_what_is_there(site, unpinned, tmp_path):
    site.plan = ["cut:1000", "stall:1700"]
    with stream(unpinned, tmp_path, patience=HASTY) as source:
        assert source.read(2000) == DATA[:2000]
    have = (tmp_path / "a.bin.part").stat().st_size
    site.plan = ["503"] * 9
    with stream(unpinned, tmp_path, patience=HASTY) as source:
        assert source.read(min(have, 2000)) == DATA[:2000]
    with pytest.raises(Unavailable, match="503"), stream(unpinned, tmp_path / "new", patience=HASTY) as source:
        source.read(1)


def test_a_stream_of_a_changed_file_begins_anew_or_stops(site, unpinned, tmp_path):
    with stream(unpinned, tmp_path, patience=HASTY) as source:
        source.read(1000)
    site.files["/a.bin"] = DATA[::-1]
    site.plan = ["", "cut:1000"]  # The answer that tells of the change; then a cut.
    with stream(unpinned, tmp_path, patience=HASTY) as source:
        assert source.read(1000) == DATA[::-1][:1000]
        site.files["/a.bin"] = DATA
        with pytest.raises(Unavailable, match="changed since its first 1,000 bytes were read"):
            source.read(200_000)


def test_a_whole_file_at_hand_is_streamed_from_there(tmp_path):
    (tmp_path / "a.bin").write_bytes(DATA)
    with stream(PublishedFile("a.bin", ("http://127.0.0.1:9/a.bin",)), tmp_path) as source:
        assert source.read() == DATA


# What changed where it came from.


def test_upstream_tells_a_changed_file_from_the_same_one(site, unpinned):
    before = upstream(unpinned)
    assert before["size"] == len(DATA)
    assert upstream(unpinned) == before
    site.files["/a.bin"] = OTHER
    assert upstream(unpinned) not in (before, None)
    assert upstream(PublishedFile("a.bin", ("http://127.0.0.1:9/a.bin",))) is None


def test_a_first_answer_after_nobody_answered_is_no_new_data(site, tmp_path, monkeypatch):
    """Nobody answers, then somebody, then the same again, nobody, and at last another file: the last alone is new."""
    monkeypatch.chdir(tmp_path)
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["runs"]["laptop"]["dataset"], url = "golf", f"{site.url}/a.bin"
    values["datasets"] = {"golf": {"source": "golf", "watch": "x", "options": {"url": url}, "clips": {}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    noted = []
    for content in (None, DATA, DATA, None, OTHER, None):
        site.files, site.plan = {"/a.bin": content}, [] if content else ["404"]
        note_upstream("golf")
        noted.append((tmp_path / "data/upstream/golf.json").read_text())
    assert noted[0] == noted[1] == noted[2] == noted[3] == '{\n  "golf.tar.bz2": null\n}\n'
    assert '"size": ' + str(len(OTHER)) in noted[4]
    assert noted[5] == noted[4]


def test_refresh_replaces_what_changed_and_leaves_what_came_by_hand(site, unpinned, tmp_path):
    fetch(unpinned, tmp_path, refresh=True, patience=HASTY)
    fetch(unpinned, tmp_path, refresh=True, patience=HASTY)
    assert len(site.log) == 2  # The second time it was only asked about.
    site.files["/a.bin"] = OTHER
    assert fetch(unpinned, tmp_path, patience=HASTY).read_bytes() == DATA
    assert fetch(unpinned, tmp_path, refresh=True, patience=HASTY).read_bytes() == OTHER
    (tmp_path / "hand").mkdir()
    (tmp_path / "hand/a.bin").write_bytes(b"mine")
    assert fetch(unpinned, tmp_path / "hand", refresh=True).read_bytes() == b"mine"


# Weights of published networks.


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_name_a_file_an_address_and_a_licence(name):
    file = WEIGHTS[name]
    assert file.name == name
    assert file.network
    assert file.licence
    assert all(url.startswith("https://") for url in file.urls)
    assert not file.sha256 or re.fullmatch("[0-9a-f]{64}", file.sha256)


def test_weights_of_the_command_are_checked_and_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/weights").mkdir(parents=True)
    (tmp_path / "data/weights/mean2.npz").write_bytes(b"x")
    (tmp_path / "data/weights/i3d_torchscript.pt").write_bytes(b"x")
    main(["weights", "mean2.npz"])
    assert capsys.readouterr().out == "data/weights/mean2.npz\n"
    with pytest.raises(SystemExit, match=r"i3d_torchscript\.pt: 1 bytes, 51,235,320 expected"):
        main(["weights", "i3d_torchscript.pt"])
    with pytest.raises(SystemExit, match=r"unknown weights 'i3d'; known: i3d_torchscript\.pt"):
        main(["weights", "i3d"])
    main(["weights"])
    listed = capsys.readouterr().out
    assert "mean2.npz: the mean cube of C3D; is in data/weights" in listed
    assert all(name in listed for name in WEIGHTS)
