"""A server that says by itself when it is ready: $NOTIFY_SOCKET, see sd_notify(3).

It listens at once, but answers 503 until it has said READY=1, half a second later.
"""
import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ready = threading.Event()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"ready\n" if ready.is_set() else b"not ready\n"
        self.send_response(200 if ready.is_set() else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def tell():
    path = os.environ["NOTIFY_SOCKET"]
    if path.startswith("@"):
        path = "\0" + path[1:]
    ready.set()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"STATUS=warm\nREADY=1\n", path)


threading.Timer(0.5, tell).start()
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
