"""A stand-in for CrowdSec's LAPI, so that the program measured takes a million decisions in the way
it does in service: one bouncer key, one list of decisions on the first pull, nothing new afterwards.

For benches only. What a real LAPI does beside that is tested in tests/it/crowdsec against Debian's.
"""
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import parse_qs, urlsplit

KEY = "bench-key"
PIECE = 64 * 1024
NOTHING_NEW = b'{"new":[],"deleted":[]}'


def decisions(count):
    """(scope, value) of `benches/rig/everything.rs`'s decisions: nine tenths single v4 addresses that
    end in .0 or .255, the rest v4 /24 in 240.0.0.0/4 and v6 /64, where none of the load's clients are.
    127.0.0.0/8 is left out: jailgate would not enforce them, they are its own.
    """
    for n in range(count):
        if n % 20 == 0:
            yield "Range", f"{IPv4Address(0xF000_0000 | n << 8)}/24"
        elif n % 20 == 1:
            yield "Range", f"{IPv6Address(0x2A00 << 112 | (n * 2_654_435_769 & 0xFFFF_FFFF) << 64)}/64"
        else:
            first, middle = 11 + n % 211, n // 211 * 13 & 0xFFFF
            yield "Ip", f"{first + (first >= 127)}.{middle >> 8}.{middle & 0xFF}.{(n & 1) * 255}"


def write_body(path, count):
    """The answer to a first pull, as LAPI 1.5 and later write it; on disk, for it is 180 MB."""
    with open(path, "w") as out:
        out.write('{"new":[')
        for n, (scope, value) in enumerate(decisions(count), 1):
            # community blocklists run for up to a week, each entry to its own end
            left = f"{100 + n % 67}h{n % 60}m{n % 59}s"
            out.write(f'{"," if n > 1 else ""}{{"duration":"{left}","id":{n},"origin":"CAPI","scenario":"crowdsecurity/http-probing",'
                      f'"scope":"{scope}","type":"ban","uuid":"00000000-0000-4000-8000-{n:012x}","value":"{value}"}}')
        out.write('],"deleted":[]}')


class Lapi:
    """Answers on loopback until the bench ends."""

    def __init__(self, directory, count):
        body = directory / f"decisions-{count}.json"
        write_body(body, count)
        handler = type("Handler", (_Handler,), {"body": body})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = urlsplit(self.path)
        if not self.knows_key():
            return
        if asked.path != "/v1/decisions/stream":
            self.answer(404, {"message": "no such page"})
        elif parse_qs(asked.query).get("startup") == ["true"]:
            with open(self.body, "rb") as body:
                self.stream(body)
        else:
            self.answer(200, NOTHING_NEW)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.knows_key():
            usage = urlsplit(self.path).path == "/v1/usage-metrics"
            self.answer(201 if usage else 404, {"message": "" if usage else "no such page"})

    def knows_key(self):
        known = self.headers.get("X-Api-Key") == KEY
        if not known:
            self.answer(403, {"message": "access forbidden"})
        return known

    def answer(self, status, body):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := body.read(PIECE):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass
