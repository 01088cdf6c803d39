"""jailgate as a contender: its configurations, bare and with everything on, and how it is started.

Both are the shipped program, `jailgate run`, as `make release` builds it. Everything on takes a
million outside decisions in by its own CrowdSec subscription, from a stand-in for the LAPI; bare has
a route, no jail and no decision.
"""
import hashlib
import os
import random
import re
import subprocess
import time
import urllib.request
from functools import cache
from pathlib import Path

from rig.lapi import KEY, Lapi
from rig.process import ROOT, Child, free_port, wait_for_port
from rig.servers import Server, certificate

DECISIONS = 1_000_000

MANY = "    http: { maxConnections: 0, maxConnectionsPerClient: 0 }\n    transport: { respondingTimeouts: { idleTimeout: 900s } }"

# Connections kept to the origin by each worker, as many as nginx's keepalive does.
POOLED = 512
SERVICES = """services:
  app:
    servers: [{{ url: "http://127.0.0.1:{upstream}" }}]
    serversTransport: {{ maxIdleConnsPerHost: POOLED }}
""".replace("POOLED", str(POOLED))

BARE = """
entryPoints:
  web:
    address: "127.0.0.1:{port}"
    forwardedHeaders: {{ trustedIPs: ["127.0.0.0/8"] }}
{limits}
{tls}
routes:
  - service: app
    jails: []
""" + SERVICES + """admin: {{ address: "127.0.0.1:{admin}" }}
state: {{ path: "" }}
log: {{ level: warn }}
"""

EVERYTHING = """
entryPoints:
  web:
    address: "127.0.0.1:{port}"
    forwardedHeaders: {{ trustedIPs: ["127.0.0.0/8"] }}
{tls}
routes:
  - service: app
    jails: [web]
""" + SERVICES + """forwardAuth:
  address: "127.0.0.1:{auth}"
  trustedIPs: ["127.0.0.0/8"]
{auth_tls}
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
{crowdsec}
admin: {{ address: "127.0.0.1:{admin}" }}
state: {{ path: "" }}
limits: {{ trackedClients: 2000000, bans: 2000000 }}
log: {{ level: warn }}
"""


# No poll after the first falls into a bench.
CROWDSEC = 'crowdsec: {{ url: "{url}", subscribe: {{ apiKey: "{key}", interval: 1h }} }}'


@cache
def product():
    """The program that users get: `make release`, which knows whether it has to build. JAILGATE names another."""
    if given := os.environ.get("JAILGATE"):
        return str(Path(given).resolve(strict=True))
    subprocess.run(["make", "--no-print-directory", "release"], cwd=ROOT, check=True)
    return str((ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "pgo" / "jailgate").resolve(strict=True))


def measured():
    """For the head of a table: which program it was, and how it was built."""
    program = Path(product())
    how = "given as JAILGATE, built as whoever gave it did" if os.environ.get("JAILGATE") else "built by `make release` (profile-guided)"
    shown = program.relative_to(ROOT) if program.is_relative_to(ROOT) else program
    digest = hashlib.sha256(program.read_bytes()).hexdigest()[:12]
    return f"the program measured: `{shown} run`, {how}, sha256 {digest}…"


def url_rules(count=100):
    """Patterns as scanners' targets suggest them; none matches what the benches ask for."""
    names = ["wp-admin", "phpmyadmin", "cgi-bin", "vendor/phpunit", "solr/admin", "boaform", "actuator", "HNAP1",
             "autodiscover", "owa/auth", "manager/html", "console/login", "_ignition", "telescope", "geoserver"]
    shapes = ["^/{}(/|$)", "^/[^/]+/{}/", "/{}/[0-9]+$", "{}.*(union|select)", "^/old/{}[.]php$", "^/backup/{}[.](zip|tar|gz)$",
              "/{}[?].*cmd="]
    patterns = [shape.format(name) for shape in shapes for name in names][:count]
    return "\n".join(f"        - {{ regexp: '{p}', mode: {'allow' if i % 10 == 9 else 'block'} }}"
                     for i, p in enumerate(patterns))


def write_lists(directory, entries=1000):
    """Lists that name no client of the load (those never end in .0 or .255)."""
    draw = random.Random(7)
    for name in ("allow.txt", "deny.txt"):
        (directory / name).write_text("# generated\n" + "\n".join(
            f"{draw.randint(11, 223)}.{draw.randint(0, 255)}.{draw.randint(0, 255)}.{draw.choice((0, 255))}"
            for _ in range(entries)) + "\n")


def tls_block(directory, tls, indent=4):
    cert, key, _ = certificate(directory)
    return f'{" " * indent}tls: {{ certFile: "{cert}", keyFile: "{key}" }}' if tls else ""


def gauge(admin, name):
    """The sum of a metric over its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}[ {{]", line))


def admin_port(directory, name):
    """The admin listener's port, as written in the contender's configuration."""
    return int(re.search(r"admin: .*:(\d+)", (directory / f"{name}.yaml").read_text()).group(1))


def bare(directory, name, upstream, tls=False, many=False):
    """`many` lifts the limit on connections."""
    port, conf = free_port(), directory / f"{name}.yaml"
    limits = MANY if many else ""
    conf.write_text(BARE.format(port=port, upstream=upstream, admin=free_port(), tls=tls_block(directory, tls), limits=limits))
    child = Child(name, [product(), "run", "-c", str(conf)], directory)
    wait_for_port(port, child)
    return Server(child, port)


@cache
def lapi(directory, decisions):
    """One stand-in, and one body of its answer, for every contender of a bench."""
    return Lapi(directory, decisions)


def wait_for_decisions(child, admin, decisions, patience=180):
    """Until all are in force: it listens before its first pull is over."""
    end, held = time.monotonic() + patience, 0
    while time.monotonic() < end and child.alive():
        if (held := gauge(admin, "jailgate_bans_active")) >= decisions:
            return
        time.sleep(0.2)
    raise SystemExit(f"{child.name} holds {held:,.0f} of {decisions:,} decisions:\n{child.log.read_text(errors='replace')[-2000:]}")


def wait_until_idle(child, patience=90):
    """Telling the ledger's followers goes on after decisions are in force."""
    end, before = time.monotonic() + patience, -1.0
    while time.monotonic() < end and child.cpu() - before > 0.02:
        before = child.cpu()
        time.sleep(1)


def everything(directory, name, upstream, tls=False, decisions=DECISIONS):
    """Answers (the proxy, its forwardAuth listener); both are one process."""
    write_lists(directory)
    port, auth, admin, conf = free_port(), free_port(), free_port(), directory / f"{name}.yaml"
    crowdsec = CROWDSEC.format(url=lapi(directory, decisions).url, key=KEY)
    conf.write_text(EVERYTHING.format(port=port, upstream=upstream, auth=auth, admin=admin, rules=url_rules(), crowdsec=crowdsec,
                                      tls=tls_block(directory, tls), auth_tls=tls_block(directory, tls, 2)))
    child = Child(name, [product(), "run", "-c", str(conf)], directory)
    wait_for_port(port, child)
    wait_for_port(admin, child)
    wait_for_decisions(child, admin, decisions)
    wait_until_idle(child)
    return Server(child, port), Server(child, auth)
