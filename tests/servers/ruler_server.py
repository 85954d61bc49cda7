"""A server that restarts, or does not, in a known way: for who measures the ruler.

ruler_server.py WAY PORT; SIGUSR1 is its restart. Says on standard output what it did.
"""

import signal
import socketserver
import sys
import threading
import time

WAY, PORT = sys.argv[1], int(sys.argv[2])
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
turn = threading.Lock()
counts = {"asked": 0, "dropped": 0, "cut": 0, "refusing": 0}


class Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        while self.head():
            if not self.answer() or not self.keeps:
                return

    def head(self):
        self.keeps = False
        line = self.rfile.readline()
        while line not in (b"\r\n", b""):
            line = self.rfile.readline()
            self.keeps |= line.lower() == b"connection: keep-alive\r\n"
        return line

    def answer(self):
        with turn:
            # Kept connections are of the load alone; the others are those of the probes, too.
            counts["asked"] += self.keeps
            hundredth = counts["asked"] % 100 if self.keeps else 1
            if WAY == "drops" and hundredth == 0:
                counts["dropped"] += 1
                return False
            if WAY == "drops" and hundredth == 50:
                counts["cut"] += 1
                self.wfile.write(ANSWER[:-1])
                return False
            if WAY == "drops" and hundredth == 25:
                counts["refusing"] += 1
                self.wfile.write(ANSWER.replace(b"200 OK", b"503 No"))
                return True
        self.wfile.write(ANSWER)
        return True


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def listen():
    server = Server(("127.0.0.1", PORT), Handler)
    threading.Thread(target=server.serve_forever, args=(0.002,), daemon=True).start()
    return server


def restart(server):
    began = time.monotonic()
    if WAY == "sleeps-300":
        server.shutdown()
        server.server_close()
        time.sleep(0.3)
        server = listen()
    if WAY == "stalls-50":
        with turn:
            time.sleep(0.05)
    print(f"restarted in {(time.monotonic() - began) * 1000:.1f} ms", flush=True)
    return server


def main():
    awaited = {signal.SIGUSR1, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    server = listen()
    while signal.sigwait(awaited) == signal.SIGUSR1:
        server = restart(server)
    print("counts " + " ".join(f"{name}={count}" for name, count in counts.items()), flush=True)


main()
