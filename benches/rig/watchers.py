"""Those who read the attack's access log: Debian's fail2ban, Debian's crowdsec, jailgate's follower.

Each is started in the foreground with its own configuration, socket and database, bans into a
record only, and answers `bans()`: {client: Unix time of the ban}.
"""
import calendar
import ipaddress
import json
import os
import re
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

from rig.jailgate import product
from rig.process import Child, free_port, wait_for_port

MAXRETRY = 5




class Fail2ban:
    """The real server; one filter of one plain expression, and an action that writes a line."""

    replays = False
    name = "fail2ban (server, one failregex)"
    note = "Debian's fail2ban-server, pyinotify where it is installed, SQLite database on, action = one shell line per ban"

    def __init__(self, directory, log):
        self.record = directory / "banned.txt"
        self.record.touch()
        config = directory / "etc"
        shutil.copytree("/etc/fail2ban", config)
        for kept in ("jail.d", "fail2ban.d"):
            shutil.rmtree(config / kept, ignore_errors=True)
        (config / "fail2ban.local").write_text(
            f"[Definition]\nloglevel = ERROR\nlogtarget = {directory}/fail2ban.log\nsyslogsocket = none\n"
            f"socket = {directory}/f.sock\npidfile = {directory}/f.pid\ndbfile = {directory}/f.sqlite3\n")
        (config / "filter.d" / "botnet.conf").write_text(
            '[Definition]\nfailregex = ^<ADDR> - \\S+ \\[\\] "[^"]*" (?:401|403) \n'
            "datepattern = %%d/%%b/%%Y:%%H:%%M:%%S %%z\n")
        (config / "action.d" / "record.conf").write_text(
            f"[Definition]\nactionban = echo <ip> $(date +%%s.%%N) >> {self.record}\nactionunban =\n")
        (config / "jail.local").write_text(
            f"[DEFAULT]\nignoreself = false\n[botnet]\nenabled = true\nfilter = botnet\nlogpath = {log}\nbackend = auto\n"
            f"maxretry = {MAXRETRY}\nfindtime = 10m\nbantime = 3h\naction = record\n")
        self.child = Child("fail2ban", ["fail2ban-server", "-f", "-x", "-c", str(config), "-s", f"{directory}/f.sock",
                                        "-p", f"{directory}/f.pid", "start"], directory)
        self._wait(directory, config)

    def _wait(self, directory, config):
        for _ in range(100):
            ready = subprocess.run(["fail2ban-client", "-c", str(config), "-s", f"{directory}/f.sock", "status", "botnet"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if ready.returncode == 0:
                return
            time.sleep(0.1)
        raise SystemExit(f"fail2ban did not start: {self.child.log.read_text()[-1500:]}")

    def bans(self):
        pairs = (line.split() for line in self.record.read_text().splitlines())
        return {pair[0]: float(pair[1]) for pair in pairs if len(pair) == 2}


class Crowdsec:
    """Debian's package unpacked beside the system, its offline hub: nginx and base-http-scenarios."""

    # In live mode its buckets leak by the time of reading, so a file fed faster than real time never
    # fills them; its replay mode goes by the lines' own time.
    replays = True
    name = "crowdsec (own nginx parser, base HTTP scenarios)"
    note = ("Debian's crowdsec 1.4.6, unpacked, not installed; parsers and scenarios of its offline hub (nginx, http-logs, "
            "dateparse; base-http-scenarios). http-generic-401-bf bans at the 6th failure, capacity 5, leak 10 s")
    PARSERS = {"s00-raw": ["syslog-logs"], "s01-parse": ["nginx-logs"], "s02-enrich": ["dateparse-enrich", "http-logs"]}
    SCENARIOS = ["http-crawl-non_statics", "http-probing", "http-bad-user-agent", "http-path-traversal-probing",
                 "http-sensitive-files", "http-sqli-probing", "http-xss-probing", "http-backdoors-attempts",
                 "http-generic-bf", "http-open-proxy"]

    def __init__(self, directory, log, replay=False):
        self.root, self.database = self.unpack(directory.parent), directory / "cs.db"
        share = self.root / "usr/share/crowdsec"
        config = directory / "etc"
        for stage, names in self.PARSERS.items():
            self._enable(share / "hub/parsers" / stage, config / "parsers" / stage, names)
        self._enable(share / "hub/scenarios", config / "scenarios", self.SCENARIOS)
        self._data(share / "data", config / "scenarios", directory / "data")
        shutil.copytree(self.root / "etc/crowdsec/patterns", config / "patterns")
        for name in ("profiles.yaml", "simulation.yaml"):
            shutil.copy(self.root / "etc/crowdsec" / name, config / name)
        (config / "client.yaml").touch()
        (config / "console.yaml").write_text("{}\n")
        (config / "acquis.yaml").write_text(f"filenames: [{log}]\nlabels: {{type: nginx}}\n")
        port = free_port()
        (config / "config.yaml").write_text(f"""
common: {{daemonize: false, log_media: stdout, log_level: error}}
config_paths: {{config_dir: {config}, data_dir: {directory}/data, hub_dir: {share}/hub, index_path: {share}/hub/.index.json, simulation_path: {config}/simulation.yaml}}
crowdsec_service: {{acquisition_path: {config}/acquis.yaml, parser_routines: 1}}
db_config: {{type: sqlite, db_path: {self.database}, use_wal: true}}
api:
  client: {{credentials_path: {config}/client.yaml}}
  server: {{log_level: error, listen_uri: "127.0.0.1:{port}", profiles_path: {config}/profiles.yaml, console_path: {config}/console.yaml}}
prometheus: {{enabled: false}}
""")
        tool = [str(self.root / "usr/bin/cscli"), "-c", str(config / "config.yaml")]
        subprocess.run([*tool, "machines", "add", "bench", "-p", "bench-password", "-f", str(config / "client.yaml"), "--force"],
                       check=True, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        source = ["-dsn", f"file://{log}", "-type", "nginx"] if replay else []
        self.child = Child("crowdsec", [str(self.root / "usr/bin/crowdsec"), "-c", str(config / "config.yaml"), *source], directory)
        wait_for_port(port, self.child)
        if not replay:
            time.sleep(3)  # it opens the log some time after its API

    @staticmethod
    def unpack(directory):
        """Fetches the package from Debian and unpacks it; never installs it."""
        root = directory / "crowdsec-package"
        if not root.exists():
            root.mkdir()
            subprocess.run(["apt-get", "download", "crowdsec"], cwd=root, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            subprocess.run(["dpkg-deb", "-x", next(root.glob("crowdsec_*.deb")), root], check=True)
        return root

    @staticmethod
    def _enable(hub, etc, names):
        etc.mkdir(parents=True, exist_ok=True)
        for name in names:
            (etc / f"{name}.yaml").symlink_to(next(hub.glob(f"*/{name}.yaml")))

    @staticmethod
    def _data(packaged, scenarios, data):
        """Scenarios name their word lists otherwise than Debian's package does."""
        data.mkdir()
        for scenario in scenarios.iterdir():
            wanted = re.findall(r"source_url: .*/(\S+)\s+dest_file: (\S+)", scenario.read_text())
            for source, name in wanted:
                shutil.copy(packaged / source, data / name)

    def bans(self):
        found = {}
        try:
            with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=5) as base:
                for value, created in base.execute("select value, created_at from decisions"):
                    found[value.split("/")[0]] = _unix(created)
        except sqlite3.OperationalError:
            pass
        return found


class Follower:
    """jailgate itself, following the same file as any other watcher."""

    replays = False
    name = "jailgate (access log)"
    note = "jailgate run with accessLogs: combined, no proxying; bans as its log tells them"

    def __init__(self, directory, log):
        admin, conf = free_port(), directory / "jailgate.yaml"
        conf.write_text(f"""
accessLogs: [{{ path: "{log}", format: combined, jails: [web] }}]
jails:
  web: {{ rules: {{ findtime: "10m", bantime: "3h", maxretry: {MAXRETRY}, statuscode: "401,403" }} }}
admin: {{ address: "127.0.0.1:{admin}" }}
state: {{ path: "jailgate.db" }}
log: {{ level: info, format: json }}
""")
        self.child = Child("jailgate-follower", [product(), "run", "-c", str(conf)], directory)
        wait_for_port(admin, self.child)
        time.sleep(1)

    def bans(self):
        lines = (json.loads(line) for line in self.child.log.read_text().splitlines() if '"ban begins"' in line)
        return {str(ipaddress.ip_network(line["client"]).network_address): _unix(line["timestamp"]) for line in lines}


def _unix(text):
    """RFC 3339 or SQLite's form of it, UTC, with a fraction."""
    head, _, rest = text.replace("T", " ").partition(".")
    digits = "".join(c for c in rest[:9] if c.isdigit()) or "0"
    head = head.replace("Z", "").split("+")[0]
    return calendar.timegm(time.strptime(head, "%Y-%m-%d %H:%M:%S")) + int(digits) / 10 ** len(digits)


def same_client(client):
    """Bans of jailgate name a /64's first address; everybody is compared by that."""
    address = ipaddress.ip_address(client)
    if address.version == 4:
        return client
    return ipaddress.ip_network((address, 64), strict=False).network_address.compressed


def available(names):
    """The watchers asked for, as classes."""
    every = {"fail2ban": Fail2ban, "crowdsec": Crowdsec, "jailgate": Follower}
    return [every[name] for name in names if name in every]


def scratch_for(directory, name):
    path = Path(directory) / name
    os.makedirs(path)
    return path
