# An agent: a server that wants the gateway in front of it restarted.
#
#   python3 agent.py PORT CONTROL_SOCKET
#
# ASK_AGAIN    at each of its starts, before it listens, it asks for a restart again
# ASK_LATER    a file: as long as it is there, each start asks for a restart again when it serves
# GATEWAYCTL   what GET /restart runs as a child of its own, with the arguments after it, and does not wait for
# Everything else is answered with its process id.
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/restart":
            subprocess.Popen(shlex.split(os.environ["GATEWAYCTL"]))
        body = f"{os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def ask(path):
    with socket.socket(socket.AF_UNIX) as gateway:
        gateway.connect(path)
        # What is asked on one connection is looked at in its order: after the answer to the second, the first is known.
        for number, (method, params) in enumerate([("restart", {"reason": "as my notes say"}), ("status", {})]):
            frame = {"type": "req", "id": str(number), "method": method, "params": params}
            gateway.sendall(json.dumps(frame).encode() + b"\n")
        for line in gateway.makefile():
            if json.loads(line).get("id") == "1":
                print("asked for a restart", flush=True)
                return


if "ASK_AGAIN" in os.environ:
    ask(sys.argv[2])
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)


def ask_later(file):
    while os.path.exists(file):
        with socket.socket(socket.AF_UNIX) as gateway:
            gateway.connect(sys.argv[2])
            gateway.sendall(b'{"type":"req","id":"1","method":"restart","params":{"reason":"as my notes say"}}\n')
            for line in gateway.makefile():
                if json.loads(line).get("id") == "1":
                    break


if "ASK_LATER" in os.environ:
    threading.Thread(target=ask_later, args=(os.environ["ASK_LATER"],), daemon=True).start()
server.serve_forever()
