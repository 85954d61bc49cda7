# A server that is ready at its private address, and treats the gateway's own requests through the front
# door as FOLDER/how says.
#
#   python3 passages.py PORT FOLDER
#
# "hang": no answer until the file is gone; "close": the connection is closed; "500": that status. All
# other requests are answered "here". It prints "asked METHOD PATH by HOST" for each of the gateway's own
# requests, and starts itself anew at SIGHUP.
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, folder = int(sys.argv[1]), sys.argv[2]
how = os.path.join(folder, "how")


def told():
    try:
        with open(how) as file:
            return file.read()
    except FileNotFoundError:
        return ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        host = self.headers["host"]
        own = self.headers["user-agent"] == "gateway-probe" and host != f"127.0.0.1:{port}"
        if own:
            print(f"asked {self.command} {self.path} by {host}", flush=True)
        todo = told() if own else ""
        while todo == "hang":
            time.sleep(0.02)
            todo = told()
        if todo == "close":
            self.close_connection = True
            return
        self.send_response(500 if todo == "500" else 200)
        self.send_header("content-length", "4")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"here")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


signal.signal(signal.SIGHUP, lambda *_: os.execv(sys.executable, [sys.executable, *sys.argv]))
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
