# A server whose sessions are in its memory, as those of socket.io are, with the standard library alone.
#
#   python3 sessions.py PORT DIRECTORY
#
# A request of no session begins one: its value is in the answer, as in the first one of socket.io, and in the cookie
# `io`. A request of a session is answered with the process id, 400 where this process did not make it. With
# `Upgrade: told` it becomes a tunnel, through which the process id comes. The process ends with code 9 when it is asked
# while there is a file DIRECTORY/PID.
import json
import os
import secrets
import sys
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

sessions = set()
mine = str(os.getpid())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, text, *headers):
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(text)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        if (Path(sys.argv[2]) / mine).exists():
            print("the database is gone", flush=True)
            os._exit(9)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        query = parse_qs(urlsplit(self.path).query).get("sid")
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("io")
        value = query[0] if query else cookie and cookie.value
        if not value:
            value = secrets.token_urlsafe(15)
            sessions.add(value)
            text = "0" + json.dumps({"sid": value, "upgrades": [], "pid": mine})
            return self.answer(200, text, ("Set-Cookie", f"io={value}; Path=/; HttpOnly"))
        if value not in sessions:
            return self.answer(400, mine)
        if self.headers.get("Upgrade") != "told":
            return self.answer(200, mine)
        self.send_response(101)
        self.send_header("Upgrade", "told")
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        self.wfile.write(f"{mine}\r\n".encode())
        self.rfile.read(1)
        self.close_connection = True

    do_POST = do_GET

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
