"""Connects the MLflow server of a run with containers, which have a network of their own: over a socket in a folder.

`outside SOCKET PORT LIFELINE` runs on this machine, until the lifeline is cut; `inside SOCKET PORT` runs in a
container, as text given to its Python. Standard library only.
"""

import os
import socket
import sys
import threading


def main(role: str, path: str, port: str, lifeline: str = "") -> None:
    listener: socket.socket
    if role == "outside":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
    else:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(port)))
    listener.listen(128)
    if lifeline:
        threading.Thread(target=end_with, args=(lifeline,), daemon=True).start()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(role, connection, path, int(port)), daemon=True).start()


def end_with(lifeline: str) -> None:
    with open(lifeline, "rb") as file:
        file.read(1)
    os._exit(0)


def serve(role: str, connection: socket.socket, path: str, port: int) -> None:
    other = socket.socket() if role == "outside" else socket.socket(socket.AF_UNIX)
    with connection, other:
        if role == "outside":
            other.connect(("127.0.0.1", port))
        else:
            other.connect(path)
        back = threading.Thread(target=copy, args=(other, connection), daemon=True)
        back.start()
        copy(connection, other)
        back.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
