"""Prompts on the Hub: the real client against a local stand-in for the server."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants as client
import pytest

from vlprompt import PromptClassifier, PromptedCLIP, UserError, cli, hub

SHA = "a" * 40


class Server(BaseHTTPRequestHandler):
    """What the client asks of the Hub to create, fill and fetch a repository."""

    files: dict[str, dict[str, bytes]] = {}  # noqa: RUF012 -- of one test, emptied by the fixture

    def log_message(self, *_: object) -> None: ...

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        base = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.files.setdefault(name, {})
            self.reply({"url": f"{base}/{name}"})
        elif self.path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [one["path"] for one in json.loads(body)["files"]]
            self.reply({"files": [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in names]})
        elif match := re.match(r"/api/models/([^/]+/[^/]+)/commit/", self.path):
            for line in body.splitlines():
                value = json.loads(line)["value"]
                if "content" in value:
                    self.files[match[1]][value["path"]] = base64.b64decode(value["content"])
            self.reply({"success": True, "commitOid": SHA, "commitUrl": f"{base}/{match[1]}/commit/{SHA}"})
        else:
            self.reply({"error": "unknown"}, 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if match := re.match(r"/api/models/([^/]+/[^/]+)(/|$)", path):
            if match[1] not in self.files:
                self.reply({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
                return
            if "/tree/" in path:
                files = self.files[match[1]].items()
                self.reply([{"type": "file", "path": name, "size": len(data), "oid": SHA} for name, data in files])
                return
            siblings = [{"rfilename": name} for name in self.files[match[1]]]
            self.reply({"id": match[1], "sha": SHA, "siblings": siblings, "private": False, "tags": []})
        elif match := re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            data = self.files[match[1]][match[2]]
            self.reply(data, headers={"X-Repo-Commit": SHA, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
        else:
            self.reply({"error": "unknown"}, 404)

    def reply(self, value: object, code: int = 200, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for name, text in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, dict[str, bytes]]]:
    Server.files.clear()
    running = ThreadingHTTPServer(("localhost", 0), Server)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    endpoint = f"http://localhost:{running.server_port}"
    monkeypatch.setattr(client, "ENDPOINT", endpoint)
    monkeypatch.setattr(client, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(client, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield Server.files
    running.shutdown()
    running.server_close()


@pytest.fixture
def prompt(clip_dir: Path, tmp_path: Path) -> Path:
    PromptedCLIP(clip_dir, "coop", class_names=["cat", "dog"]).save(tmp_path / "prompt")
    return tmp_path / "prompt"


def test_a_prompt_goes_to_the_hub_and_comes_back(
    server: dict[str, dict[str, bytes]], prompt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub.push(prompt, "alice/pets", licence="mit").endswith("/alice/pets")
    stored = server["alice/pets"]
    assert set(stored) >= set(hub.FILES)
    card = stored["README.md"].decode()
    assert "license: mit" in card
    assert "library_name: vlprompt" in card
    assert 'PromptClassifier.from_pretrained("alice/pets")' in card
    assert stored["prompt.safetensors"] == (prompt / "prompt.safetensors").read_bytes()
    loaded = PromptClassifier.from_pretrained("alice/pets")
    assert loaded.classes_.tolist() == ["cat", "dog"]
    assert loaded.push_to_hub("alice/again").endswith("/alice/again")
    assert server["alice/again"]["prompt.safetensors"] == stored["prompt.safetensors"]
    assert (hub.pull("alice/pets", tmp_path / "here") / "prompt.json").read_bytes() == stored["prompt.json"]
    with pytest.raises(UserError, match="is not empty"):
        hub.pull("alice/pets", tmp_path / "here")
    server.clear()
    monkeypatch.setattr(client, "HF_HUB_OFFLINE", True)
    assert hub.pull("alice/pets").is_dir()  # from the cache
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        hub.pull("alice/other")


def test_what_is_no_prompt_on_the_hub(server: dict[str, dict[str, bytes]], prompt: Path) -> None:
    with pytest.raises(UserError, match="cannot be fetched from the Hub"):
        hub.pull("alice/nothing")
    with pytest.raises(UserError, match="owner/name"):
        hub.push(prompt, "pets")
    with pytest.raises(UserError, match="there is no directory runs/mine"):
        hub.located("runs/mine")


def test_the_commands_put_a_prompt_there_and_fetch_it(
    server: dict[str, dict[str, bytes]],
    prompt: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["push", str(prompt), "alice/pets", "--licence", "cc0-1.0"]) == 0
    address, *more = capsys.readouterr().out.splitlines()
    assert address.endswith("/alice/pets")
    assert "  vlprompt predict alice/pets PICTURE.jpg" in more
    assert "license: cc0-1.0" in server["alice/pets"]["README.md"].decode()
    assert cli.run(["pull", "alice/pets"]) == 0
    assert "  vlprompt predict pets PICTURE.jpg" in capsys.readouterr().out.splitlines()
    assert Path("pets/prompt.safetensors").read_bytes() == (prompt / "prompt.safetensors").read_bytes()
    assert cli.run(["pull", "alice/pets", "--out", "elsewhere"]) == 0
    assert Path("elsewhere/prompt.json").is_file()
    assert cli.run(["pull", "alice/pets"]) == 2, "what is there is kept"
    assert cli.run(["push", str(tmp_path / "nothing"), "alice/pets"]) in (2, 3)
    assert cli.run(["pull", "alice/nothing", "--out", "nowhere"]) == 3
    assert "Traceback" not in capsys.readouterr().err
    assert not Path("nowhere").exists()
