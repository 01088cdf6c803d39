#!/usr/bin/env python3
"""`make bench-botnet`: 7,000 bots among 3,000 honest clients, for jailgate, fail2ban and crowdsec.

Twice: paced, everybody watching the same attack at the same time; then as fast as each can take
it, one after the other. jailgate proxies the attack live, the others read its access log. Writes
benches/results/botnet.md.
"""
import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))
from rig import attack, jailgate, process, servers, watchers  # noqa: E402

RESULTS = Path(__file__).parent / "results"
LIVE = """
entryPoints:
  web: {{ address: "127.0.0.1:{port}", forwardedHeaders: {{ trustedIPs: ["127.0.0.0/8"] }} }}
routes: [{{ service: app, jails: [web] }}]
services: {{ app: {{ servers: [{{ url: "http://127.0.0.1:{origin}" }}] }} }}
jails:
  web:
    enableBlockLogs: false
    rules: {{ findtime: "10m", bantime: "3h", maxretry: {maxretry}, statuscode: "401,403" }}
admin: {{ address: "127.0.0.1:{admin}" }}
state: {{ path: "{state}" }}
log: {{ level: warn }}
"""


class Live:
    """jailgate as the proxy in front of the origin, judged answer by answer by the flood."""

    def __init__(self, directory, flood):
        self.directory, self.flood = directory, flood
        origin, port = servers.origin(directory), process.free_port()
        conf = directory / "live.yaml"
        conf.write_text(LIVE.format(port=port, origin=origin.port, maxretry=watchers.MAXRETRY,
                                    admin=process.free_port(), state=directory / "live.db"))
        self.child = process.Child("jailgate-live", [jailgate.product(), "run", "-c", str(conf)], directory)
        self.port = port
        process.wait_for_port(port, self.child)

    def run(self, schedule, speed, patience):
        began = self.child.cpu()
        run = subprocess.run([self.flood, f"127.0.0.1:{self.port}", str(schedule), str(speed), "64", str(watchers.MAXRETRY)],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=patience)
        if run.returncode:
            raise SystemExit(f"flood failed: {run.stderr[-1000:]}\n{self.child.log.read_text()[-1000:]}")
        got = json.loads(run.stdout)
        got["cpu"], got["rss"] = self.child.cpu() - began, self.child.rss()
        return got


def judge(watcher, writer, bots, honest, cpu):
    """One watcher's figures, in the flood's words; times are seconds since the attack began."""
    bans = {watchers.same_client(client): at for client, at in watcher.bans().items()}
    caught = sorted(at - writer.began for client, at in bans.items() if client in bots)
    share = lambda part: round(caught[int(len(bots) * part + 0.999999) - 1], 3) if len(caught) >= len(bots) * part else None
    lags = sorted(bans[client] - at for client, at in writer.earned.items() if client in bans)
    last = max(caught, default=0)
    return {"banned": len(caught), "bots": len(bots), "t95": share(0.95), "t100": share(1.0),
            "honest_denied": sum(client in honest for client in bans),
            "lag": (median(lags), lags[int(len(lags) * 0.99)]) if lags else None,
            "rate": len(writer.events) / last if last else 0, "cpu": watcher.child.cpu() - cpu, "rss": watcher.child.rss()}


def until_done(watcher, bots, seconds):
    """Until every bot is banned, nothing new happened for 30 s once it began, or the time is over."""
    end, seen, changed = time.time() + seconds, -1, time.time()
    while time.time() < end and watcher.child.alive():
        now = sum(watchers.same_client(client) in bots for client in watcher.bans())
        if now != seen:
            seen, changed = now, time.time()
        if now >= len(bots) or (now and time.time() - changed > 30):
            return
        time.sleep(0.5)


def watch(directory, classes, events, speed, patience):
    """Starts the watchers on one empty log, plays the attack into it, answers {name: figures}."""
    bots = {watchers.same_client(event.client) for event in events if event.bot}
    honest = {watchers.same_client(event.client) for event in events if not event.bot}
    log = directory / "access.log"
    writer = attack.LogWriter(log, [_same(event) for event in events], watchers.MAXRETRY)
    running = [kind(watchers.scratch_for(directory, kind.__name__.lower()), log) for kind in classes if speed or not kind.replays]
    before = {watcher: watcher.child.cpu() for watcher in running}
    writer.write(speed)
    for kind in classes:
        if not speed and kind.replays:
            writer.began = time.time()
            running.append(kind(watchers.scratch_for(directory, kind.__name__.lower()), log, replay=True))
            before[running[-1]] = 0.0
    for watcher in running:
        until_done(watcher, bots, patience)
    figures = {watcher.name: judge(watcher, writer, bots, honest, before[watcher]) for watcher in running}
    for watcher in running:
        watcher.child.stop()
    return figures


def _same(event):
    event.client = watchers.same_client(event.client)
    return event


def row(name, got, total, live=False):
    number = lambda value, unit="s": "not reached" if value is None else f"{value:,.1f} {unit}"
    rate = got["requests"] / got["seconds"] if live else got["rate"]
    lag = f"0 (worst {got['worst_lag_ms']} ms)" if live else (f"{got['lag'][0]:.2f} / {got['lag'][1]:.2f} s" if got["lag"] else "–")
    per = got["cpu"] / total * 1e6
    return (f"| {name} | {got['banned']:,} of {got['bots']:,} | {number(got['t95'])} | {number(got['t100'])} | {lag} "
            f"| {got['honest_denied']} | {rate:,.0f} | {got['cpu']:.2f} s ({per:,.0f} µs each) | {got['rss']:.0f} MB |")


HEAD = ["| | bots banned | 95 % after | 100 % after | fifth failure → ban (median / 99 %) | honest clients banned | lines or requests/s | CPU | RSS |",
        "|---|---|---|---|---|---|---|---|---|"]


def verdict(got):
    right = got["wrong_bots"] == 0 and got["wrong_honest"] == 0
    return (f"jailgate live: {'every' if right else '**NOT every**'} answer as it must be — {got['wrong_bots']} bots with an answer other than "
            f"\"origin's until failure {watchers.MAXRETRY - 1}, denied from failure {watchers.MAXRETRY} on\", {got['wrong_honest']} honest clients with a denial or an error. "
            f"p50 {got['p50_us']} µs, p99 {got['p99_us']} µs; the load generator was at most {got['late_ms']} ms late.")


def paced(directory, flood, classes, minutes):
    events = attack.schedule(minutes * 60)
    play = directory / "paced.tsv"
    attack.write_schedule(events, play)
    base, got = watchers.scratch_for(directory, "paced"), {}
    live = Live(watchers.scratch_for(directory, "paced-live"), flood)
    # the flood in a thread of its own: the log's writer paces itself in this one
    thread = threading.Thread(target=lambda: got.update(live.run(play, 1, minutes * 60 + 120)))
    thread.start()
    figures = watch(base, classes, events, 1, 180)
    thread.join()
    live.child.stop()
    lines = [f"## Paced: {len(events):,} requests in {minutes:g} minutes ({len(events) / minutes:,.0f} a minute), everybody at once", "",
             "Bots arrive over the whole attack, so the times are bounded by the attack itself; the delay from a bot's fifth failure is the figure to compare.", "",
             *HEAD, row("jailgate (live, as the proxy)", got, len(events), live=True)]
    return [*lines, *(row(name, figure, len(events)) for name, figure in figures.items()), "", verdict(got), ""]


def flat_out(directory, flood, classes, patience):
    events = attack.schedule(60)
    play = directory / "fast.tsv"
    attack.write_schedule(events, play)
    live = Live(watchers.scratch_for(directory, "fast-live"), flood)
    got = live.run(play, 0, patience)
    live.child.stop()
    lines = [f"## As fast as each can take it: {len(events):,} requests, one after the other", "", *HEAD,
             row("jailgate (live, as the proxy)", got, len(events), live=True)]
    for kind in classes:
        base = watchers.scratch_for(directory, f"fast-{kind.__name__.lower()}")
        for name, figure in watch(base, [kind], attack.schedule(60), 0, patience).items():
            lines.append(row(name, figure, len(events)))
            print(lines[-1], flush=True)
    return [*lines, "", verdict(got), ""]


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--minutes", type=float, default=4, help="length of the paced attack")
    args.add_argument("--patience", type=int, default=300, help="seconds a watcher may take when fed at once; 0 leaves that part out")
    args.add_argument("--watchers", default="fail2ban,crowdsec,jailgate")
    args.add_argument("--dry", action="store_true", help="print, write nothing")
    args = args.parse_args()
    process.need(nginx="nginx-light", openssl="openssl", fail2ban_server="fail2ban")
    process.raise_open_files()
    process.prefer()
    jailgate.product()
    flood = process.cargo_build("--bench", "flood")["flood"]
    directory = process.scratch("botnet")
    classes = watchers.available(args.watchers.split(","))
    out = ["# A botnet of 7,000 among 3,000 honest clients", "", *(f"- {line}" for line in process.machine()), f"- {jailgate.measured()}",
           f"- {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, load average at the start {os.getloadavg()[0]:.1f}",
           f"- every bot: {attack.TRIES} × POST /wp-login.php answered 401; honest: {attack.PAGES} pages, up to two mistyped passwords; maxretry {watchers.MAXRETRY}",
           *(f"- {kind.__name__}: {kind.note}" for kind in classes), ""]
    if args.minutes:
        out += paced(directory, flood, classes, args.minutes)
    if args.patience:
        out += flat_out(directory, flood, classes, args.patience)
    print("\n".join(out))
    if not args.dry:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "botnet.md").write_text("\n".join(out))


if __name__ == "__main__":
    main()
