"""The clients: wrk for HTTP/1.1, h2load for HTTP/2. One call is one bounded run and its figures."""
import json
import subprocess
from pathlib import Path

# Sent by every contender's client alike: what a browser sends, and another client address each
# time, so that no decision is answered from a warm cache line.
SCRIPT = """
local requests, at = {}, 0
local close = os.getenv("BENCH_CLOSE") == "1"
local headers = "Host: bench.example\\r\\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\\r\\n"
  .. "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\\r\\nAccept-Language: en-US,en;q=0.5\\r\\n"
  .. "Accept-Encoding: gzip, deflate, br\\r\\nCookie: session=0123456789abcdef0123456789abcdef\\r\\n"
  .. "X-Forwarded-For: "
function init(args)
  math.randomseed(20261121)
  local path = args[1] or "/"
  for i = 1, 8192 do
    local ip = math.random(1, 223) .. "." .. math.random(0, 255) .. "." .. math.random(0, 255) .. "." .. math.random(1, 254)
    requests[i] = "GET " .. path .. " HTTP/1.1\\r\\n" .. headers .. ip .. "\\r\\n" .. (args[2] or ""):gsub("@IP@", ip):gsub("|", "\\r\\n")
      .. (close and "Connection: close\\r\\n" or "") .. "\\r\\n"
  end
end
function request()
  at = at % 8192 + 1
  return requests[at]
end
function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format('\\nBENCH {"requests":%d,"us":%d,"bad":%d,"broken":%d,"p50":%d,"p99":%d,"p999":%d}\\n',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""


def wrk(directory, url, seconds, connections, path="/", headers="", close=False):
    """`headers` are extra lines, each ended by `|`; `@IP@` stands for the drawn client address.

    Answers requests, seconds, bad (status >= 400), broken (socket errors), p50/p99/p999 in ms.
    """
    script = Path(directory) / "client.lua"
    if not script.exists():
        script.write_text(SCRIPT)
    run = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script), url,
                          "--", path, headers],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds + 40,
                         env={"BENCH_CLOSE": "1" if close else "0", "PATH": "/usr/bin:/bin"})
    for line in run.stdout.splitlines():
        if line.startswith("BENCH "):
            got = json.loads(line[6:])
            return {"requests": got["requests"], "seconds": got["us"] / 1e6, "bad": got["bad"], "broken": got["broken"],
                    "p50": got["p50"] / 1e3, "p99": got["p99"] / 1e3, "p999": got["p999"] / 1e3}
    raise SystemExit(f"wrk failed on {url}:\n{run.stdout[-1500:]}")


def h2load(directory, url, seconds, connections, streams=4, headers=()):
    """As [`wrk`], over HTTP/2 (prior knowledge on http://, ALPN on https://)."""
    # In a directory of its own: a contender that watches the one with its certificate and its lists
    # would be woken by every line.
    log = Path(directory) / "h2load" / "log"
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    argv = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", f"--log-file={log}"]
    for header in ("user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
                   "accept: text/html,application/xhtml+xml", "accept-language: en-US,en;q=0.5",
                   "accept-encoding: gzip, deflate, br", "x-forwarded-for: 198.51.7.9", *headers):
        argv += ["-H", header]
    run = subprocess.run([*argv, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds + 40)
    times, bad = [], 0
    if log.exists():
        for line in log.read_text().splitlines():
            _, status, took = line.split("\t")
            times.append(int(took))
            bad += not status.startswith("2")
    if not times:
        raise SystemExit(f"h2load failed on {url}:\n{run.stdout[-1500:]}")
    times.sort()
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))] / 1e3
    return {"requests": len(times), "seconds": float(seconds), "bad": bad, "broken": 0,
            "p50": at(0.5), "p99": at(0.99), "p999": at(0.999)}
