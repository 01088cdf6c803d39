"""The attack every contender gets: 7,000 bots trying passwords among 3,000 honest clients.

One seed, one schedule; `write_schedule` is what the flood plays live, `LogWriter` what a web server
would have logged of it. Bots send POST /wp-login.php (answered 401), a few seconds apart, each
starting somewhere in the attack. Honest clients read pages and now and then mistype a password.
"""
import ipaddress
import random
import time
from dataclasses import dataclass

BOTS, HONEST, TRIES, PAGES = 7_000, 3_000, 12, 10
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


@dataclass
class Event:
    """One request, `at` seconds after the attack begins."""

    at: float
    client: str
    bot: bool
    method: str
    path: str
    status: int


def schedule(span, seed=7000):
    """Every request of an attack that lasts `span` seconds, in order of time."""
    draw = random.Random(seed)
    clients = _addresses(draw, BOTS + HONEST)
    events = []
    for client in clients[:BOTS]:
        gaps = [draw.uniform(1, 5) for _ in range(TRIES)]
        shrink = min(1.0, span * 0.8 / sum(gaps))
        at = draw.uniform(0, span - sum(gaps) * shrink)
        for gap in gaps:
            events.append(Event(at, client, True, "POST", "/wp-login.php", 401))
            at += gap * shrink
    for client in clients[BOTS:]:
        slips = draw.choice((0, 0, 0, 1, 2))
        for number in range(PAGES):
            at = draw.uniform(0, span)
            if number < slips:
                events.append(Event(at, client, False, "POST", "/wp-login.php", 401))
            else:
                events.append(Event(at, client, False, "GET", f"/page/{draw.randint(1, 500)}", 200))
    events.sort(key=lambda event: event.at)
    return events


def _addresses(draw, count):
    """Distinct public addresses; every twentieth is v6, in a /64 of its own."""
    found = set()
    while len(found) < count:
        if len(found) % 20 == 19:
            found.add(str(ipaddress.IPv6Address((0x2A00 << 112) | (draw.getrandbits(46) << 64) | draw.getrandbits(60))))
        else:
            address = f"{draw.randint(11, 99)}.{draw.randint(0, 255)}.{draw.randint(0, 255)}.{draw.randint(1, 254)}"
            found.add(address)
    found = sorted(found)
    draw.shuffle(found)
    return found


def write_schedule(events, path):
    """One line an event: milliseconds, client, 1 for a bot, method, path."""
    path.write_text("".join(f"{event.at * 1000:.0f}\t{event.client}\t{int(event.bot)}\t{event.method}\t{event.path}\n"
                            for event in events))


class LogWriter:
    """Appends the attack as nginx's `combined` lines and remembers when each bot had earned its ban."""

    def __init__(self, path, events, maxretry):
        self.path, self.events, self.maxretry = path, events, maxretry
        self.earned, self._failures = {}, {}
        self.began = self.ended = None
        path.touch()

    def write(self, speed):
        """Plays the schedule `speed` times as fast; 0 writes it at once, as an attack just over."""
        self.began = time.time()
        span = self.events[-1].at if not speed else 0
        with open(self.path, "a", buffering=1 << 16) as out:
            for event in self.events:
                now = time.time()
                due = self.began + event.at / speed if speed else now
                if due > now:
                    out.flush()
                    time.sleep(due - now)
                    now = due
                out.write(self.line(event, now if speed else self.began - span + event.at))
                if event.bot:
                    self._count(event.client, now)
        self.ended = time.time()

    def _count(self, client, now):
        self._failures[client] = self._failures.get(client, 0) + 1
        if self._failures[client] == self.maxretry:
            self.earned[client] = now

    @staticmethod
    def line(event, now):
        stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now))
        return f'{event.client} - - [{stamp}] "{event.method} {event.path} HTTP/1.1" {event.status} 512 "-" "{AGENT}"\n'
