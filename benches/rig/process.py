"""Children of a bench: started in the foreground, read from /proc, ended by pid. Nothing daemonizes.

Does not know what the children are; `servers` writes their configurations.
"""
import atexit
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_running: list["Child"] = []


class Child:
    """One process and its descendants (nginx has workers)."""

    def __init__(self, name, argv, cwd, env=None, log=None):
        self.name = name
        self.log = Path(log or Path(cwd) / f"{name}.log")
        with open(self.log, "ab") as out:
            self.popen = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL,
                                          stdout=out, stderr=out, start_new_session=True)
        _running.append(self)
        prefer(self.popen.pid)

    def pids(self):
        """The process and every descendant that is alive."""
        found, todo = [], [self.popen.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    todo += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
            except OSError:
                pass
        return found

    def cpu(self):
        """Seconds spent on a CPU by every live thread; nanosecond resolution, see schedstat."""
        return sum(_thread_cpu(pid) for pid in self.pids())

    def rss(self):
        """Resident MB, summed; pages that nginx's workers share are counted once a process."""
        return sum(_status_kb(pid, "VmRSS:") for pid in self.pids()) / 1024

    def fds(self):
        """Open file descriptors of the whole tree."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids() if os.path.exists(f"/proc/{pid}/fd"))

    def alive(self):
        return self.popen.poll() is None

    def signal(self, number):
        self.popen.send_signal(number)

    def stop(self, patience=8):
        """SIGTERM, then SIGKILL after `patience` seconds, to exactly the pids we started."""
        pids = self.pids()
        if self.alive():
            self.popen.terminate()
            try:
                self.popen.wait(patience)
            except subprocess.TimeoutExpired:
                for pid in pids:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                self.popen.wait()
        if self in _running:
            _running.remove(self)
        return self.popen.returncode


@atexit.register
def stop_all():
    """Whatever a bench forgot or an exception skipped."""
    for child in list(_running):
        child.stop(2)


def prefer(pid="self"):
    """BENCH_PRIORITY=-10 puts a bench ahead of what else runs on a shared machine, every contender
    alike. The scheduler weighs sessions (autogroups) before it looks at a process's own niceness.
    """
    if wanted := os.environ.get("BENCH_PRIORITY"):
        try:
            Path(f"/proc/{pid}/autogroup").write_text(wanted)
        except OSError:
            pass


# SIGTERM would otherwise skip `stop_all` and leave the servers behind
signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _thread_cpu(pid):
    total = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            try:
                total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
            except (OSError, IndexError):
                pass
    except OSError:
        pass
    return total / 1e9


def _status_kb(pid, key):
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def free_port():
    """A port nothing listens on now, below the ephemeral range so that no client takes it."""
    for _ in range(200):
        port = 10000 + int.from_bytes(os.urandom(2), "big") % 20000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    raise SystemExit("no free port")


def wait_for_port(port, child, seconds=60):
    """Until something accepts on `port`; ends the bench with the child's last words if it died."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if not child.alive():
                raise SystemExit(f"{child.name} ended:\n{child.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
    raise SystemExit(f"{child.name} does not listen on {port}:\n{child.log.read_text(errors='replace')[-2000:]}")


def scratch(name):
    """A directory that is gone when the bench ends (kept with BENCH_KEEP=1)."""
    path = Path(tempfile.mkdtemp(prefix=f"jailgate-{name}-"))
    if not os.environ.get("BENCH_KEEP"):
        atexit.register(shutil.rmtree, path, True)
    return path


def raise_open_files(wanted=400_000):
    """Every child inherits it. Answers the limit reached: a container may allow less."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for limit in (wanted, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, hard)))
            return limit
        except (ValueError, OSError):
            pass
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def need(**packages):
    """Installs Debian packages whose program is missing: need(nginx="nginx-light")."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    os.environ["PATH"] = path
    missing = [package for program, package in packages.items()
               if not shutil.which(program.replace("_", "-"), path=path)]
    if missing:
        print("installing from Debian:", *missing, flush=True)
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *missing],
                       env=env, stdout=subprocess.DEVNULL, check=False)
        left = [p for p in packages if not shutil.which(p.replace("_", "-"), path=path)]
        if left:
            raise SystemExit(f"could not install: {' '.join(left)}")


def cargo_build(*targets):
    """Builds in the release profile and answers {target name: executable}."""
    import json
    out = subprocess.run(["cargo", "build", "--release", "--message-format=json", *targets],
                         cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    built = {}
    for line in out.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("executable"):
            built[message["target"]["name"]] = message["executable"]
    return built


def machine():
    """Lines that name the machine and the versions compared."""
    cpu = next((l.split(":")[1].strip() for l in Path("/proc/cpuinfo").read_text().splitlines()
                if l.startswith("model name")), "?")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1048576
    lines = [f"{os.cpu_count()} × {cpu}, {memory:.0f} GiB, Linux {os.uname().release}"]
    versions = []
    for argv in (["nginx", "-v"], ["haproxy", "-v"], ["caddy", "version"], ["fail2ban-server", "--version"],
                 ["wrk", "-v"], ["h2load", "--version"], ["rustc", "--version"]):
        if shutil.which(argv[0]):
            run = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
            first = run.stdout.strip().splitlines()[0]
            for noise in ("nginx version: ", " - https://haproxy.org/", " Copyright (C) 2012 Will Glozer"):
                first = first.replace(noise, "")
            versions.append(f"caddy {first}" if argv[0] == "caddy" else first)
    lines.append(" · ".join(versions))
    commit = subprocess.run(["git", "log", "-1", "--format=%h %cs"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lines.append(f"jailgate {commit.stdout.strip()}")
    return lines
