"""A web server over a folder, which sends ranges of files and counts their bytes, and a bucket in memory."""

import itertools
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from medjax.data.zarr import connected


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
        whole, asked = path.read_bytes(), self.headers.get("Range")
        first, data = ranged(whole, asked)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{len(whole)}")
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


class Bucket(ThreadingHTTPServer):
    """A bucket in memory, under the few requests of Google's and Amazon's protocols that a cache makes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Objects)
        self.objects: dict[str, tuple[int, bytes]] = {}  # by name, with the number of the write
        self.writes = itertools.count(1)
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Objects(BaseHTTPRequestHandler):
    """Answers as storage.googleapis.com does (names after /o/) or as S3 does (names after the bucket's)."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name = unquote(re.sub("^(/upload)?/storage/v1/b/some-bucket/o|^/some-bucket", "", url.path)).strip("/")
        name = asked.get("name", name)
        with self.server.lock:
            if self.command == "HEAD":
                self.send(200, b"", {"x-amz-bucket-region": "us-east-1"})
            elif self.command in ("POST", "PUT"):
                self.written(name, body, asked.get("ifGenerationMatch") == "0" or "If-None-Match" in self.headers)
            elif self.command == "DELETE":
                self.send(204 if self.server.objects.pop(name, None) else 404, b"")
            elif name:
                self.read(name)
            else:
                self.listed(asked, google="storage" in url.path)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def written(self, name, body, new):
        if new and name in self.server.objects:
            return self.send(412, b"{}")
        number = next(self.server.writes)
        self.server.objects[name] = number, body
        self.send(200, json.dumps({"name": name, "generation": str(number)}).encode(), {"ETag": f'"{number}"'})

    def read(self, name):
        if name not in self.server.objects:
            return self.send(404, b"<Error><Code>NoSuchKey</Code></Error>")
        number, data = self.server.objects[name]
        about = {
            "ETag": f'"{number}"',
            "x-goog-generation": str(number),
            "x-goog-stored-content-length": str(len(data)),
        }
        first, part = ranged(data, self.headers.get("Range"))
        if "Range" in self.headers:
            about["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
        self.send(206 if "Range" in self.headers else 200, part, about)

    def listed(self, asked, google):
        names = [name for name in sorted(self.server.objects) if name.startswith(asked.get("prefix", ""))]
        first, end = asked.get("startOffset", ""), asked.get("endOffset", "~")
        items = [{"name": name} for name in names if first <= name < end]
        contents = "".join(f"<Contents><Key>{name}</Key><Size>1</Size></Contents>" for name in names)
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>9</KeyCount>{contents}</ListBucketResult>"
        self.send(200, json.dumps({"items": items}).encode() if google else text.encode())

    def send(self, status, data, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def ranged(data, asked):
    """Where the bytes that a header asks for begin, and they."""
    begin, _, end = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
    first = int(begin) if begin else len(data) - int(end)
    return first, data[first : int(end) + 1 if begin and end else None]


@pytest.fixture
def bucket(monkeypatch):
    """A bucket, which gs://some-bucket and s3://some-bucket mean."""
    bucket = Bucket()
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", bucket.url)
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "a token")
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of nobody")
    connected.cache_clear()
    yield bucket
    connected.cache_clear()
    bucket.shutdown()
    bucket.server_close()
