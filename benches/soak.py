#!/usr/bin/env python3
"""`make soak`: mixed traffic, reloads and bans for SOAK seconds; fails when memory or descriptors grow.

Thousands of clients fail, are banned for five seconds and come back, over and over.

The first half is warm-up: the ring of evidence takes about 210 seconds to fill, and allocators' pools
their time to meet the worst mix. Memory is flat when the line through the later samples rises by less
than 3 % of the resident size, or 2 MB, over the whole soak.
"""
import argparse
import signal
import sys
import time
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parent))
from rig import jailgate, load, process, servers  # noqa: E402

RESULTS = Path(__file__).parent / "results"


def slope(samples):
    """MB per second through (time, MB) samples, least squares."""
    at, size = mean(t for t, _ in samples), mean(m for _, m in samples)
    spread = sum((t - at) ** 2 for t, _ in samples)
    return sum((t - at) * (m - size) for t, m in samples) / spread if spread else 0.0


def slices(directory, server):
    """One of each kind of traffic, two seconds each."""
    yield lambda: load.wrk(directory, server.url(), 2, 64, "/1k")
    yield lambda: load.wrk(directory, server.url(), 2, 64, "/missing")
    yield lambda: load.wrk(directory, server.url(), 2, 32, "/1k", close=True)
    yield lambda: load.wrk(directory, server.url(), 2, 64, "/100k")
    yield lambda: load.h2load(directory, server.url() + "/1k", 2, 32)
    yield lambda: load.wrk(directory, server.url(), 2, 400, "/1k")


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--seconds", type=int, default=600)
    args.add_argument("--dry", action="store_true")
    args = args.parse_args()
    process.need(nginx="nginx-light", openssl="openssl", wrk="wrk", h2load="nghttp2-client")
    process.raise_open_files()
    directory = process.scratch("soak")
    upstream = servers.origin(directory).port
    jailgate.EVERYTHING = jailgate.EVERYTHING.replace('bantime: "3h"', 'bantime: "5s"').replace('findtime: "10m"', 'findtime: "30s"')
    server, _ = jailgate.everything(directory, "soak", upstream, decisions=100_000)
    time.sleep(2)
    began, fds_before, samples = time.time(), server.child.fds(), []
    number = requests = banned = 0
    while time.time() - began < args.seconds:
        for traffic in slices(directory, server):
            run = traffic()
            requests, banned = requests + run["requests"], banned + run["bad"]
        server.child.signal(signal.SIGHUP)
        number += 1
        samples.append((time.time() - began, server.child.rss()))
        print(f"{samples[-1][0]:6.0f} s  {samples[-1][1]:7.1f} MB  {server.child.fds()} fds", flush=True)
        if not server.child.alive():
            raise SystemExit(f"jailgate ended: {server.child.log.read_text()[-2000:]}")
    time.sleep(5)
    fds_after = server.child.fds()
    late = [sample for sample in samples if sample[0] > args.seconds / 2] or samples
    growth = slope(late) * args.seconds
    flat = growth < max(2.0, mean(m for _, m in late) * 0.03)
    # connections to the origin stay pooled, at most so many a server and worker as the configuration says
    closed = fds_after - fds_before <= jailgate.POOLED * servers.WORKERS
    out = ["# Soak", "", *(f"- {line}" for line in process.machine()), f"- {jailgate.measured()}",
           f"- {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, {args.seconds} s, {requests:,} requests, {number} reloads, {banned:,} requests denied or not found",
           f"- RSS: first {samples[0][1]:.1f} MB, after the warm-up {late[0][1]:.1f} MB, last {samples[-1][1]:.1f} MB; the line through the later samples changes by {growth:+.2f} MB over the soak: {'flat' if flat else '**not flat**'}",
           f"- open descriptors: {fds_before} before, {fds_after} five seconds after the load: {'released' if closed else '**not released**'}", ""]
    print("\n".join(out))
    if not args.dry:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "soak.md").write_text("\n".join(out))
    if not (flat and closed):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
