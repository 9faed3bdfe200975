"""A news server that takes whatever IHAVE offers it.

usage: sink.py DIRECTORY; prints its port, and runs until it is killed
"""

import itertools
import pathlib
import socketserver
import sys


class Sink(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"200 ready\r\n")
        for command in self.rfile:
            if command.upper().startswith(b"IHAVE "):
                self.wfile.write(b"335 send it\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                article = b"".join(line.removeprefix(b".") for line in lines).replace(b"\r\n", b"\n")
                directory.joinpath(str(next(numbers))).write_bytes(article)
                self.wfile.write(b"235 taken\r\n")
            elif command.upper().startswith(b"QUIT"):
                self.wfile.write(b"205 good-bye\r\n")
                return
            else:
                self.wfile.write(b"500 only IHAVE and QUIT\r\n")


directory = pathlib.Path(sys.argv[1])
numbers = itertools.count(1)
with socketserver.TCPServer(("127.0.0.1", 0), Sink) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
