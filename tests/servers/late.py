# A server that listens late, and not all the time.
#
#   python3 late.py HOST PORT FOLDER [retry] [hidden]
#
# It listens as long as FOLDER has a file `listen`, and says so on standard output. Every request is
# answered with "own". With `retry` it waits for an address that is taken, instead of ending. With
# `hidden` nobody but root may see its descriptors.
import ctypes
import os
import socket
import sys
import time

host, port, folder, *options = sys.argv[1:]
wanted = os.path.join(folder, "listen")
family = socket.AF_INET6 if ":" in host else socket.AF_INET
if "hidden" in options:
    ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE


def listen():
    while True:
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, int(port)))
            listener.listen(64)
            listener.settimeout(0.02)
            return listener
        except OSError:
            listener.close()
            if "retry" not in options:
                sys.exit(f"{host}:{port} is taken")
            time.sleep(0.02)


def answer(client):
    with client:
        client.settimeout(5)
        if client.recv(65536):
            client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nown")


while True:
    while not os.path.exists(wanted):
        time.sleep(0.02)
    with listen() as listener:
        print("listens", flush=True)
        while os.path.exists(wanted):
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            answer(client)
    print("closed", flush=True)
