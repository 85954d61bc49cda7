# A server with children that ended and that nobody takes: zombies.
#
#   python3 zombies.py PORT FIFO
#
# Three are its own. A fourth is of its process group, but the child of a process that has left the group; that one lives until
# whoever writes to FIFO closes it.
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


for _ in range(3):
    if os.fork() == 0:
        os._exit(0)
told, tell = os.pipe()
if os.fork() == 0:
    os.close(told)
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
    os.setsid()
    # Its pipes to the gateway would be a hold on their own.
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    os.write(tell, f"{dead}\n".encode())
    os.close(tell)
    with open(sys.argv[2]) as fifo:
        fifo.read()
    os._exit(0)
os.close(tell)
print("zombie", os.read(told, 20).decode().strip(), flush=True)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
