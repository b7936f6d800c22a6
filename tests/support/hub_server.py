"""A server on this machine that answers what huggingface_hub asks of the Hub: it keeps one repository in memory."""

import base64
import json
import threading
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Repository:
    """What the server was sent: the files of the repository by name, and the requests for it."""

    def __init__(self, private=None):
        self.name, self.private = None, private
        self.files, self.requests = {}, []


def handler_of(repository):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_POST(self):
            size = int(self.headers.get("Content-Length") or 0)
            self.answer(self.posted(self.path.partition("?")[0], self.rfile.read(size)))

        def posted(self, path, body):
            repository.requests.append((path, self.headers.get("Authorization")))
            if path == "/api/repos/create":
                asked = json.loads(body)
                if repository.name is not None:
                    return 409, {"error": "You already created this model repo", "url": self.url(asked)}
                repository.name = f"{asked['organization']}/{asked['name']}"
                repository.private = asked.get("private", asked.get("visibility") == "private")
                return 200, {"url": self.url(asked)}
            if path == "/api/validate-yaml":
                return 200, {"errors": [], "warnings": []}
            if "/preupload/" in path:
                names = [each["path"] for each in json.loads(body)["files"]]
                return 200, {
                    "files": [{"path": each, "uploadMode": "regular", "shouldIgnore": False} for each in names]
                }
            if "/commit/" in path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        repository.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                return 200, {"commitUrl": f"{self.root()}/{repository.name}/commit/{COMMIT}", "commitOid": COMMIT}
            return 404, {"error": path}

        def root(self):
            return f"http://127.0.0.1:{self.server.server_port}"

        def url(self, asked):
            return f"{self.root()}/{asked['organization']}/{asked['name']}"

        def do_HEAD(self):
            self.do_GET(content=False)

        def do_GET(self, content=True):
            path = self.path.partition("?")[0]
            repository.requests.append((path, self.headers.get("Authorization")))
            if f"/{repository.name}/resolve/" in path:
                body = repository.files.get(path.rpartition("/")[2])
                if body is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", f'"{sha1(body).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.end_headers()
                if content:
                    self.wfile.write(body)
                return
            if path.startswith(f"/api/models/{repository.name}/tree"):
                rows = [
                    {"type": "file", "path": name, "size": len(body), "oid": sha1(body).hexdigest()}
                    for name, body in repository.files.items()
                ]
                self.answer((200, rows))
                return
            if path.startswith(f"/api/models/{repository.name}"):
                siblings = [{"rfilename": name} for name in repository.files]
                known = {"id": repository.name, "sha": COMMIT, "private": repository.private, "siblings": siblings}
                self.answer((200, known))
                return
            self.answer((404, {"error": path}))

        def answer(self, found):
            status, facts = found
            body = json.dumps(facts).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


@contextmanager
def hub(repository):
    """Serve a repository; yield the address of the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(repository))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
