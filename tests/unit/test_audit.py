"""The audit of `make lint`, against advisories of our own: found, none, and not to be had."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from requirements import audit

HASH = "--hash=sha256:" + "0" * 64
ADVISORY = {
    "id": "PYSEC-2026-1",
    "summary": "bad",
    "affected": [
        {
            "package": {"name": "redis", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.9"}]}],
        }
    ],
}


@contextmanager
def advisories(answer: bytes) -> Iterator[list[str]]:
    """The options of pip-audit for a database that gives this answer for redis, and nothing for the others."""

    class Database(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = answer if asked["package"]["name"] == "redis" else b"{}"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Database) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield ["--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{server.server_port}/"]
        server.shutdown()


@pytest.fixture(autouse=True)
def _small_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"redis==8.0.0 {HASH}\nrq==3.0.0 {HASH}\n")
    monkeypatch.setattr(audit, "LOCK", lock)


def test_a_vulnerability_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with advisories(json.dumps({"vulns": [ADVISORY]}).encode()) as options:
        assert audit.main(options) == 1
    assert capsys.readouterr().out == "pip-audit: redis 8.0.0: PYSEC-2026-1, fixed in 9.9\n"


def test_none_and_none_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    with advisories(b"{}") as options:
        assert audit.main(options) == 0
    assert capsys.readouterr().out == "pip-audit: no known vulnerability in 2 packages\n"
    audit._verdict([{"name": "x", "skip_reason": "not found on PyPI"}])
    told = capsys.readouterr().out
    assert told == "pip-audit: skipped: the index has advisories for none of 1 packages\n", "pip-audit calls that well"


def test_no_network_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    code = audit.main(["--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{port}/"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert said.startswith("pip-audit: skipped: ")
    assert said.count("\n") == 1


def test_a_database_that_does_not_answer_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert audit.main(["--vulnerability-service", "osv", "--osv-url", url], seconds=1.0) == 0
    assert "skipped: no answer within 1 s" in capsys.readouterr().out


def test_a_lock_that_cannot_be_read_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    audit.LOCK.write_text("redis>=8\n")
    assert audit.main(["--vulnerability-service", "osv"]) == 1
    assert "redis" in capsys.readouterr().err
