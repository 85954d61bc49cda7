# A small server that says what it is told of a drain.
#
#   python3 told.py PORT
#
# SIGUSR1 and POST /drain are said on standard output; POST /deaf is never answered, POST /no with 404.
# Everything else is answered at once.
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def say(text):
    print(text, flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self):
        self.answer(200)

    def do_POST(self):
        say(f"told by POST {self.path}")
        if self.path == "/deaf":
            threading.Event().wait()
        self.answer(204 if self.path == "/drain" else 404)

    def log_message(self, *_):
        pass


# One signal after the other: a handler would be interrupted by the next one, before it has said a word.
SIGNALS = {signal.SIGUSR1, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
while signal.sigwait(SIGNALS) == signal.SIGUSR1:
    say("told by USR1")
say("told to end")
os._exit(0)
