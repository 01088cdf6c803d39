#!/usr/bin/env python3
"""`make guard`: instructions per check, observe, request and connection, against benches/instructions.toml.

Counted by callgrind as the difference between a long and a short run, so that start-up falls out,
and in jailgate's own executable only: memcpy and its like are chosen by the machine's libc. What
is left depends on the compiler (pinned), the locked dependencies and the code.
"""
import argparse
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from rig import jailgate, process  # noqa: E402

KEPT = Path(__file__).parent / "instructions.toml"
TOLERANCE = 0.03
CALLS = (2_000, 12_000)
REQUESTS = (200, 1_200)
REQUEST = (b"GET /app/articles/2026/on-proxies?page=2 HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: Mozilla/5.0\r\n"
           b"Accept: text/html,application/xhtml+xml\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n"
           b"Cookie: session=0123456789abcdef\r\nX-Forwarded-For: 51.2.3.4\r\n\r\n")
LAST = REQUEST[:-2] + b"Connection: close\r\n\r\n"
QUESTION = (REQUEST.replace(b"/app/articles/2026/on-proxies?page=2", b"/forward-auth/web")[:-2]
            + b"X-Forwarded-Method: GET\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: bench.example\r\nX-Forwarded-Uri: /page/1\r\n\r\n")
ANSWER = b"HTTP/1.1 200 OK\r\nServer: guard\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n" + b"x" * 100


def own_instructions(profile, executable):
    """Sum of self cost over one executable's functions in a callgrind profile."""
    names, inside, skip, total = {}, False, False, 0
    for line in profile.read_text().splitlines():
        if line.startswith(("ob=", "cob=")):
            number, _, name = line.partition("=")[2].partition(" ")
            names.setdefault(number, name)
            if line.startswith("ob="):
                inside = names[number] == str(executable)
        elif line.startswith("calls="):
            skip = True  # the next line is the callee's cost
        elif line and line[0] in "0123456789+-*":
            if not skip and inside:
                total += int(line.split()[1])
            skip = False
    return total


def callgrind(profile, argv):
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", "--quiet", *map(str, argv)]


def engine(directory, guard, what):
    """Instructions per call of `check` or `observe`."""
    counts = []
    for calls in CALLS:
        profile = directory / f"{what}-{calls}"
        subprocess.run(callgrind(profile, [guard, what, calls]), check=True, cwd=directory)
        counts.append(own_instructions(profile, guard))
    return (counts[1] - counts[0]) / (CALLS[1] - CALLS[0])


def gate(directory, program, name, load):
    """Instructions per request through the whole gate, everything configured, as `load` asks them."""
    origin = socket.create_server(("127.0.0.1", 0), backlog=64)
    threading.Thread(target=serve, args=(origin,), daemon=True).start()
    jailgate.write_lists(directory)
    counts = []
    for requests in REQUESTS:
        profile, conf = directory / f"{name}-{requests}", directory / "guard.yaml"
        port, auth = process.free_port(), process.free_port()
        conf.write_text(jailgate.EVERYTHING.format(
            port=port, upstream=origin.getsockname()[1], auth=auth, admin=process.free_port(),
            rules=jailgate.url_rules(), tls="", auth_tls="", crowdsec=""))
        child = process.Child("guarded", callgrind(profile, [program, conf, 10_000]), directory)
        for listening in (port, auth):
            process.wait_for_port(listening, child, 90)
        load(port, auth, requests)
        if child.stop(60) != 0:
            raise SystemExit(f"jailgate under callgrind ended badly:\n{child.log.read_text()[-2000:]}")
        counts.append(own_instructions(profile, program))
    return (counts[1] - counts[0]) / (REQUESTS[1] - REQUESTS[0])


def serve(listener):
    """An origin that answers every request the same, connection after connection."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection):
    held = b""
    while data := connection.recv(65536):
        held += data
        while b"\r\n\r\n" in held:
            held = held.partition(b"\r\n\r\n")[2]
            connection.sendall(ANSWER)


def ask(port, request, end, requests=1):
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        for _ in range(requests):
            connection.sendall(request)
            held = b""
            while not held.endswith(end):
                data = connection.recv(65536)
                if not data:
                    raise SystemExit(f"connection closed after: {held[:300]!r}")
                held += data
            if not held.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"unexpected answer: {held[:300]!r}")


def anew(port, requests):
    for _ in range(requests):
        ask(port, LAST, b"x" * 100)


LOADS = {
    "proxied": lambda port, _, requests: ask(port, REQUEST, b"x" * 100, requests),
    "connected": lambda port, _, requests: anew(port, requests),
    "asked": lambda _, auth, requests: ask(auth, QUESTION, b"\r\n\r\n", requests),
}


def kept():
    if not KEPT.exists():
        return {}
    return {name: float(count) for name, count in re.findall(r"^(\w+) = (\d+)", KEPT.read_text(), re.M)}


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--accept", action="store_true", help="keep what is measured now as the new numbers")
    args = args.parse_args()
    process.need(valgrind="valgrind")
    built = process.cargo_build("--bench", "everything", "--bench", "guard")
    directory = process.scratch("guard")
    measured = {what: engine(directory, built["guard"], what) for what in ("check", "observe")}
    measured |= {name: gate(directory, built["everything"], name, load) for name, load in LOADS.items()}
    if args.accept:
        KEPT.write_text("# Instructions per call inside jailgate's executable, by `make guard`; tolerance 3 %.\n"
                        "# Rewritten by `make guard-accept`, in the commit that explains the change.\n"
                        + "".join(f"{name} = {count:.0f}\n" for name, count in measured.items()))
    failed = []
    for name, count in measured.items():
        was = kept().get(name)
        change = count / was - 1 if was else 0.0
        print(f"{name:8} {count:10,.0f} instructions{f', kept {was:,.0f}, {change:+.1%}' if was else ', nothing kept'}")
        if was is None or change > TOLERANCE:
            failed.append(name)
        elif change < -TOLERANCE:
            print(f"         {name} got cheaper: `make guard-accept` keeps it")
    if failed:
        raise SystemExit(f"more instructions than kept in {os.path.relpath(KEPT)}: {', '.join(failed)}")


if __name__ == "__main__":
    main()
