"""What is compared and how each is configured: same origin, same work, access logs off everywhere.

Each contender is a function that starts it and answers a `Server`; the rows that use them are in
`peers`. Two workers each, pinned where the server can pin.
"""
import os
import subprocess
from dataclasses import dataclass

from rig.process import Child, free_port, wait_for_port

WORKERS = os.cpu_count() or 2


@dataclass
class Server:
    """A running contender and the port it answers on."""

    child: Child
    port: int

    def url(self, tls=False):
        return f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"


def certificate(directory):
    """A self-signed pair for every contender alike (P-256), as (cert, key, haproxy's pem)."""
    cert, key, both = (directory / name for name in ("cert.pem", "key.pem", "both.pem"))
    if not both.exists():
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=bench.example",
                        "-addext", "subjectAltName=DNS:bench.example,IP:127.0.0.1"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        both.write_text(cert.read_text() + key.read_text())
    return cert, key, both


NGINX = """
user root; daemon off; pid {dir}/{name}.pid; error_log stderr error; worker_processes {workers}; {affinity}
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_timeout 300s; keepalive_requests 100000000; server_tokens off;
  client_body_temp_path {dir}/{name}.body; proxy_temp_path {dir}/{name}.proxy; fastcgi_temp_path {dir}/{name}.f;
  uwsgi_temp_path {dir}/{name}.u; scgi_temp_path {dir}/{name}.s; ssl_session_tickets on;
{http}
}}
"""


def nginx(directory, name, http, workers=WORKERS, affinity="worker_cpu_affinity auto;"):
    """A foreground nginx with `http` as the inside of its http block; `@PORT@` is its port."""
    port = free_port()
    conf = directory / f"{name}.conf"
    conf.write_text(NGINX.format(dir=directory, name=name, workers=workers, affinity=affinity,
                                 http=http.replace("@PORT@", str(port))))
    child = Child(name, ["nginx", "-p", str(directory), "-c", str(conf)], directory)
    wait_for_port(port, child)
    return Server(child, port)


def origin(directory):
    """One nginx worker: /1k, /100k and /1m from files in memory, the rest by status."""
    root = directory / "root"
    root.mkdir(exist_ok=True)
    for name, size in (("1k", 1024), ("100k", 100 * 1024), ("1m", 1024 * 1024)):
        (root / name).write_bytes(os.urandom(size // 2).hex().encode())
    return nginx(directory, "origin", f"""
  sendfile on; tcp_nopush on; open_file_cache max=100 inactive=600s; open_file_cache_valid 600s; etag off;
  server {{ listen 127.0.0.1:@PORT@ backlog=4096; root {root};
    location / {{ add_header X-Origin yes always; default_type application/octet-stream; }}
    location = /wp-login.php {{ add_header X-Origin yes always; return 401; }}
    location /page/ {{ add_header X-Origin yes always; return 200 "a page\\n"; }} }}
""", workers=1, affinity="")


def nginx_proxy(directory, name, upstream, tls=False, buffers="", listener=" reuseport"):
    """nginx with a kept-alive upstream; default buffers unless `buffers` says otherwise.

    With `reuseport` each pinned worker has a listener of its own and connections spread, as
    jailgate's and HAProxy's do. Without, one worker accepts all that come at once and the other
    sits idle: a one-core nginx, which batches better and peaks lower. `deferred` is what jailgate
    does by itself: a connection is accepted when its first bytes are there.
    """
    cert, key, _ = certificate(directory)
    listen = f"ssl http2 backlog=4096; ssl_certificate {cert}; ssl_certificate_key {key}" if tls else "backlog=4096"
    return nginx(directory, name, f"""
  upstream origin {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 100000000; keepalive_timeout 300s; }}
  server {{ listen 127.0.0.1:@PORT@{listener} {listen};
    location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Real-Ip $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
      {buffers} }} }}
""")


TUNED = "proxy_buffers 16 64k; proxy_buffer_size 64k; proxy_busy_buffers_size 128k;"


def nginx_return(directory, name, tls=False):
    """What a forwardAuth answer is compared with: nginx's shortest answer."""
    cert, key, _ = certificate(directory)
    listen = f"ssl http2; ssl_certificate {cert}; ssl_certificate_key {key}" if tls else ""
    return nginx(directory, name, f"""
  server {{ listen 127.0.0.1:@PORT@ reuseport {listen}; location / {{ return 200; }} }}
""")


def nginx_return_h2c(directory, name):
    """The same, HTTP/2 by prior knowledge."""
    return nginx(directory, name, "  server { listen 127.0.0.1:@PORT@ reuseport http2; location / { return 200; } }")


HAPROXY = """
global
  nbthread {workers}
  cpu-map auto:1/1-{workers} 0-{last}
  maxconn 4000
  {tune}
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 60s
  option http-keep-alive
  http-reuse always
  {options}
frontend in
  bind 127.0.0.1:{port} backlog 4096 {bind}
  {body}
"""


def haproxy(directory, name, upstream, tls=False, splice=False, answer=False):
    """HAProxy; `splice` adds kernel splicing and 64 KiB buffers, `answer` replies by itself."""
    port = free_port()
    body = "http-request return status 200" if answer else "default_backend origin"
    text = HAPROXY.format(
        workers=WORKERS, last=WORKERS - 1, port=port, body=body,
        tune="tune.bufsize 65536" if splice else "",
        options="option splice-auto" if splice else "",
        bind=f"ssl crt {certificate(directory)[2]} alpn h2,http/1.1" if tls else "")
    if not answer:
        text += f"backend origin\n  option forwardfor\n  server o 127.0.0.1:{upstream} pool-max-conn 512\n"
    conf = directory / f"{name}.cfg"
    conf.write_text(text)
    child = Child(name, ["haproxy", "-db", "-f", str(conf)], directory)
    wait_for_port(port, child)
    return Server(child, port)


def caddy(directory, name, upstream, tls=False, answer=False):
    """Caddy with its admin endpoint off and two threads."""
    port = free_port()
    cert, key, _ = certificate(directory)
    scheme, certs = ("https", f"tls {cert} {key}") if tls else ("http", "")
    body = "respond 200" if answer else f"reverse_proxy 127.0.0.1:{upstream} {{\n transport http {{\n keepalive_idle_conns 512\n keepalive_idle_conns_per_host 512\n }}\n }}"
    conf = directory / f"{name}.Caddyfile"
    site = f"{scheme}://127.0.0.1:{port}, {scheme}://bench.example:{port}" if tls else f"http://:{port}"
    conf.write_text(f"{{\n admin off\n auto_https off\n log {{\n level ERROR\n }}\n}}\n{site} {{\n bind 127.0.0.1\n {certs}\n {body}\n}}\n")
    env = {**os.environ, "GOMAXPROCS": str(WORKERS), "HOME": str(directory), "XDG_DATA_HOME": str(directory)}
    child = Child(name, ["caddy", "run", "--adapter", "caddyfile", "--config", str(conf)], directory, env=env)
    wait_for_port(port, child)
    return Server(child, port)
