#!/usr/bin/env python3
"""The work that the release build is measured at: `train.py PROGRAM`, made with `profile-generate`.

What is not run here is laid out as if it never ran, so it is everything a gate does all day: proxying
over HTTP/1.1, TLS and HTTP/2, small and large bodies both ways, connections of one request, forwardAuth
questions, failures that end in bans, denied clients, uploads, scans, and access logs read through. Only
Python's standard library; loopback; a bounded number of requests.
"""
import argparse
import http.client
import json
import random
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CONF = """
entryPoints:
  web:
    address: "127.0.0.1:{web}"
    forwardedHeaders: {{ trustedIPs: ["127.0.0.0/8"] }}
  tls:
    address: "127.0.0.1:{tls}"
    forwardedHeaders: {{ trustedIPs: ["127.0.0.0/8"] }}
    tls: {{ selfSigned: true }}
routes:
  - {{ host: loop.example, service: loop, jails: [web] }}
  - {{ pathPrefix: /nobody, service: nobody, jails: [web] }}
  - {{ service: app, jails: [web] }}
services:
  app: {{ servers: [{{ url: "http://127.0.0.1:{origin}" }}] }}
  nobody: {{ servers: [{{ url: "http://127.0.0.1:{nobody}" }}] }}
  loop: # this very program again, over TLS and HTTP/2
    servers: [{{ url: "https://127.0.0.1:{tls}" }}]
    passHostHeader: false
    serversTransport: {{ insecureSkipVerify: true }}
forwardAuth: {{ address: "127.0.0.1:{auth}", trustedIPs: ["127.0.0.0/8"] }}
jails:
  web:
    allowlist: {{ ip: ["10.0.0.0/8"], files: [allow.txt] }}
    denylist: {{ ip: ["192.0.2.0/24"], files: [deny.txt] }}
    rules:
      findtime: "10m"
      bantime: "3h"
      maxretry: 5
      statuscode: "400,401,403-499"
      urlregexps:
{rules}
admin: {{ address: "127.0.0.1:{admin}" }}
state: {{ path: "state.db" }}
log: {{ level: error }}
"""

AGENTS = ["Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "curl/8.5.0",
          "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile/15E148 Safari/604.1"]
PATHS = ["/", "/articles/2026/on-proxies?page=2", "/static/app.3f9c1e.js", "/api/v1/items/4711", "/images/a%20b.png",
         "/search?q=reverse+proxy&sort=date", "/favicon.ico"]
SCANS = ["/wp-login.php", "/.env", "/phpmyadmin/index.php", "/vendor/phpunit/eval-stdin.php", "/cgi-bin/a.cgi"]


class Origin:
    """A server of small pages, of large ones, of chunks, of errors, and of what it is sent."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.small = b"x" * 1024
        self.large = random.Random(1).randbytes(256 * 1024)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection, connection.makefile("rb", 65536) as reader:
            try:
                while line := reader.readline():
                    self.answer(connection, reader, line.split()[1])
            except OSError:
                return

    def answer(self, connection, reader, target):
        length, chunked = 0, False
        while (line := reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            chunked |= name.lower() == b"transfer-encoding"
        reader.read(length)
        while chunked and (size := int(reader.readline(), 16)) is not None:
            reader.read(size + 2)
            if size == 0:
                break
        connection.sendall(self.response(target))

    def response(self, target):
        path = target.partition(b"?")[0]
        status, body, more = b"200 OK", self.small, b"ETag: \"4711\"\r\nCache-Control: max-age=60\r\nVary: Accept-Encoding\r\n"
        if path.startswith((b"/wp-", b"/.env", b"/missing", b"/vendor")):
            status, body, more = b"404 Not Found", b"nothing here", b"X-Content-Type-Options: nosniff\r\n"
        elif path == b"/login":
            status, body, more = b"401 Unauthorized", b"", b"WWW-Authenticate: Basic\r\nSet-Cookie: session=none; Path=/\r\n"
        elif path == b"/large":
            body = self.large
        elif path == b"/moved":
            status, body, more = b"302 Found", b"", b"Location: /\r\n"
        head = (b"HTTP/1.1 " + status + b"\r\nServer: nginx\r\nDate: Sat, 21 Nov 2026 08:00:00 GMT\r\nContent-Type: text/html\r\n"
                + b"Last-Modified: Fri, 20 Nov 2026 08:00:00 GMT\r\nAccept-Ranges: bytes\r\n" + more + b"Connection: keep-alive\r\n")
        if path == b"/chunks":
            pieces = b"".join(b"%x\r\n%s\r\n" % (len(self.small), self.small) for _ in range(8))
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Client:
    """One connection and the browser behind it."""

    def __init__(self, seed, port, host="app.example", tls=False):
        self.draw, self.port, self.host, self.tls = random.Random(seed), port, host, tls
        self.connection = None

    def address(self):
        return f"{self.draw.randint(20, 150)}.{self.draw.randint(0, 255)}.{self.draw.randint(0, 255)}.{self.draw.randint(1, 254)}"

    def ask(self, target, method="GET", body=None, client=None, **more):
        headers = {"Host": self.host, "User-Agent": self.draw.choice(AGENTS), "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
                   "Accept-Language": "en-US,en;q=0.5", "Accept-Encoding": "gzip, deflate, br",
                   "Cookie": "session=" + "0123456789abcdef" * 2, "X-Forwarded-For": client or self.address(), **more}
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            self.connection.connect()
            if self.tls:
                self.connection.sock = UNVERIFIED.wrap_socket(self.connection.sock, server_hostname=self.host)
        self.connection.request(method, target, body=body, headers=headers, encode_chunked=hasattr(body, "__next__"))
        answer = self.connection.getresponse()
        answer.read()
        if answer.will_close:
            self.close()
        return answer.status

    def close(self):
        self.connection.close()
        self.connection = None


UNVERIFIED = ssl.create_default_context()
UNVERIFIED.check_hostname, UNVERIFIED.verify_mode = False, ssl.CERT_NONE


def pages(client, count):
    for _ in range(count):
        expect(client.ask(client.draw.choice(PATHS)), 200)


def bodies(client, count):
    for number in range(count):
        expect(client.ask("/large"), 200)
        expect(client.ask("/chunks"), 200)
        expect(client.ask("/api/v1/items", "POST", b"{}" * 200), 200)
        if number % 4 == 0:
            expect(client.ask("/upload", "PUT", (b"y" * 16384 for _ in range(8))), 200)
            expect(client.ask("/moved", "HEAD"), 302)


def visits(client, count):
    """A connection each."""
    for _ in range(count):
        expect(client.ask(client.draw.choice(PATHS), Connection="close"), 200)


def questions(client, count):
    for _ in range(count):
        more = {"X-Forwarded-Method": "GET", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "app.example",
                "X-Forwarded-Uri": client.draw.choice(PATHS)}
        expect(client.ask("/forward-auth/web", **more), 200)


def attacks(client, count):
    """Failures, then the ban; scans that a rule bans; a service that is down."""
    for _ in range(count):
        attacker = client.address()
        for target in ["/login", "/missing"] * 3 + [client.draw.choice(SCANS)] * 4:
            expect(client.ask(target, client=attacker), 401, 403, 404)
        expect(client.ask("/nobody"), 502, 503)
        expect(client.ask("/", client="192.0.2.7"), 403)
        expect(client.ask("/login", client="10.1.2.3"), 401)


def expect(status, *wanted):
    if status not in wanted:
        raise SystemExit(f"an answer of {status} where one of {wanted} was due")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def configure(directory, origin):
    names = ["wp-admin", "phpmyadmin", "cgi-bin", "vendor/phpunit", "solr/admin", "boaform", "actuator", "HNAP1", "owa/auth",
             "manager/html", "console/login", "_ignition", "telescope", "geoserver"]
    shapes = ["^/{}(/|$)", "^/[^/]+/{}/", "/{}/[0-9]+$", "{}.*(union|select)", "^/old/{}[.]php$", "/{}[?].*cmd="]
    rules = "\n".join(f"        - {{ regexp: '{shape.format(name)}', mode: block }}" for shape in shapes for name in names)
    draw = random.Random(7)
    for name in ("allow.txt", "deny.txt"):
        lines = (f"{draw.randint(160, 223)}.{draw.randint(0, 255)}.{draw.randint(0, 255)}.0/28" for _ in range(1000))
        (directory / name).write_text("\n".join(lines) + "\n")
    ports = {name: free_port() for name in ("web", "tls", "auth", "admin", "nobody")}
    conf = directory / "jailgate.yaml"
    conf.write_text(CONF.format(rules=rules, origin=origin.port, **ports))
    return conf, ports


def logs(directory, lines):
    """Traefik's and nginx's lines of the same kind of day, as (format, file)."""
    draw, begin = random.Random(3), 1_795_000_000
    formats = {"traefik-json": directory / "traefik.log", "combined": directory / "nginx.log"}
    with formats["traefik-json"].open("w") as traefik, formats["combined"].open("w") as nginx:
        for number in range(lines):
            client = f"{draw.randint(20, 150)}.{draw.randint(0, 255)}.{draw.randint(0, 3)}.{draw.randint(1, 254)}"
            status, target = (401, "/login") if draw.random() < 0.2 else (200, draw.choice(PATHS))
            at = time.gmtime(begin + number // 100)
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", at)
            line = {"ClientAddr": f"{client}:4711", "ClientHost": client, "ClientPort": "4711", "ClientUsername": "-",
                    "DownstreamContentSize": 1024, "DownstreamStatus": status, "Duration": 812345, "OriginContentSize": 1024,
                    "OriginDuration": 712345, "OriginStatus": status, "Overhead": 100000, "RequestAddr": "app.example",
                    "RequestContentSize": 0, "RequestCount": number, "RequestHost": "app.example", "RequestMethod": "GET",
                    "RequestPath": target, "RequestPort": "-", "RequestProtocol": "HTTP/1.1", "RequestScheme": "https",
                    "RetryAttempts": 0, "RouterName": "app@docker", "ServiceAddr": "172.18.0.3:80", "ServiceName": "app@docker",
                    "StartUTC": stamp, "entryPointName": "websecure", "level": "info", "msg": "",
                    "request_User-Agent": draw.choice(AGENTS), "time": stamp}
            traefik.write(json.dumps(line, separators=(",", ":")) + "\n")
            moment = time.strftime("%d/%b/%Y:%H:%M:%S +0000", at)
            nginx.write(f'{client} - - [{moment}] "GET {target} HTTP/1.1" {status} 1024 "-" "{draw.choice(AGENTS)}"\n')
    return formats.items()


def drive(ports, share):
    """Every kind of work, on sixteen connections at once. `share` scales the numbers of requests."""
    web, tls, auth = ports["web"], ports["tls"], ports["auth"]
    kinds = [(pages, web, 1500, {})] * 8 + [(questions, auth, 2000, {})] * 6 + [(visits, web, 2500, {})] * 4 + [
        (bodies, web, 80, {}), (bodies, web, 80, {}), (attacks, web, 120, {})] + [(pages, web, 700, {"host": "loop.example"})] * 4 + [
        (bodies, web, 40, {"host": "loop.example"}), (pages, tls, 1000, {"tls": True}), (visits, tls, 150, {"tls": True})]
    with ThreadPoolExecutor(16) as pool:
        jobs = [pool.submit(kind, Client(seed, port, **more), max(1, int(count * share)))
                for seed, (kind, port, count, more) in enumerate(kinds)]
        for job in jobs:
            job.result()


def wait_for(port, child):
    for _ in range(600):
        if child.poll() is not None:
            raise SystemExit(f"the program ended with {child.returncode} before it served")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("the program does not listen")


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("program", type=Path, help="jailgate, built to count")
    args.add_argument("--share", type=float, default=1.0, help="of the usual number of requests")
    args = args.parse_args()
    program, origin = args.program.resolve(), Origin()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        conf, ports = configure(directory, origin)
        child = subprocess.Popen([program, "run", "--config", conf], cwd=directory)
        try:
            wait_for(ports["auth"], child)
            wait_for(ports["admin"], child)
            drive(ports, args.share)
            admin = Client(0, ports["admin"], host=f"127.0.0.1:{ports['admin']}")
            for _ in range(20):
                expect(admin.ask("/metrics"), 200)
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(60)
        for form, log in logs(directory, int(8_000 * args.share) + 1):
            subprocess.run([program, "replay", "--config", conf, "--format", form, log], cwd=directory, check=True,
                           stdout=subprocess.DEVNULL)
    if child.returncode != 0:
        raise SystemExit(f"the program ended with {child.returncode}: its counts are not whole")


if __name__ == "__main__":
    main()
