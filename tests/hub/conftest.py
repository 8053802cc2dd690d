"""A hub on loopback: just enough of the protocol for huggingface_hub, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """The files of one repository, what was asked for, and what shall go wrong."""

    def __init__(self):
        self.repo = "someone/models"
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.sent: dict[str, int] = {}  # bytes of each file
        self.break_after: int | None = None  # bytes of the next download, after which the connection is cut
        self.url = ""

    def downloads(self):
        return [entry for entry in self.requests if entry[0] == "GET" and "/resolve/" in entry[1]]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers.get("Range")))
        if not re.match(rf"/(api/models/)?{hub.repo}(/|$)", path):
            return self.reply(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        if "/other-branch" in path:
            return self.reply(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        if path.endswith("/refs"):  # llama-server's own client asks for it
            refs = {"branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": COMMIT}], "tags": []}
            return self.reply(200, {"Content-Type": "application/json"}, json.dumps(refs).encode(), body)
        if path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in ["README.md", *hub.files]]
            listing = {"id": hub.repo, "modelId": hub.repo, "sha": COMMIT, "siblings": siblings, "tags": []}
            if "/tree/" in path:
                listing = [{"type": "file", "path": n, "size": len(d), "oid": "0" * 40} for n, d in hub.files.items()]
            return self.reply(200, {"Content-Type": "application/json"}, json.dumps(listing).encode(), body)
        return self.send_file(path.split("/resolve/", 1)[1].split("/", 1)[1], body)

    def send_file(self, name, body):
        hub = self.hub
        if name not in hub.files:
            return self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        data, start, status = hub.files[name], 0, 200
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if match := re.match(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start, status = int(match[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        part = data[start:]
        if body and hub.break_after is not None:
            n_sent, hub.break_after = hub.break_after, None
            hub.sent[name] = hub.sent.get(name, 0) + n_sent
            self.head(status, {**headers, "Content-Length": str(len(part))})
            self.wfile.write(part[:n_sent])
            self.wfile.flush()
            self.close_connection = True
            return None
        if body:
            hub.sent[name] = hub.sent.get(name, 0) + len(part)
        return self.reply(status, headers, part, body)

    def reply(self, status, headers, data=b"", body=True):
        self.head(status, {**headers, "Content-Length": str(len(data))})
        if body:
            self.wfile.write(data)

    def head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def hub():
    """A served repository someone/models, empty at first."""
    state = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HandlerOfOne", (Handler,), {"hub": state}))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def run(hub, tmp_path):
    """Return a function that runs a program with this hub and a cache of its own: (exit code, stdout, stderr)."""

    def start(*arguments, code=None, **environment):
        if code is not None:
            arguments = ("-W", "error::ResourceWarning", "-c", textwrap.dedent(code))
        env = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
        env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        env |= {"HF_HUB_DISABLE_XET": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_ETAG_TIMEOUT": "3", **environment}
        done = subprocess.run(
            [sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
        )
        return done.returncode, done.stdout, done.stderr

    return start
