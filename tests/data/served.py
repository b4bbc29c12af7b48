"""A web server over a folder, which sends ranges of files and counts their bytes."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class Server(ThreadingHTTPServer):
    """A web server over a folder, on this machine; it counts the bytes that it has sent."""

    sent = 0

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Ranges)
        self.folder = folder
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"


class Ranges(BaseHTTPRequestHandler):
    """Sends files, or ranges of their bytes."""

    def do_GET(self):
        path = self.server.folder / self.path.partition("?")[0].lstrip("/")
        if not path.is_file():
            return self.send_error(404)
        data, asked = path.read_bytes(), self.headers.get("Range")
        whole, first = len(data), 0
        if asked:
            begin, _, end = asked.removeprefix("bytes=").partition("-")
            first = int(begin) if begin else whole - int(end)
            data = data[first : int(end) + 1 if begin and end else None]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{whole}")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()
        self.wfile.write(data)
        self.server.sent += len(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.shutdown()
    server.server_close()
