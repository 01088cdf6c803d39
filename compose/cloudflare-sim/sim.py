#!/usr/bin/env python3
"""A strict stand-in for Cloudflare's account IP lists, for tests and the compose stack.

It holds every rule that docs/cloudflare.md names: one pending bulk operation per account,
duplicates refuse the whole request, IPv6 up to /64, quotas, request limits, pages of 25 with
cursors, operations that take time, fail or hang. Standard library only. Routes under /_sim inject
faults and show what was asked. Codes that Cloudflare does not document are 7xxx.

    sim.py [--listen 127.0.0.1:0] [--account A] [--token T] [--list ID=NAME] [--set KEY=VALUE]...
"""
import argparse
import base64
import ipaddress
import json
import re
import secrets
import socket
import sys
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

API = "/client/v4"
HALF_DAY = 12 * 3600
FULL = "This list is at the maximum number of items"

SETTINGS = {
    "operation_seconds": 0.2,  # how long a bulk operation takes
    "quota": 10_000,  # items over all lists of the account
    "max_lists": 10,
    "requests": 1200,  # API requests per token …
    "window": 300,  # … in so many seconds; then all are refused for as long
    "item_changes": 1_000_000,  # per 12 hours
    "change_requests": 30_000,  # per 12 hours
    "page_default": 25,
    "page_max": 500,
    "latency": 0.0,  # of every API answer, seconds
    "slash32": False,  # give single IPv4 addresses back as x/32
}


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, status, code, message, retry_after=None):
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


def bad(message, code=7400):
    return Refused(400, code, message)


def stamp():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def canonical(text):
    """The form in which items are compared: `10.0.0.1`, `10.0.0.0/8`, `2001:db8::/64`."""
    if not isinstance(text, str):
        raise bad("ip must be a string")
    try:
        net = ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        raise bad(f"invalid ip {text!r}: {error}") from error
    if net.version == 4:
        if net.prefixlen < 8:
            raise bad(f"{text}: IPv4 ranges are /8 to /32")
        return str(net.network_address) if net.prefixlen == 32 else str(net)
    if not 12 <= net.prefixlen <= 64:
        raise bad(f"{text}: IPv6 ranges are /12 to /64")
    return str(net)


class Window:
    """Counts what happened in the last so many seconds."""

    def __init__(self):
        self.events = []

    def total(self, seconds, now):
        self.events = [event for event in self.events if event[0] > now - seconds]
        return sum(amount for _, amount in self.events)

    def add(self, amount, now):
        self.events.append((now, amount))


class Account:
    """Lists, items and operations. Every method holds the lock."""

    def __init__(self, name, settings):
        self.name, self.settings = name, settings
        self.lists, self.operations = {}, {}
        self.sequence = 0
        self.changes, self.change_requests = Window(), Window()
        self.stuck = []  # what shall become of the next operations

    # lists

    def create(self, name, kind, description="", list_id=None):
        if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9_]{1,50}", name):
            raise bad("name must match ^[a-zA-Z0-9_]+$ and have at most 50 characters")
        if kind != "ip":
            raise bad(f"kind {kind!r}: only ip is simulated")
        self.describable(description)
        if any(known["name"] == name for known in self.lists.values()):
            raise bad(f"a list named {name} exists", 7409)
        if len(self.lists) >= self.settings["max_lists"]:
            raise bad("the account has the maximum number of lists", 7410)
        list_id = list_id or secrets.token_hex(16)
        now = stamp()
        self.lists[list_id] = {
            "id": list_id, "name": name, "kind": kind, "description": description,
            "created_on": now, "modified_on": now, "references": 0, "items": {},
        }
        return self.shown(list_id)

    def describable(self, text):
        if not isinstance(text, str) or len(text) > 500:
            raise bad("a description or comment is text of at most 500 characters")

    def known(self, list_id):
        if list_id not in self.lists:
            raise Refused(404, 7404, "list not found")
        return self.lists[list_id]

    def shown(self, list_id):
        known = self.known(list_id)
        shown = {key: known[key] for key in
                 ("id", "name", "kind", "description", "created_on", "modified_on")}
        return shown | {"num_items": len(known["items"]),
                        "num_referencing_filters": known["references"]}

    def describe(self, list_id, body):
        known = self.known(list_id)
        if set(body) - {"description"}:
            raise bad("only the description of a list can change")
        self.describable(body.get("description", ""))
        known["description"] = body.get("description", known["description"])
        return self.shown(list_id)

    def delete(self, list_id):
        if self.known(list_id)["references"]:
            raise Refused(400, 10031, "ip_list_in_use")
        del self.lists[list_id]
        return {"id": list_id}

    # items

    def page(self, list_id, query):
        items = sorted(self.known(list_id)["items"].values(), key=lambda item: item["sequence"])
        size = query.get("per_page", str(self.settings["page_default"]))
        if not size.isdigit() or int(size) > 2**31:
            raise bad("per_page must be a non-negative 32-bit integer")
        size = min(int(size) or self.settings["page_default"], self.settings["page_max"])
        if search := query.get("search"):
            items = [item for item in items if item["ip"].startswith(search.lower())]
        after = self.position(query["cursor"]) if query.get("cursor") else 0
        left = [item for item in items if item["sequence"] > after]
        cursors = {}
        if len(left) > size:
            text = f"after:{left[size - 1]['sequence']}"
            cursors["after"] = base64.urlsafe_b64encode(text.encode()).decode()
        return [self.item(item) for item in left[:size]], {"cursors": cursors}

    def position(self, cursor):
        try:
            word, number = base64.urlsafe_b64decode(cursor).decode().split(":")
            if word == "after":
                return int(number)
        except ValueError:
            pass
        raise bad("invalid cursor")

    def item(self, item):
        shown = {key: item[key] for key in ("id", "ip", "created_on", "modified_on")}
        if item["comment"]:
            shown["comment"] = item["comment"]
        if self.settings["slash32"] and "." in shown["ip"] and "/" not in shown["ip"]:
            shown["ip"] += "/32"
        return shown

    def one(self, list_id, item_id):
        for item in self.known(list_id)["items"].values():
            if item["id"] == item_id:
                return self.item(item)
        raise Refused(404, 7404, "item not found")

    def read(self, body):
        """Items of a request, by their canonical form."""
        if not isinstance(body, list):
            raise bad("the body must be an array of items")
        read = {}
        for item in body:
            if not isinstance(item, dict) or "ip" not in item or set(item) - {"ip", "comment"}:
                raise bad("an item is {ip, comment}")
            self.describable(item.get("comment", ""))
            ip = canonical(item["ip"])
            if ip in read:
                raise bad(f"duplicate_item_value: {ip}", 10028)
            read[ip] = item.get("comment", "")
        return read

    def place(self, list_id, ip, comment):
        items = self.known(list_id)["items"]
        now = stamp()
        self.sequence += 1
        items[ip] = {
            "id": secrets.token_hex(16), "ip": ip, "comment": comment, "sequence": self.sequence,
            "created_on": items.get(ip, {}).get("created_on", now), "modified_on": now,
        }

    # operations

    def append(self, list_id, body):
        self.known(list_id)
        read = self.read(body)
        if not read:
            raise bad("at least one item")

        def apply():
            items = self.known(list_id)["items"]
            if self.held() + len(set(read) - set(items)) > self.settings["quota"]:
                return FULL
            for ip, comment in read.items():
                self.place(list_id, ip, comment)

        return self.begin(len(read), apply)

    def replace(self, list_id, body):
        known = self.known(list_id)
        read = self.read(body)

        def apply():
            if self.held() - len(known["items"]) + len(read) > self.settings["quota"]:
                return FULL
            known["items"].clear()
            for ip, comment in read.items():
                self.place(list_id, ip, comment)

        return self.begin(len(read) + len(known["items"]), apply)

    def remove(self, list_id, body):
        known = self.known(list_id)
        items = body.get("items") if isinstance(body, dict) else None
        if not isinstance(items, list) or not items:
            raise bad("items: at least one")
        if not all(isinstance(item, dict) and set(item) == {"id"} for item in items):
            raise bad("items are removed by their id and nothing else")
        ids = {item["id"] for item in items}

        def apply():
            gone = [ip for ip, item in known["items"].items() if item["id"] in ids]
            for ip in gone:
                del known["items"][ip]

        return self.begin(len(ids), apply)

    def held(self):
        return sum(len(known["items"]) for known in self.lists.values())

    def begin(self, amount, apply):
        now = time.monotonic()
        if any(not self.settled(operation, now) for operation in self.operations.values()):
            raise Refused(429, 10040, "you have been ratelimited please wait and try again: "
                          "1 pending bulk operation per account")
        limit = self.settings["item_changes"]
        if self.changes.total(HALF_DAY, now) + amount > limit:
            raise Refused(429, 10040, f"{limit} item modifications per 12 hours")
        limit = self.settings["change_requests"]
        if self.change_requests.total(HALF_DAY, now) + 1 > limit:
            raise Refused(429, 10040, f"{limit} modifying requests per 12 hours")
        self.changes.add(amount, now)
        self.change_requests.add(1, now)
        fate = self.stuck.pop(0) if self.stuck else {}
        operation = {"id": secrets.token_hex(16), "status": "pending", "apply": apply,
                     "began": now, "fate": fate}
        self.operations[operation["id"]] = operation
        return {"operation_id": operation["id"]}

    def settled(self, operation, now):
        """Carries an operation as far as it has come by now."""
        if "completed" in operation:
            return True
        passed = (now - operation["began"]) / max(self.settings["operation_seconds"], 1e-9)
        operation["status"] = "running" if passed > 0.3 else "pending"
        if passed < 1 or operation["fate"].get("hang"):
            return False
        error = operation["fate"].get("fail") or operation["apply"]()
        operation["status"] = "failed" if error else "completed"
        if error:
            operation["error"] = error
        operation["completed"] = stamp()
        return True

    def settle(self):
        now = time.monotonic()
        for operation in self.operations.values():
            self.settled(operation, now)

    def operation(self, operation_id):
        if operation_id not in self.operations:
            raise Refused(404, 7404, "operation not found")
        operation = self.operations[operation_id]
        return {key: operation[key] for key in ("id", "status", "error", "completed")
                if key in operation}


LIST = r"/accounts/([^/]+)/rules/lists/([^/]+)"
# operationId of the published schema, method, path
ROUTES = [
    ("lists-get-bulk-operation-status", "GET",
     r"/accounts/([^/]+)/rules/lists/bulk_operations/([^/]+)"),
    ("lists-get-lists", "GET", r"/accounts/([^/]+)/rules/lists"),
    ("lists-create-a-list", "POST", r"/accounts/([^/]+)/rules/lists"),
    ("lists-get-a-list", "GET", LIST),
    ("lists-update-a-list", "PUT", LIST),
    ("lists-delete-a-list", "DELETE", LIST),
    ("lists-get-list-items", "GET", LIST + "/items"),
    ("lists-create-list-items", "POST", LIST + "/items"),
    ("lists-update-all-list-items", "PUT", LIST + "/items"),
    ("lists-delete-list-items", "DELETE", LIST + "/items"),
    ("lists-get-a-list-item", "GET", LIST + "/items/([^/]+)"),
]


class Cloud:
    """The account behind its front door: token, request limit, faults, log."""

    def __init__(self, account, token, settings):
        self.account, self.token, self.settings = account, token, settings
        self.lock = threading.RLock()
        self.faults, self.log = [], []
        self.seen, self.closed_until = Window(), 0.0
        self.started = time.monotonic()

    def limit(self):
        """Answers the headers that tell of the limit."""
        now = time.monotonic()
        allowed, window = self.settings["requests"], self.settings["window"]
        if now >= self.closed_until and self.seen.total(window, now) >= allowed:
            self.closed_until = now + window
        if now < self.closed_until:
            wait = int(self.closed_until - now) + 1
            raise Refused(429, 971, "Please wait and consider throttling your request speed", wait)
        self.seen.add(1, now)
        left = allowed - self.seen.total(window, now)
        return {"Ratelimit": f'"default";r={left};t={window}',
                "Ratelimit-Policy": f'"default";q={allowed};w={window}'}

    def authorise(self, headers, account):
        if headers.get("Authorization") != f"Bearer {self.token}" or account != self.account.name:
            raise Refused(403, 10000, "Authentication error")

    def fault(self, method, path):
        for fault in self.faults:
            if fault.get("method", method) == method and re.search(fault.get("path", ""), path):
                fault["times"] = fault.get("times", 1) - 1
                if not fault["times"]:
                    self.faults.remove(fault)
                return fault
        return {}

    def answer(self, name, ids, query, body):
        """The result and, for pages, the result_info."""
        account = self.account
        account.settle()
        if name == "lists-get-lists":
            return [account.shown(known) for known in account.lists], None
        if name == "lists-create-a-list":
            if not isinstance(body, dict) or not {"name", "kind"} <= set(body):
                raise bad("name and kind are required")
            return account.create(body["name"], body["kind"], body.get("description", "")), None
        if name == "lists-get-list-items":
            return account.page(ids[0], query)
        act = {
            "lists-get-bulk-operation-status": account.operation,
            "lists-get-a-list": account.shown,
            "lists-delete-a-list": account.delete,
            "lists-get-a-list-item": account.one,
            "lists-update-a-list": lambda known: account.describe(known, body),
            "lists-create-list-items": lambda known: account.append(known, body),
            "lists-update-all-list-items": lambda known: account.replace(known, body),
            "lists-delete-list-items": lambda known: account.remove(known, body),
        }[name]
        return act(*ids), None

    # what tests and people turn

    def control(self, method, path, body):
        account = self.account
        account.settle()
        if (method, path) == ("POST", "/faults"):
            for fault in body if isinstance(body, list) else [body]:
                (account.stuck if "operation" in fault else self.faults).append(
                    fault.get("operation", fault))
        elif (method, path) == ("DELETE", "/faults"):
            self.faults.clear()
            account.stuck.clear()
        elif (method, path) == ("POST", "/release"):
            for operation in account.operations.values():
                operation["fate"] = {}
            account.settle()
        elif (method, path) == ("POST", "/settings"):
            if unknown := set(body) - set(self.settings):
                raise bad(f"no setting {unknown}")
            self.settings.update(body)
        elif (method, path) == ("GET", "/log"):
            return self.log
        elif (method, path) == ("DELETE", "/log"):
            self.log.clear()
        elif (method, path) == ("GET", "/routes"):
            return [{"operation": name, "method": verb} for name, verb, _ in ROUTES]
        elif (method, path) == ("GET", "/items"):
            return {known["name"]: [account.item(item) for item in known["items"].values()]
                    for known in account.lists.values()}
        elif method == "PUT" and path.startswith("/lists/"):
            known = account.known(path.removeprefix("/lists/"))
            known["references"] = body.get("references", known["references"])
            if "items" in body:
                known["items"].clear()
                for ip, comment in account.read(body["items"]).items():
                    account.place(known["id"], ip, comment)
        else:
            raise Refused(404, 7404, "no such control")
        return {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "cloudflare-sim"
    cloud = None

    def handle_one(self):
        began = time.monotonic()
        url = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if url.path.startswith("/_sim/"):
            with self.cloud.lock:
                status, answer, headers = self.guarded(
                    lambda: (self.cloud.control(self.command, url.path[5:], self.json(raw)), None))
            return self.reply(status, answer, headers)
        with self.cloud.lock:
            fault = self.cloud.fault(self.command, url.path)
        time.sleep(fault.get("delay", 0) + self.cloud.settings["latency"])
        if fault.get("drop") == "before":
            self.note(began, url, raw, "dropped")
            return self.cut()
        with self.cloud.lock:
            if "status" in fault:
                status, answer, headers = self.guarded(lambda: self.injected(fault))
            else:
                status, answer, headers = self.guarded(lambda: self.api(url, raw))
            self.note(began, url, raw, "dropped" if fault.get("drop") else status)
        if fault.get("drop") == "after":
            return self.cut()
        if "body" in fault:
            return self.send(fault.get("status", 200), fault["body"].encode(), headers)
        return self.reply(status, answer, headers)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_one

    def injected(self, fault):
        if "body" in fault:
            return {}, None
        raise Refused(fault["status"], fault.get("code", 7500), fault.get("message", "injected"),
                      fault.get("retry_after"))

    def json(self, raw):
        if not raw:
            return None
        try:
            return json.loads(raw)
        except ValueError as error:
            raise bad(f"the body is no JSON: {error}") from error

    def api(self, url, raw):
        limits = self.cloud.limit()
        path = url.path.removeprefix(API) if url.path.startswith(API + "/") else None
        found = [(name, verb, re.fullmatch(pattern, path or "")) for name, verb, pattern in ROUTES]
        found = [entry for entry in found if entry[2]]
        if not found:
            raise Refused(404, 7003, "Could not route to the requested path")
        name, _, match = next((e for e in found if e[1] == self.command), (None, None, None))
        if name is None:
            raise Refused(405, 7405, "method not allowed")
        account, *ids = match.groups()
        self.cloud.authorise(self.headers, account)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if name == "lists-get-list-items" and set(query) - {"cursor", "per_page", "search"}:
            raise bad(f"unknown parameters in {url.query}")
        body = self.json(raw)
        if self.command in ("POST", "PUT") and body is None:
            raise bad("a body is required")
        if raw and not self.headers.get("Content-Type", "").startswith("application/json"):
            raise Refused(415, 7415, "Content-Type must be application/json")
        result, info = self.cloud.answer(name, ids, query, body)
        self.limits = limits
        return result, info

    def guarded(self, act):
        self.limits = {}
        try:
            result, info = act()
        except Refused as refused:
            headers = {}
            if refused.retry_after is not None:
                headers["Retry-After"] = str(refused.retry_after)
            error = {"code": refused.code, "message": refused.message}
            return refused.status, {"success": False, "errors": [error], "messages": [],
                                    "result": None}, headers
        answer = {"success": True, "errors": [], "messages": [], "result": result}
        return 200, answer if info is None else answer | {"result_info": info}, self.limits

    def note(self, began, url, raw, status):
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = None
        items = body.get("items") if isinstance(body, dict) else body
        self.cloud.log.append({
            "at": round(began - self.cloud.started, 3), "method": self.command,
            "path": url.path.removeprefix(API), "query": url.query, "status": status,
            "items": len(items) if isinstance(items, list) else 0,
            "agent": self.headers.get("User-Agent", ""),
        })

    def reply(self, status, answer, headers):
        self.send(status, json.dumps(answer).encode(), headers)

    def send(self, status, body, headers):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def cut(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, BrokenPipeError)):
            super().handle_error(request, client_address)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--account", default="0123456789abcdef0123456789abcdef")
    parser.add_argument("--token", default="simulated-token")
    parser.add_argument("--list", action="append", default=[], metavar="ID=NAME")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    settings = dict(SETTINGS)
    for pair in given.set:
        key, value = pair.split("=", 1)
        if key not in settings:
            parser.error(f"no setting {key}; there are {', '.join(settings)}")
        settings[key] = json.loads(value)
    account = Account(given.account, settings)
    for pair in given.list:
        list_id, name = pair.split("=", 1)
        account.create(name, "ip", list_id=list_id)
    Handler.cloud = Cloud(account, given.token, settings)
    host, port = given.listen.rsplit(":", 1)
    server = Server((host, int(port)), Handler)
    print(f"listening on {server.server_address[0]}:{server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
