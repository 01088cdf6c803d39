#!/usr/bin/env bash
# Installs the servers and clients that the tests talk to, when they are missing (Debian, Ubuntu).
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

# command → package
needed="nginx:nginx caddy:caddy haproxy:haproxy curl:curl h2load:nghttp2-client faketime:faketime openssl:openssl promtool:prometheus logrotate:logrotate chromium:chromium node:nodejs npm:npm"

missing=()
for pair in $needed; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
# A real LAPI, unpacked and never installed (its post-installation script wants the internet): the
# tests start it from this directory. It needs SQLite's library, which is on most machines.
tools=${JAILGATE_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/jailgate}
crowdsec=$tools/crowdsec
# Cloudflare's own Python SDK, which drives the simulator once.
sdk=$tools/cloudflare-sdk
# Plays strange requests at the admin API, made from its OpenAPI.
schemathesis=$tools/schemathesis
unpack=()
[ -x "$crowdsec/usr/bin/crowdsec" ] || unpack=(crowdsec)
ldconfig -p | grep 'libsqlite3\.so\.0' >/dev/null || missing+=(libsqlite3-0)
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)

install_python() {
    local into=$1 package=$2
    [ -e "$into/done" ] && return
    echo "installing for the tests: $package into $into"
    python3 -m venv "$into"
    "$into/bin/pip" install --quiet --disable-pip-version-check "$package"
    touch "$into/done"
}

install_pythons() {
    install_python "$sdk" cloudflare==5.9.0
    install_python "$schemathesis" schemathesis==4.32.5
}

# What drives Chromium and judges its pages, at versions that are known to work.
install_drivers() {
    local browser=$tools/browser drivers="playwright-core@1.65.1 axe-core@4.14.1"
    [ "$(cat "$browser/versions" 2>/dev/null)" = "$drivers" ] && return
    echo "installing for the tests: $drivers into $browser"
    mkdir -p "$browser"
    # shellcheck disable=SC2086
    npm install --prefix "$browser" --no-save --no-audit --no-fund --silent $drivers
    echo "$drivers" >"$browser/versions"
}

if [ $((${#missing[@]} + ${#unpack[@]})) -eq 0 ]; then
    install_pythons
    install_drivers
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    echo "the tests need these packages, install them first: ${missing[*]} ${unpack[*]}" >&2
    exit 1
fi
root=()
[ "$(id -u)" = 0 ] || root=(sudo)
"${root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 update

install_packages() {
    # Debian starts a service as soon as it is installed; exit code 101 here says not to.
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
        "${root[@]}" chmod 755 $policy
        # shellcheck disable=SC2064
        trap "${root[*]} rm -f $policy" EXIT
    fi
    echo "installing for the tests: ${missing[*]}"
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

unpack_crowdsec() {
    echo "unpacking for the tests: crowdsec into $crowdsec"
    mkdir -p "$(dirname "$crowdsec")"
    local dir
    dir=$(mktemp -d -p "$(dirname "$crowdsec")")
    (
        cd "$dir"
        apt-get -qq download crowdsec 2>/dev/null # warns that root downloads unsandboxed
        dpkg-deb -x crowdsec_*.deb tree
    )
    rm -rf "$crowdsec"
    mv "$dir/tree" "$crowdsec"
    rm -rf "$dir"
}

[ ${#missing[@]} -eq 0 ] || install_packages
[ ${#unpack[@]} -eq 0 ] || unpack_crowdsec
install_pythons
install_drivers
