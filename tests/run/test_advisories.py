"""Published faults: what is asked, and what is made of the answer, by a server on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from robusttune.cli import doctor
from robusttune.run import advisories


@pytest.fixture
def database(monkeypatch):
    """A server that answers as osv.dev does, and what it was asked."""
    asked = []

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            found = [
                {"vulns": [{"id": "PYSEC-1"}]} if q["package"]["name"] == "timm" else {} for q in asked[-1]["queries"]
            ]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"results": found}).encode())

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(advisories, "DATABASE", f"http://127.0.0.1:{server.server_port}/")
    yield asked
    server.shutdown()
    server.server_close()


def test_faults_that_are_published_for_installed_versions_are_problems(database, capsys):
    assert doctor.run_doctor(security=True) == 1
    assert "has PYSEC-1: see https://osv.dev/PYSEC-1" in capsys.readouterr().out
    (query,) = [each for each in database[0]["queries"] if each["package"]["name"] == "torch"]
    assert query.keys() == {"package", "version"}
    assert "+" not in query["version"]


def test_without_a_network_it_says_what_was_not_looked_at(monkeypatch, capsys):
    monkeypatch.setattr(advisories, "DATABASE", "http://127.0.0.1:9/")
    assert doctor.run_doctor(security=True) == 0
    assert "note: osv.dev cannot be asked" in capsys.readouterr().out


def test_a_fault_that_is_known_here_is_named_without_a_network(monkeypatch):
    monkeypatch.setattr(advisories, "DATABASE", "http://127.0.0.1:9/")
    monkeypatch.setattr(doctor, "_version", lambda name: "2.9.1+cpu" if name == "torch" else None)
    first, *_ = doctor.published()
    assert first.startswith("PROBLEM: torch 2.9.1+cpu has CVE-2026-24747: a crafted .pt or .pth file can run code")
    assert first.endswith("fixed in 2.10")
