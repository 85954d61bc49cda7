"""Stands where a gateway is measured, and restarts in a known way.

fake_gateway.py WAY run --config FILE --state-dir DIR
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WAY = sys.argv[1]
CONFIG = sys.argv[sys.argv.index("--config") + 1]
STATE = sys.argv[sys.argv.index("--state-dir") + 1]
PORT = int(re.search(r"127\.0\.0\.1:(\d+)", open(CONFIG).read())[1])
status = {"/healthz": 200, "/readyz": 503 if WAY == "starts-unready" else 200}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(status.get(self.path, 404))
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def say(line):
    print(line, flush=True)


def listen():
    server = Server(("127.0.0.1", PORT), Handler)
    threading.Thread(target=server.serve_forever, args=(0.002,), daemon=True).start()
    say(f"[gateway] http server listening (127.0.0.1:{PORT})")
    return server


def close(server):
    server.shutdown()
    server.server_close()


def away(server, seconds):
    """Closes the listener, and listens again so much later."""
    close(server)
    closed = time.monotonic()
    time.sleep(seconds)
    server = listen()
    say(f"away for {(time.monotonic() - closed) * 1000:.1f} ms")
    return server


def restart(server, number):
    intent = json.load(open(os.path.join(STATE, "restart-intent.json")))
    os.remove(os.path.join(STATE, "restart-intent.json"))
    own = intent["pid"] == os.getpid()
    say(f"intent {intent['kind']} own={own} reason={intent['reason']}")
    if WAY == "ignores":
        return server
    say(f"[gateway] restart r{number} asked: SIGUSR1")
    say("restart trace: restart.signal.received 0.0ms total=0.0ms signal=SIGUSR1")
    if WAY == "dies":
        os._exit(3)
    if WAY == "stays-away":
        close(server)
        return server
    if WAY == "stays-unready":
        status["/readyz"] = 503
    if WAY == "sleeps-300":
        server = away(server, 0.3)
    if WAY == "twice":
        server = away(server, 0.1)
        time.sleep(0.2)
        server = away(server, 0.6)
    if WAY == "never-says-ready":
        return server
    say("restart trace: restart.drain 12.5ms total=12.5ms active=2.0")
    say(f"[gateway] ready (generation {number + 1})")
    if WAY != "untraced":
        say("restart trace: restart.ready 1.5ms total=14.0ms rssMb=8.0")
    return server


def main():
    awaited = {signal.SIGUSR1, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    if WAY != "stateless":
        os.makedirs(STATE, mode=0o700)
    if WAY == "leaves-a-child":
        # It does not end with this process, and writes nowhere.
        quiet = subprocess.DEVNULL
        subprocess.Popen(["sleep", "300"], stdout=quiet, stderr=quiet)
    server = None if WAY == "never-listens" else listen()
    say("startup trace: config 1.5ms total=1.5ms")
    if WAY != "starts-silently":
        say("[gateway] ready (generation 1)")
    number = 0
    while signal.sigwait(awaited) == signal.SIGUSR1:
        number += 1
        server = restart(server, number)
    os._exit(7 if WAY == "ends-with-7" else 0)


main()
