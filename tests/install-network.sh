#!/bin/sh
# Installs what the tests need that put two laptops into network namespaces (ip, nft; Debian and its relatives), and
# looks whether such namespaces are permitted here. Exit code 0: they are. 1: they are not, with the reason; those tests
# are then skipped.
set -eu
export PATH="$PATH:/usr/sbin:/sbin"

without() {
    echo "no network namespaces: $1; the tests of tests/network.rs are skipped" >&2
    exit 1
}

[ "$(uname -s)" = Linux ] || without "this is not Linux"
[ "$(id -u)" = 0 ] || without "they need root"

missing=
command -v ip > /dev/null || missing="$missing iproute2"
command -v nft > /dev/null || missing="$missing nftables"
if [ -n "$missing" ]; then
    command -v apt-get > /dev/null || without "not installed, and no apt-get to install it with:$missing"
    echo "installing$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # one word for each package
    { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } >&2 ||
        without "cannot install$missing"
fi

# The namespaces go with the shell that holds them; those of the tests have names, and are made and removed there.
why=$(unshare --net --mount sh -c '
    ip link add bridge type bridge && ip link add one type veth peer name other && nft add table netdev probe
' 2>&1) || without "not permitted here (in a container: it needs CAP_SYS_ADMIN and CAP_NET_ADMIN): $why"
