"""A test server that cuts, refuses and delays responses and sends wrong content."""

import http.server
import time


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content``, or what ``contents`` has for a path; ``cut`` bytes at most in one answer.

    ``mode`` or an entry of ``contents`` may be the number of a refusal.
    """

    daemon_threads = True
    mode, cut, etag = "good", None, '"1"'

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.contents, self.ranges, self.paths = content, {}, [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/zoo/net.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers["Range"])
        if server.mode == "hang":
            time.sleep(3)
            return
        server.paths.append(self.path)
        content = server.contents.get(self.path, server.content if server.mode != "paths" else 404)
        refusal = server.mode if isinstance(server.mode, int) else content
        if isinstance(refusal, int):
            self.send_error(refusal)
            return
        asked = self.headers["Range"]
        fits = self.headers["If-Range"] in (None, server.etag)
        start = int(asked[6:-1]) if asked and fits and server.mode != "no ranges" else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.mode != "no length":
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : None if server.cut is None else start + server.cut])

    def log_message(self, *arguments):
        pass
