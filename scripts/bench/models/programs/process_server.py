"""Answers each picture by a process of its own: python process_server.py PORT CONCURRENCY MODEL_FILE WEIGHTS LABELS."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

port, concurrency, *files = sys.argv[1:]
program = Path(__file__).with_name("one_image.py")
places = threading.Semaphore(int(concurrency))


class Classifier(BaseHTTPRequestHandler):
    """POST a picture, get {label: 1.0}."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        picture = self.rfile.read(int(self.headers["Content-Length"]))
        with places:
            # errors go to the log
            done = subprocess.run([sys.executable, program, *files], input=picture, stdout=subprocess.PIPE, check=False)
        answer = json.dumps({done.stdout.decode().strip(): 1.0}).encode()
        self.send_response(500 if done.returncode else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


ThreadingHTTPServer(("127.0.0.1", int(port)), Classifier).serve_forever()
