#!/usr/bin/env bash
# Shows jailgate's main job on loopback in half a minute. Needs bash and the binary, nothing else.
# usage: demo/demo.sh PATH-TO-JAILGATE    (PORT=8080, ADMIN=9180; KEEP=1 leaves it running)
set -euo pipefail
bin=${1:?usage: demo/demo.sh PATH-TO-JAILGATE}
port=${PORT:-8080}
admin=${ADMIN:-9180}
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d)
pid=

finish() {
    [ -z "$pid" ] || { kill -TERM "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; } || true
    rm -rf "$tmp"
}
trap finish EXIT

say() { printf '\n── %s\n' "$*"; }
fail() {
    echo "demo failed: $*" >&2
    tail -20 "$tmp/log" >&2 || true
    exit 1
}
listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# One request as CLIENT for PATH; prints what the client sees and leaves the status in $status.
ask() {
    local line retry=
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf 'GET %s HTTP/1.1\r\nHost: demo.localhost\r\nX-Forwarded-For: %s\r\nConnection: close\r\n\r\n' \
        "$2" "$1" >&3
    read -r -t 5 _ status _ <&3 || fail "no answer"
    while read -r -t 5 line <&3 && line=${line%$'\r'} && [ -n "$line" ]; do
        case ${line,,} in retry-after:*) retry="   Retry-After: ${line#*: } s" ;; esac
    done
    exec 3<&- 3>&-
    printf '   %-14s GET %-20s → %s%s\n' "$1" "$2" "$status" "$retry"
}
expect() { [ "$status" = "$1" ] || fail "expected $1, got $status"; }

for taken in "$port" "$admin"; do
    if listening "$taken"; then
        echo "something already listens on 127.0.0.1:$taken; try: PORT=8090 ADMIN=9190 make demo" >&2
        exit 1
    fi
done
sed "s/127.0.0.1:8080/127.0.0.1:$port/" "$here/jailgate.yaml" >"$tmp/jailgate.yaml"
echo "admin: { address: \"127.0.0.1:$admin\" }" >>"$tmp/jailgate.yaml"

say "jailgate run -c demo/jailgate.yaml     (4 failures within 10 minutes: banned for 3 hours)"
"$bin" run -c "$tmp/jailgate.yaml" >"$tmp/log" 2>&1 </dev/null &
pid=$!
for _ in {1..50}; do
    kill -0 "$pid" 2>/dev/null || fail "it did not start"
    listening "$port" && break
    sleep 0.1
done

say "an honest client uses the service"
ask 198.51.100.20 /app; expect 200
ask 198.51.100.20 /app/news; expect 200

say "a scanner tries what is not there; its fourth failure is answered by the ban"
for path in /wp-login.php /.env /phpmyadmin; do ask 203.0.113.66 $path; expect 404; done
ask 203.0.113.66 /.git/config; expect 403
say "it is banned everywhere now, also from what exists; the service is not touched"
ask 203.0.113.66 /app; expect 403

say "one mistake is nobody's ban, and others do not notice"
ask 198.51.100.20 /no-such-page; expect 404
ask 198.51.100.20 /app; expect 200

say "what jailgate logged"
grep -a 203.0.113.66 "$tmp/log" | sed 's/^/   /' || fail "the ban is not in the log"

if [ "${KEEP:-}" = 1 ]; then
    say "left running (pid $pid) on http://127.0.0.1:$port, log in $tmp/log; stop it with: kill $pid"
    trap - EXIT
    disown "$pid"
else
    say "done; stopped. KEEP=1 make demo leaves it running"
fi
