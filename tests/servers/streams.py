# A server of endless answers, with the standard library alone.
#
#   python3 streams.py PORT
#
# /events    server-sent events, each in two parts
# /export    chunks of CHUNK bytes without end, each a single letter
# /slow?SECONDS  answers after so many seconds
import http.server
import os
import socketserver
import sys
import time

CHUNK = 100_000


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path.startswith("/slow"):
            time.sleep(float(self.path.partition("?")[2]))
        if self.path.startswith("/events"):
            self.begin("text/event-stream")
            number = 0
            while True:
                self.chunk(b"id: %d\n" % number)
                time.sleep(0.02)
                self.chunk(b"data: event %d\n\n" % number)
                time.sleep(0.02)
                number += 1
        elif self.path.startswith("/export"):
            self.begin("application/octet-stream")
            number = 0
            while True:
                self.chunk(b"%c" % (ord("a") + number % 26) * CHUNK)
                time.sleep(0.05)
                number += 1
        else:
            body = b"%d\n" % os.getpid()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    do_POST = do_GET

    def begin(self, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, address):
        pass


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
