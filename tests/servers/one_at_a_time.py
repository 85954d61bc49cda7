"""Python's http.server as it comes, with an accept queue of five, which takes one request at a time and 5 ms for each:
one_at_a_time.py PORT SECONDS, which it takes to start."""
import http.server
import sys
import time

time.sleep(float(sys.argv[2]))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.005)
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
