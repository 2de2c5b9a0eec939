"""A web server on loopback that misbehaves as it is told, for what is downloaded."""

import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """Serves `files` (path -> bytes). `plan` says what to do to the next requests, one word each:

    "cut:N" closes after N bytes, "stall:N" says nothing more after them, "corrupt" turns the last byte, "whole"
    ignores Range, "503" and "404" answer so, "html" sends a page, "huge" announces a petabyte, "to:URL" sends on.
    `log` holds (path, Range header) of every request.
    """

    def __init__(self, tls: tuple[str, str] | None = None):
        self.files, self.plan, self.log = {}, [], []
        self.validators, self.closing = True, threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"site": self}))
        self.server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    @property
    def ranges(self) -> list[str]:
        return [wanted for _, wanted in self.log]

    def __enter__(self) -> "Site":
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        site, self.close_connection = self.site, True
        wanted = self.headers.get("Range", "")
        site.log.append((self.path, wanted))
        step, _, count = (site.plan.pop(0) if site.plan else "").partition(":")
        data = site.files.get(re.sub("^http://[^/]*", "", self.path).partition("?")[0])
        etag = f'"{hash(data):x}"'
        if step == "to":
            self.answer(302, {"Location": count})
        elif data is None or step in ("404", "503"):
            self.answer(int(step or 404), {"Retry-After": "0"})
        elif step == "html":
            self.answer(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>log in first</html>")
        elif step == "huge":
            self.answer(200, {"Content-Length": str(10**15)})
        else:
            start = int(wanted[6:-1]) if wanted and step != "whole" else 0
            if self.headers.get("If-Range", etag) != etag:
                start = 0
            body = data[:-1] + bytes([data[-1] ^ 1]) if step == "corrupt" else data
            headers = {"ETag": etag} if site.validators else {}
            if start >= len(data) > 0:
                headers |= {"Content-Range": f"bytes */{len(data)}", "Content-Type": "text/html"}
                self.answer(416, headers, b"<html>no more</html>")
                return
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            headers["Content-Length"] = str(len(data) - start)
            self.answer(206 if start else 200, headers, body[start : int(count) if count else None])
            if step == "stall":
                site.closing.wait(20)

    def answer(self, status: int, headers: dict, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
