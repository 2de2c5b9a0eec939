"""The report in a real browser: its videos play, it asks nobody for anything, it fits a phone."""

import contextlib
import itertools
import json
import shutil
import time
import urllib.request
from pathlib import Path

import pytest
from report_project import make_project, make_scores, write_params
from websockets.sync.client import connect

from hrvgan.clipstore.clips import Clips
from pipeline import params
from pipeline.report import render
from pipeline.report.run_results import read_runs
from tests import processes

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
]

PLAYS = """(async () => {
  const played = [];
  for (const video of document.querySelectorAll("video")) {
    video.scrollIntoView({block: "center", behavior: "instant"});
    for (let wait = 0; wait < 100 && !(video.readyState >= 2 && video.currentTime > 0); wait++)
      await new Promise(done => setTimeout(done, 50));
    const {videoWidth, currentTime, error, muted, loop} = video;
    played.push([videoWidth, currentTime > 0, error && error.message, muted, loop]);
  }
  return played;
})()"""

CONTRASTS = """(() => {
  const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(linear)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const paper = light(rgb(getComputedStyle(document.documentElement).backgroundColor));
  const names = ["body", ".small", ".is-generated", ".is-real", "dt", "th", "a"];
  return Object.fromEntries(names.map(name => {
    const ink = light(rgb(getComputedStyle(document.querySelector(name)).color));
    return [name, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)];
  }));
})()"""


class Page:
    """A page of a headless Chromium, by the DevTools protocol; `events` holds all that it said meanwhile."""

    def __init__(self, socket):
        self.socket, self.events, self.numbers = socket, [], itertools.count(1)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments) -> dict:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": arguments}))
        while (message := json.loads(self.socket.recv(timeout=30))).get("id") != number:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def open(self, path: Path, width: int = 1200, media: dict[str, str] | None = None) -> None:
        self.events.clear()
        features = [{"name": name, "value": value} for name, value in (media or {}).items()]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=path.as_uri())
        self.wait('document.readyState === "complete"')

    def wait(self, script: str, seconds: float = 30) -> None:
        """Until `script` gives true."""
        processes.wait_for(lambda: self.run(script), script, seconds)

    def run(self, script: str) -> object:
        """The value of `script`, after its promise if it is one."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """A page with a whole run and one that has lost all but its scores."""
    folder = tmp_path_factory.mktemp("project")
    make_project(folder, {"laptop": "shapes"})
    write_params(folder, {"laptop": "shapes", "again": "shapes"})
    make_scores(folder / "metrics", "again", Clips(folder / "data/clips/shapes"))
    with contextlib.chdir(folder):
        Path("index.html").write_text(render(read_runs(), **params.load()["report"]), encoding="utf-8")
    return folder / "index.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium found; get it with `apt-get install chromium` to run the tests in a browser")
    profile = tmp_path_factory.mktemp("profile")
    port_file = profile / "DevToolsActivePort"
    with processes.start([program, *FLAGS, f"--user-data-dir={profile}"]) as process:
        processes.wait_for(lambda: port_file.exists() and "\n" in port_file.read_text(), "its port", process=process)
        with connect(first_page(port_file.read_text().split()[0]), max_size=None) as socket:
            yield Page(socket)


def first_page(port: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
        return next(target["webSocketDebuggerUrl"] for target in json.load(answer) if target["type"] == "page")


def test_every_video_plays_in_a_loop_and_in_silence(page, report):
    page.open(report)
    played = page.run(PLAYS)
    assert len(played) == 2 * 4 + 3  # Four classes, generated and real, and three sheets.
    assert all(
        width > 0 and moved and error is None and muted and loop for width, moved, error, muted, loop in played
    ), played


def test_it_complains_about_nothing_and_asks_nobody(page, report):
    page.open(report)
    page.run(PLAYS)
    complaints = [
        event
        for event in page.events
        if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    ]
    assert complaints == []
    asked = {
        event["params"]["request"]["url"].split(":")[0]
        for event in page.events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert asked <= {"file", "data"}
    assert page.run("[...document.images].every(image => image.naturalWidth > 0)")


def test_reduced_motion_shows_still_pictures_until_asked(page, report):
    page.open(report, media={"prefers-reduced-motion": "reduce"})
    page.run("document.querySelector('video').scrollIntoView({block: 'center'})")
    time.sleep(0.5)  # as long as it would take to begin
    assert page.run("document.querySelector('video').currentTime") == 0
    assert page.run("document.querySelector('video').poster").startswith("data:image/jpeg")
    page.run("document.querySelector('#pause').click()")
    page.wait("document.querySelector('video').currentTime > 0")


@pytest.mark.parametrize("width", [320, 390, 768, 1600])
def test_it_fits_the_screen(page, report, width):
    page.open(report, width=width)
    assert page.run("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_paper(page, report, scheme):
    page.open(report, media={"prefers-color-scheme": scheme})
    paper = page.run("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 384) == (scheme == "dark")
    contrasts = page.run(CONTRASTS)
    assert min(contrasts.values()) >= 4.5, contrasts  # WCAG 2.2, 1.4.3
