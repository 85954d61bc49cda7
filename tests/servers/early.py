# A server that listens before it can answer, as gunicorn and puma do.
#
#   python3 early.py PORT FOLDER
#
# As long as FOLDER has a file `deaf`, it answers nobody, and says "loading" once. Then it answers each request with its
# process id, and writes the first line and the user agent of each to FOLDER/PID. When FOLDER/refuse has its process id, it
# ends as one that finds another copy of itself, between two requests.
import os
import socket
import sys
import threading
import time

port, folder = int(sys.argv[1]), sys.argv[2]
listener = socket.create_server(("127.0.0.1", port))
print("loading", flush=True)
while os.path.exists(os.path.join(folder, "deaf")):
    time.sleep(0.02)
me = str(os.getpid())
busy = threading.Lock()


def look_for_another():
    refuse = os.path.join(folder, "refuse")
    while not (os.path.exists(refuse) and open(refuse).read() == me):
        time.sleep(0.02)
    with busy:
        print("another process owns the lock", flush=True)
        os._exit(9)


threading.Thread(target=look_for_another, daemon=True).start()
while True:
    client, _ = listener.accept()
    with busy, client, client.makefile("rb") as lines, open(os.path.join(folder, me), "a") as log:
        head = list(iter(lines.readline, b"\r\n"))
        if not head or not all(head):
            continue
        agent = next((line for line in head if line.lower().startswith(b"user-agent:")), b"")
        print(head[0].decode().strip(), agent.decode().strip(), file=log, flush=True)
        body = b"" if head[0].startswith(b"HEAD") else me.encode()
        client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(me), body))
