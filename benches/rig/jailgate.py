"""jailgate as a contender: its configurations, bare and with everything on, and how it is started.

Everything on is the product's own `App` with a million outside decisions taken in through
`Engine::apply` (`benches/rig/everything.rs`); bare is the same program with a route, no jail and no
decision.
"""
import random
import re
import time
from functools import cache

from rig.process import Child, cargo_build, free_port, wait_for_port
from rig.servers import Server, certificate

DECISIONS = 1_000_000

MANY = "    http: { maxConnections: 0, maxConnectionsPerClient: 0 }\n    transport: { respondingTimeouts: { idleTimeout: 900s } }"

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
services:
  app: {{ servers: [{{ url: "http://127.0.0.1:{upstream}" }}] }}
admin: {{ address: "127.0.0.1:{admin}" }}
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
services:
  app: {{ servers: [{{ url: "http://127.0.0.1:{upstream}" }}] }}
forwardAuth:
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
admin: {{ address: "127.0.0.1:{admin}" }}
state: {{ path: "" }}
limits: {{ trackedClients: 2000000, bans: 2000000 }}
log: {{ level: warn }}
"""


@cache
def product():
    """`jailgate`, built in the release profile."""
    return cargo_build("--bin", "jailgate")["jailgate"]


@cache
def preloaded():
    """The product's `App` behind an argument: how many decisions to take in first."""
    return cargo_build("--bench", "everything")["everything"]


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


def admin_port(directory, name):
    """The admin listener's port, as written in the contender's configuration."""
    return int(re.search(r"admin: .*:(\d+)", (directory / f"{name}.yaml").read_text()).group(1))


def bare(directory, name, upstream, tls=False, many=False):
    """`many` lifts the limit on connections."""
    port, conf = free_port(), directory / f"{name}.yaml"
    limits = MANY if many else ""
    conf.write_text(BARE.format(port=port, upstream=upstream, admin=free_port(), tls=tls_block(directory, tls), limits=limits))
    child = Child(name, [preloaded(), str(conf), "0"], directory)
    wait_for_port(port, child)
    return Server(child, port)


def wait_until_idle(child, patience=90):
    """Taking a million decisions in, and telling the ledger's followers, goes on after it listens."""
    end, before = time.monotonic() + patience, -1.0
    while time.monotonic() < end and child.cpu() - before > 0.02:
        before = child.cpu()
        time.sleep(1)


def everything(directory, name, upstream, tls=False, decisions=DECISIONS):
    """Answers (the proxy, its forwardAuth listener); both are one process."""
    write_lists(directory)
    port, auth, conf = free_port(), free_port(), directory / f"{name}.yaml"
    conf.write_text(EVERYTHING.format(port=port, upstream=upstream, auth=auth, admin=free_port(), rules=url_rules(),
                                      tls=tls_block(directory, tls), auth_tls=tls_block(directory, tls, 2)))
    child = Child(name, [preloaded(), str(conf), str(decisions)], directory)
    wait_for_port(port, child)
    wait_until_idle(child)
    return Server(child, port), Server(child, auth)
