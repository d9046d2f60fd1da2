"""An engine that knows nothing of lens: the standard library's HTTP server, answering by path.

/bad is the client's fault, /fail the engine's, /cut breaks off in the middle, /slow/MS takes its
time, /work takes 6 ms or more, times the second argument; anything else is found. Every answer says
the how-manieth it is. Prints where it listens as one line of JSON.
"""

import http.server
import itertools
import json
import random
import sys
import time


answers = itertools.count(1)


class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/slow/"):
            time.sleep(int(path.rsplit("/", 1)[1]) / 1000)
        if path == "/work":
            # p99 well under twice p95.
            time.sleep((0.006 + random.expovariate(1 / 0.002)) * float(sys.argv[2]))
        status = {"/bad": 400, "/fail": 500}.get(path, 200)
        body = json.dumps({"path": path, "engine": sys.argv[1], "answer": next(answers)}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body) + (100 if path == "/cut" else 0)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = path == "/cut"

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
server.daemon_threads = True
print(json.dumps({"event": "ready", "http": "127.0.0.1:%d" % server.server_port}), flush=True)
server.serve_forever()
