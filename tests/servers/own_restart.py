# A small server with a restart of its own.
#
#   python3 own_restart.py WAY PORT
#
# USR2 begins its restart, and so does POST /reload where WAY is "post". WAY:
#   listen   it closes its listener, and opens it again after a while
#   exec     it starts its program again in the same process, which keeps the listener
#   spawn    it starts its program in another process, which gets the listener, and ends when that serves
#   ignore   it does nothing
#   lost     it closes its listener for good
# Its answers name its process and how often it has begun: "PID RUN".
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WAY, PORT = sys.argv[1], int(sys.argv[2])
# How long the listener is closed: longer than the gateway takes to notice.
AWAY = 0.6
run = int(os.environ.get("RUN", "1"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status):
        body = f"{os.getpid()} {run}\n".encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200)

    do_HEAD = do_GET

    def do_POST(self):
        if self.path != "/reload":
            return self.answer(404)
        wanted.set()
        # Answered when the restart shows.
        closed.wait()
        self.answer(202)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, inherited):
        super().__init__(("127.0.0.1", PORT), Handler, bind_and_activate=False)
        if inherited:
            self.socket.close()
            self.socket = socket.socket(fileno=int(inherited))
        else:
            self.server_bind()
            self.server_activate()


def serve(inherited=None):
    global server, thread
    server = Server(inherited)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()


def pause():
    """Accepts no more, and finishes what it has accepted."""
    server.shutdown()
    thread.join()
    time.sleep(0.2)


def restart():
    global run
    if WAY in ("listen", "lost", "post"):
        pause()
        server.socket.close()
        closed.set()
        if WAY == "lost":
            print("the listener is closed", flush=True)
            return
        time.sleep(AWAY)
        run += 1
        closed.clear()
        serve()
        return
    environment = dict(os.environ, RUN=str(run + 1), LISTENER=str(server.fileno()))
    os.set_inheritable(server.fileno(), True)
    line = [sys.executable, os.path.abspath(__file__), WAY, str(PORT)]
    if WAY == "exec":
        pause()
        os.execve(line[0], line, environment)
    if WAY == "spawn":
        pause()
        subprocess.Popen(line, env=environment, close_fds=False)
        # As unicorn's old master ends when the new one has its workers.
        time.sleep(0.3)
        os._exit(0)


wanted, closed = threading.Event(), threading.Event()
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
signal.signal(signal.SIGUSR2, lambda *_: wanted.set())
serve(os.environ.get("LISTENER"))
while True:
    wanted.wait()
    wanted.clear()
    if WAY != "ignore":
        restart()
