"""An S3 server on loopback (moto) that misbehaves on demand: run with the Python of an environment that has moto[server].

Usage: bucket_server.py PORT
POST /-/faults {"rate": 0.2, "seed": 1, "kinds": ["503", "429", "slow", "half", "lost"], "most": 5, "down": 0}   from now on
GET  /-/counts                                                                                               requests so far by method
Kinds: 503 and 429 are answered before anything is done; slow waits longer than a client does, and then does it; half
takes half of an upload and drops the line; lost does what is asked and drops the line before the answer.
One key is spoiled `most` times at the most: a client that tries eight times always comes through, whatever the order in
which its requests arrive. "down" refuses everything for so many seconds.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
from collections import Counter

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Broken(Exception):
    """The line is dropped."""


class Faulty:
    def __init__(self, app):
        self.app, self.counts, self.lock = app, Counter(), threading.Lock()
        self.set({})

    def set(self, wish):
        self.rate, self.kinds = wish.get("rate", 0.0), wish.get("kinds", [])
        self.random, self.slow = random.Random(wish.get("seed", 0)), wish.get("slow", 3.0)
        self.most, self.spoiled = wish.get("most", 5), Counter()
        self.down = time.monotonic() + wish.get("down", 0)

    def __call__(self, environ, start):
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path.startswith("/-/"):
            return self.control(environ, start)
        with self.lock:
            kind = self.draw(path)
            listing = method == "GET" and "list-type" in environ.get("QUERY_STRING", "")
            self.counts["LIST" if listing else method] += 1
            self.counts[f"fault {kind}"] += bool(kind)
        if time.monotonic() < self.down:
            return self.refuse(environ, start, "503 Service Unavailable")
        if kind in ("503", "429"):
            return self.refuse(environ, start, "503 Slow Down" if kind == "503" else "429 Too Many Requests")
        if kind == "slow":
            time.sleep(self.slow)
        if kind == "half" and method in ("PUT", "POST"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
            self.drop(environ)
        body = b"".join(self.app(environ, start))
        if kind == "lost":
            self.drop(environ)
        return [body]

    def draw(self, path):
        if not self.kinds or self.random.random() >= self.rate or self.spoiled[path] >= self.most:
            return ""
        self.spoiled[path] += 1
        return self.random.choice(self.kinds)

    def drop(self, environ):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise Broken

    def refuse(self, environ, start, status):
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start(status, [("Content-Type", "application/xml")])
        return [b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"]

    def control(self, environ, start):
        if environ["REQUEST_METHOD"] == "POST":
            self.set(json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(self.counts).encode()]


class Quiet(WSGIRequestHandler):
    def log_request(self, *args):
        pass

    def log(self, *args):
        pass


app = Faulty(DomainDispatcherApplication(create_backend_app))
server = make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True, request_handler=Quiet)
print(server.server_port, flush=True)
server.serve_forever()
