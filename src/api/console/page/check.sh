#!/bin/sh
# Builds the console anew, compares, and drives it in Chromium against the karat that was built.
#
# Neither Node.js nor a browser is needed to build karat. Where they are missing and can't be installed, this is said and
# passed over, unless CONSOLE_CHECK=must.
set -eu
cd "$(dirname "$0")"

missing() {
    echo "console-check: SKIPPED: $1" >&2
    [ "${CONSOLE_CHECK:-}" != must ]
    exit
}

command -v npm >/dev/null || missing "there is no npm; install Node.js 20.19 or newer"
node --eval 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' ||
    missing "Node.js is $(node --version); install 20.19 or newer"
if [ ! -x "${CHROMIUM:-/usr/bin/chromium}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "console-check: installing Debian's chromium" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium; } \
        >/dev/null 2>&1 || true
fi
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] || missing "there is no /usr/bin/chromium; install it, or name one with CHROMIUM"

npm ci --silent --no-audit --no-fund || missing "npm can't fetch what package-lock.json names"
before=$(cat ../built/digests.txt)
npm run --silent build
if [ "$before" != "$(cat ../built/digests.txt)" ]; then
    echo "console-check: src/api/console/built was not what these sources make; it is now: commit it" >&2
    exit 1
fi
npm run --silent check
