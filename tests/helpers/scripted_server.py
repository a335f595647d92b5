"""A stand-in for a model server, for the tests of its clients."""

import http.server
import threading
import time


class Scripted:
    """A server that says what it was told to say, and remembers what it heard.

    Attributes:
        answers: What it says next: pairs of status and body, or "silence".
        usual: What it says when there are no more answers.
        seconds: How long it takes for each, one after the other.
        heard: Method, path, headers and body of each request.
        connections: Addresses from which they came.
        release: Ends all silences.
    """

    def __init__(self):
        self.answers = []
        self.usual = None
        self.seconds = 0.0
        self.heard = []
        self.connections = set()
        self.release = threading.Event()
        self.busy = threading.Lock()
        scripted = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.do_POST()

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                scripted.heard.append((self.command, self.path, dict(self.headers), body))
                scripted.connections.add(self.client_address)
                answer = scripted.answers.pop(0) if scripted.answers else scripted.usual
                if scripted.seconds:
                    with scripted.busy:
                        time.sleep(scripted.seconds)
                if answer == "silence":
                    scripted.release.wait(10)
                    self.close_connection = True
                    return
                status, content = answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/models/m"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
