"""Models on a stand-in of the Hugging Face Hub, by the Hub's own client."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import hrvgan
from hrvgan import cli
from hrvgan.nn.checkpoint import PRETRAINED

NAME = "me/shapes"


class Hub(BaseHTTPRequestHandler):
    """Repositories of models in memory: each commit holds the files of all before it."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    created: list[dict]

    def log_message(self, *_) -> None:
        pass

    @property
    def revision(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.created.append(json.loads(body))
            self.answer({"url": f"{self.server.address}/{NAME}"})
        elif self.path == "/api/validate-yaml":  # of the model card
            assert json.loads(body)["content"].startswith("---\n")
            self.answer({"errors": [], "warnings": []})
        elif self.path == f"/api/models/{NAME}/preupload/main":
            asked = json.loads(body)["files"]
            self.answer(
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]}
            )
        elif self.path.startswith(f"/api/models/{NAME}/commit/main"):
            lines = [json.loads(line) for line in body.splitlines()]
            added = [line["value"] for line in lines if line["key"] == "file"]
            self.files.update({file["path"]: base64.b64decode(file["content"]) for file in added})
            self.answer({"commitUrl": f"{self.server.address}/{NAME}/commit/{self.revision}",
                         "commitOid": self.revision, "hookOutput": ""})  # fmt: skip
        else:
            self.answer({"error": "?"}, 404)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        file = re.fullmatch(rf"/{NAME}/resolve/\w+/(\S+)", path)
        if file and file[1] in self.files:
            data = self.files[file[1]]
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.revision}
            self.answer(data, headers=headers)
        elif re.fullmatch(rf"/api/models/{NAME}(/revision/\w+)?", path) and self.files:
            siblings = [{"rfilename": name} for name in self.files]
            self.answer({"id": NAME, "sha": self.revision, "siblings": siblings})
        elif re.fullmatch(rf"/api/models/{NAME}/tree/\w+", path) and self.files:
            self.answer([{"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                         for name, data in self.files.items()])  # fmt: skip
        else:
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def answer(self, body: object, status: int = 200, headers: dict | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    huggingface = pytest.importorskip("huggingface_hub.constants")
    handler = type("Repository", (Hub,), {"files": {}, "created": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.address = f"http://127.0.0.1:{server.server_port}"
    # The client reads its environment when it is imported.
    template = huggingface.HUGGINGFACE_CO_URL_TEMPLATE.replace(huggingface.ENDPOINT, server.address)
    monkeypatch.setattr(huggingface, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface, "ENDPOINT", server.address)
    monkeypatch.setattr(huggingface, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_goes_to_the_hub_and_comes_back(hub, tmp_path, capsys):
    cli.main(["push", "shapes-32", NAME])
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    assert hub.created[0]["visibility"] == "private"
    packaged = {path.name: path.read_bytes() for path in (PRETRAINED / "shapes-32").iterdir()}
    assert hub.files == packaged
    cli.main(["pull", NAME, str(tmp_path / "mine")])
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == packaged
    clips = hrvgan.load(f"hf://{NAME}").sample(2, seed=3)
    assert torch.equal(clips, hrvgan.load("shapes-32").sample(2, seed=3))


def test_what_is_not_there_is_one_sentence(hub, tmp_path):
    for arguments, words in [
        (["pull", NAME, str(tmp_path / "mine")], rf"error: hf://{NAME}: .*; `hf auth login` or HF_TOKEN"),
        (["push", str(tmp_path), NAME], "no model.json, so no released model"),
        (["pull", NAME, __file__], "is there already and no released model"),
    ]:
        with pytest.raises(SystemExit, match=words):
            cli.main(arguments)
    assert not Path(tmp_path / "mine").exists()
