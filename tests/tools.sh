#!/usr/bin/env bash
# Installs the servers and clients that the tests talk to, when they are missing (Debian, Ubuntu).
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

# command → package
needed="nginx:nginx caddy:caddy haproxy:haproxy curl:curl h2load:nghttp2-client"

missing=()
for pair in $needed; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "the tests need these packages, install them first: ${missing[*]}" >&2
    exit 1
fi
root=()
[ "$(id -u)" = 0 ] || root=(sudo)

# Debian starts a service as soon as it is installed; exit code 101 here says not to.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
    "${root[@]}" chmod 755 $policy
    # shellcheck disable=SC2064
    trap "${root[*]} rm -f $policy" EXIT
fi
echo "installing for the tests: ${missing[*]}"
"${root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 update
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
    install --no-install-recommends "${missing[@]}" </dev/null >/dev/null
