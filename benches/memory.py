#!/usr/bin/env python3
"""`make bench-memory`: RSS idle, with a million outside decisions, with a million tracked clients,
and with as many idle connections as this machine lets one process hold. Writes results/memory.md.
"""
import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from rig import jailgate, load, process, servers  # noqa: E402

RESULTS = Path(__file__).parent / "results"
# Every request another client; `at` is the thread's alone (wrk runs with one).
DISTINCT = """
local at = tonumber(os.getenv("BENCH_FROM"))
function request()
  at = at + 1
  local n = at % 1000000
  return "GET /missing HTTP/1.1\\r\\nHost: bench.example\\r\\nX-Forwarded-For: 51." .. math.floor(n / 65536) .. "." .. math.floor(n / 256) % 256 .. "." .. n % 256 .. "\\r\\n\\r\\n"
end
"""
HOLDER = """
import socket, sys
port, count, first = map(int, sys.argv[1:])
held = []
for n in range(count):
    s = socket.socket()
    s.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: a port per destination, not per host
    s.bind((f"127.{first + n // 10000}.{n // 250 % 40}.{n % 250 + 1}", 0))
    s.connect(("127.0.0.1", port))
    s.sendall(b"GET /1k HTTP/1.1\\r\\nHost: bench.example\\r\\nX-Forwarded-For: 51.2.3.4\\r\\n\\r\\n")
    held.append(s)
for s in held:
    s.settimeout(20)
    assert s.recv(4096).startswith(b"HTTP/1.1 200"), "not answered"
print("held", len(held), flush=True)
sys.stdin.readline()
"""


def settled(server, seconds=3):
    time.sleep(seconds)
    return server.child.rss()


def tracked(directory, upstream):
    """RSS before and after a million clients failed once each."""
    server, _ = jailgate.everything(directory, "tracked", upstream, decisions=0)
    before = settled(server)
    script = directory / "distinct.lua"
    script.write_text(DISTINCT)
    began, admin = time.time(), jailgate.admin_port(directory, "tracked")
    while (held := jailgate.gauge(admin, "jailgate_tracked_clients")) < 990_000 and time.time() - began < 180:
        # goes on where the last run ended: a client that fails twice is no new one
        subprocess.run(["wrk", "-t1", "-c64", "-d10s", "-s", str(script), server.url()], stdout=subprocess.DEVNULL,
                       env={**os.environ, "BENCH_FROM": str(int(held))}, check=True)
    count, after = jailgate.gauge(admin, "jailgate_tracked_clients"), settled(server)
    server.child.stop()
    return before, after, count


def connections(directory, upstream, wanted):
    """RSS with idle kept-alive connections; the clients are processes of at most 10,000 each."""
    server = jailgate.bare(directory, "held", upstream, many=True)
    before, holders, held = settled(server), [], 0
    script = directory / "holder.py"
    script.write_text(HOLDER)
    while held < wanted:
        part = min(10_000, wanted - held)
        holder = subprocess.Popen([sys.executable, str(script), str(server.port), str(part), str(10 + held // 10_000)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        holders.append(holder)
        if not holder.stdout.readline().startswith("held"):
            print("a holder gave up:", holder.stderr.read()[-300:])
            break
        held += part
    after = settled(server)
    for holder in holders:
        holder.stdin.close()
        holder.wait(20)
    released = settled(server)
    server.child.stop()
    return before, after, held, released


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--connections", type=int, default=100_000)
    args.add_argument("--dry", action="store_true")
    args = args.parse_args()
    process.need(nginx="nginx-light", openssl="openssl", wrk="wrk")
    limit = process.raise_open_files()
    jailgate.product()
    directory = process.scratch("memory")
    upstream = servers.origin(directory).port
    bare = jailgate.bare(directory, "bare", upstream)
    idle = settled(bare)
    load.wrk(directory, bare.url(), 3, 64, "/1k")
    warm = settled(bare)
    bare.child.stop()
    full, _ = jailgate.everything(directory, "full", upstream)
    million = settled(full, 6)
    full.child.stop()
    before, after, count = tracked(directory, upstream)
    # the gate keeps some descriptors for itself and for its upstream pool
    wanted = min(args.connections, limit - 1_500)
    alone, holding, held, released = connections(directory, upstream, wanted)
    rows = [("idle, one route, no jail", idle, ""), ("the same after 3 s of load", warm, ""),
            (f"everything on, {jailgate.DECISIONS:,} outside decisions, idle", million, ""),
            ("everything on, no decisions, idle", before, ""),
            (f"… and {count:,.0f} tracked clients", after, f"{(after - before) * 1048576 / max(count, 1):.0f} bytes each"),
            ("before the connections", alone, ""),
            (f"{held:,} idle keep-alive connections", holding, f"{(holding - alone) * 1024 / max(held, 1):.1f} KiB each; the limit here is {limit:,} descriptors a process"),
            ("after they closed", released, "")]
    out = ["# Memory", "", *(f"- {line}" for line in process.machine()), f"- {jailgate.measured()}", f"- {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}; RSS from /proc", "",
           "| state | RSS MB | |", "|---|---|---|", *(f"| {name} | {rss:.1f} | {note} |" for name, rss, note in rows), ""]
    print("\n".join(out))
    if not args.dry:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "memory.md").write_text("\n".join(out))


if __name__ == "__main__":
    main()
