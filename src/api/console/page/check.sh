#!/bin/sh
# Builds the console anew, compares, and drives it in Chromium against the karat that was built.
#
# Neither Node.js nor a browser is needed to build karat. Where they are missing and can't be installed, this is said and
# passed over, unless CONSOLE_CHECK=must.
set -eu
cd "$(dirname "$0")"

missing() {
    echo "console-check: SKIPPED, the console is not tested: $1" >&2
    [ "${CONSOLE_CHECK:-}" != must ]
    exit
}

# The browser that CHROMIUM names, or what is there of Chromium; nothing where there is none.
browser() {
    command -v "${CHROMIUM:-chromium}" || command -v chromium-browser || command -v google-chrome || true
}

# Debian's packages, where this may install them; what it still lacks is told below.
install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    echo "console-check: installing Debian's $*" >&2
    export DEBIAN_FRONTEND=noninteractive
    { timeout 120 apt-get update -qq && timeout 600 apt-get install -qq -y --no-install-recommends "$@"; } \
        >/dev/null 2>&1 </dev/null || true
}

command -v npm >/dev/null || install nodejs npm
command -v npm >/dev/null || missing "there is no npm; install Node.js 20.19 or newer"
node --eval 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' ||
    missing "Node.js is $(node --version); install 20.19 or newer"
[ -n "$(browser)" ] || install chromium
CHROMIUM=$(browser)
[ -n "$CHROMIUM" ] || missing "there is no Chromium; install Debian's chromium, or name one with CHROMIUM"
export CHROMIUM

npm ci --silent --no-audit --no-fund || missing "npm can't fetch what package-lock.json names"
before=$(cat ../built/digests.txt)
npm run --silent build
if [ "$before" != "$(cat ../built/digests.txt)" ]; then
    echo "console-check: src/api/console/built was not what these sources make; it is now: commit it" >&2
    exit 1
fi
npm run --silent check
