#!/usr/bin/env python3
"""`make bench-peers`: jailgate beside nginx, HAProxy and Caddy, interleaved, on loopback.

One group is one kind of work; its contenders run in turn within every round, so that whatever
else the machine does hits all of them. jailgate is the shipped program, see `rig.jailgate`. Writes benches/results/peers.{md,svg,json}.
"""
import argparse
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from rig import jailgate, load, process, report, servers  # noqa: E402

RESULTS = Path(__file__).parent / "results"
AUTH = "X-Forwarded-Method: GET|X-Forwarded-Proto: http|X-Forwarded-Host: bench.example|X-Forwarded-Uri: /page/1|"
AUTH_H2 = [line.lower() for line in AUTH.split("|") if line]
# A round is off by 7 %. Where a line is a few per cent from its figure, those it compares are
# measured in more rounds than the others.
MORE = 6


class Group:
    """One kind of work: its contenders, how each is driven, and who of them takes part in `MORE` times the rounds."""

    def __init__(self, name, base, contenders, path="/1k", connections=64, tls=False, h2=False, close=False, auth=False, more=()):
        self.name, self.base, self.contenders, self.more = name, base, contenders, more
        self.path, self.connections, self.tls, self.h2, self.close, self.auth = path, connections, tls, h2, close, auth

    def rounds(self, number):
        """Who takes part in each round."""
        every = list(self.contenders)
        return [every] * number + [[name for name in every if name in self.more]] * (number * (MORE - 1) if self.more else 0)

    def drive(self, directory, name, server, seconds):
        """One measurement; CPU is the contender's own, over all its threads and workers."""
        path = "/forward-auth/web" if self.auth and "jailgate" in name else self.path
        before = server.child.cpu()
        if self.h2:
            run = load.h2load(directory, server.url(self.tls) + path, seconds, min(self.connections, 64),
                              headers=AUTH_H2 if self.auth else ())
        else:
            run = load.wrk(directory, server.url(self.tls), seconds, self.connections, path, AUTH if self.auth else "", self.close)
        run["cpu"] = (server.child.cpu() - before) / max(run["requests"], 1) * 1e6
        run["rps"] = run["requests"] / run["seconds"]
        run["rss"] = server.child.rss()
        return run


def proxies(directory, upstream, tls=False, big=False):
    """Everybody who proxies; `big` adds the rows tuned for large bodies."""
    tag = "-tls" if tls else ""
    found = {"nginx": servers.nginx_proxy(directory, f"nginx{tag}", upstream, tls)}
    if not tls:
        found["nginx one listener"] = servers.nginx_proxy(directory, "nginx-shared", upstream, listener="")
    if big:
        found["nginx tuned 16×64k"] = servers.nginx_proxy(directory, f"nginx-tuned{tag}", upstream, tls, servers.TUNED)
    found["haproxy"] = servers.haproxy(directory, f"haproxy{tag}", upstream, tls)
    if big:
        found["haproxy splice"] = servers.haproxy(directory, f"haproxy-splice{tag}", upstream, tls, splice=True)
    found["caddy"] = servers.caddy(directory, f"caddy{tag}", upstream, tls)
    found["jailgate bare"] = jailgate.bare(directory, f"jailgate-bare{tag}", upstream, tls)
    found["jailgate everything"], auth = jailgate.everything(directory, f"jailgate{tag}", upstream, tls)
    return found, auth


def groups(directory, quick, idle):
    """Starts the contenders and answers what is measured, and notes in `idle` jailgate's RSS before
    any load. TLS needs a second set of servers."""
    upstream = servers.origin(directory).port
    plain, auth = proxies(directory, upstream, big=True)
    idle.append(plain["jailgate bare"].child.rss())
    deferred = {"nginx deferred": servers.nginx_proxy(directory, "nginx-deferred", upstream, listener=" reuseport deferred")}
    small = {name: s for name, s in plain.items() if "tuned" not in name and "splice" not in name}
    answers = {"nginx return 200": servers.nginx_return(directory, "nginx-return"),
               "haproxy return": servers.haproxy(directory, "haproxy-return", 0, answer=True),
               "caddy respond": servers.caddy(directory, "caddy-respond", 0, answer=True),
               "jailgate forwardAuth everything": auth}
    yield Group("HTTP/1.1, 1 KB, 64 connections", "nginx", small, more=("nginx", "jailgate bare", "jailgate everything"))
    yield Group("forwardAuth answer, HTTP/1.1, 64 connections", "nginx return 200", answers, path="/", auth=True)
    yield Group("HTTP/1.1, 1 KB, a new connection per request", "nginx", {**small, **deferred}, close=True,
                more=("nginx", "nginx deferred", "jailgate everything"))
    yield Group("HTTP/1.1, 100 KB, 64 connections", "nginx tuned 16×64k", plain, path="/100k")
    yield Group("HTTP/1.1, 1 MB, 64 connections", "nginx tuned 16×64k", plain, path="/1m")
    yield Group("HTTP/1.1, 1 KB, 1,000 connections", "nginx", small, connections=1000)
    h2_answers = {"nginx return 200": servers.nginx_return_h2c(directory, "nginx-return-h2c"), "jailgate forwardAuth everything": auth}
    yield Group("forwardAuth answer, HTTP/2 clear, 64 connections × 4 streams", "nginx return 200", h2_answers, path="/", h2=True, auth=True)
    if quick:
        return
    yield Group("HTTP/1.1, 100 KB, 1,000 connections", "nginx tuned 16×64k", plain, path="/100k", connections=1000)
    secure, _ = proxies(directory, upstream, tls=True)
    yield Group("HTTP/1.1 over TLS, 1 KB, 64 connections", "nginx", secure, tls=True)
    yield Group("HTTP/2 over TLS, 1 KB, 64 connections × 4 streams", "nginx", secure, tls=True, h2=True)
    yield Group("HTTP/1.1 over TLS, 100 KB, 64 connections", "nginx", secure, tls=True, path="/100k")


# Rows that other benches answer: what must be true, and where its figure is kept.
ELSEWHERE = [
    ("ban state at 1M: bytes per v4 / v6 client; miss; dependent hit / dashmap", "≤ 21 / 45; ≤ 20 ns; ≤ 0.55", "[notes](notes.md#what-the-micro-benches-say), `cargo bench --bench contention`"),
    ("1M prefixes: memory, lookup throughput / dependent, build", "≤ 9 MB, ≤ 35 / 50 ns, ≤ 100 ms", "[notes](notes.md#what-the-micro-benches-say), `cargo bench --bench decide`"),
    ("100 / 3,000 URL rules per URL", "≤ 130 / 200 ns", "[notes](notes.md#what-the-micro-benches-say), `cargo bench --bench decide`"),
    ("live botnet: bots denied from the maxretry-th failure on; honest clients", "100 %; none", "[botnet](botnet.md)"),
]


def checked(done, idle):
    """The rows of the issue that this bench can answer, with the ratios of every round."""
    def ratio(group, name, base, key):
        rows = next((rows for title, (rows, _) in done.items() if title == group), {})
        if name not in rows or base not in rows:
            return []
        return report.per_round({name: rows[name], base: rows[base]}, base, key)[name]

    small, every = "HTTP/1.1, 1 KB, 64 connections", "jailgate everything"
    hundred, million = "HTTP/1.1, 100 KB, 64 connections", "HTTP/1.1, 1 MB, 64 connections"
    return [
        ("everything on, HTTP/1.1, 64 connections, 1 KB: CPU / nginx", "≤ 0.97", ratio(small, every, "nginx", "cpu"), 0.97, True),
        ("same: requests/s / nginx", "≥ 1.00", ratio(small, every, "nginx", "rps"), 1.0, False),
        ("same: p99 / nginx, both pinned", "≤ 1.05", ratio(small, every, "nginx", "p99"), 1.05, True),
        ("protections on / off: CPU", "≤ 1.03", ratio(small, every, "jailgate bare", "cpu"), 1.03, True),
        ("forwardAuth answer: CPU / nginx `return 200`", "≤ 0.92",
         ratio("forwardAuth answer, HTTP/1.1, 64 connections", "jailgate forwardAuth everything", "nginx return 200", "cpu"), 0.92, True),
        ("100 KB: CPU / nginx tuned", "≤ 1.0", ratio(hundred, every, "nginx tuned 16×64k", "cpu"), 1.0, True),
        ("1 MB: CPU / nginx tuned", "≤ 0.5", ratio(million, every, "nginx tuned 16×64k", "cpu"), 0.5, True),
        ("1 MB: CPU / HAProxy splice", "≤ 0.85", ratio(million, every, "haproxy splice", "cpu"), 0.85, True),
        ("a new client connection per request: requests/s / nginx", "≥ 1.0",
         ratio("HTTP/1.1, 1 KB, a new connection per request", every, "nginx", "rps"), 1.0, False),
        ("idle RSS in MB, bare; more in [memory](memory.md)", "≤ 15", idle, 15, True),
    ]


def write(done, idle, rounds, seconds, note):
    head = ["# jailgate beside its peers", "", *(f"- {line}" for line in process.machine()), f"- {jailgate.measured()}",
            f"- {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, {rounds} interleaved rounds of {seconds} s, {MORE} times as many for those that a row below compares within a few per cent; client, origin and contender share the {os.cpu_count()} cores",
            f"- load average before and after: {note}",
            "- CPU is the contender's own (all threads, /proc schedstat). Ratios are taken within a round: median (lowest–highest), ± the standard error of their mean.",
            "- everything = client IP from X-Forwarded-For, allow and deny lists, 100 URL rules, 1,000,000 outside decisions by the program's own CrowdSec subscription from a stand-in for the LAPI, status counting, metrics, timeouts",
            "- requests/s and p99 of contenders that share two cores with client and origin are compressed; CPU per request is the figure to compare", ""]
    body = ["## What must be true", "", report.goals(checked(done, idle), ELSEWHERE), "", "![CPU per request](peers.svg)", ""]
    for title, (rows, base) in done.items():
        body += [f"## {title}", "", report.table(rows, base), ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peers.md").write_text("\n".join(head + body))
    (RESULTS / "peers.svg").write_text(report.chart(done, "jailgate beside its peers"))
    (RESULTS / "peers.json").write_text(json.dumps({title: rows for title, (rows, _) in done.items()}, indent=1))


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--quick", action="store_true", help="the first seven groups, half the rounds")
    args.add_argument("--rounds", type=int)
    args.add_argument("--seconds", type=int, default=1, help="a round; many short ones, for the machine changes from one to the next")
    args.add_argument("--only", help="groups whose name contains this")
    args.add_argument("--without", default="", help="contenders to leave out, comma separated")
    args.add_argument("--dry", action="store_true", help="print, write nothing")
    args = args.parse_args()
    rounds, seconds = args.rounds or (8 if args.quick else 15), args.seconds
    process.need(nginx="nginx-light", haproxy="haproxy", caddy="caddy", wrk="wrk", h2load="nghttp2-client", openssl="openssl")
    process.raise_open_files()
    process.prefer()
    jailgate.product()
    directory, done, idle = process.scratch("peers"), {}, []
    out, before = set(filter(None, args.without.split(","))), os.getloadavg()[0]
    for group in groups(directory, args.quick, idle):
        if args.only and args.only not in group.name:
            continue
        group.contenders = {name: server for name, server in group.contenders.items() if name not in out}
        rows = {name: [] for name in group.contenders}
        for name in group.contenders:
            group.drive(directory, name, group.contenders[name], 1)
        for number, names in enumerate(group.rounds(rounds)):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                rows[name].append(group.drive(directory, name, group.contenders[name], seconds))
        done[group.name] = (rows, group.base)
        print(f"\n## {group.name}\n{report.table(rows, group.base)}", flush=True)
    print(f"\n{jailgate.measured()}\n{report.goals(checked(done, idle))}")
    if not args.dry:
        write(done, idle, rounds, seconds, f"{before:.1f}, {os.getloadavg()[0]:.1f}")
        print(f"\nwritten to {RESULTS}/peers.md, peers.svg, peers.json")


if __name__ == "__main__":
    main()
