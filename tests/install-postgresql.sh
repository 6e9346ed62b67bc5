#!/bin/sh
# Installs PostgreSQL's server package (Debian and its relatives) if no server program is found.
# The package's own cluster is neither created nor started. Needs root, or sudo.
set -eu

for program in /usr/lib/postgresql/*/bin/postgres /usr/pgsql-*/bin/postgres /usr/local/pgsql/bin/postgres; do
    [ -x "$program" ] && exit 0
done
command -v postgres > /dev/null && exit 0

command -v apt-get > /dev/null || {
    echo "no PostgreSQL server found, and no apt-get to install it with: install PostgreSQL 13 or newer, then try again" >&2
    exit 1
}
if [ "$(id -u)" = 0 ]; then
    as_root() { env DEBIAN_FRONTEND=noninteractive "$@"; }
elif command -v sudo > /dev/null; then
    as_root() { sudo env DEBIAN_FRONTEND=noninteractive "$@"; }
else
    echo "no PostgreSQL server found: install it as root (apt-get install postgresql), or install sudo, then try again" >&2
    exit 1
fi

echo "installing PostgreSQL's server package" >&2
as_root apt-get update -q >&2
as_root apt-get install -q -y --no-install-recommends postgresql-common >&2
settings=/etc/postgresql-common/createcluster.conf
before=$(mktemp)
cp "$settings" "$before"
as_root pg_conftool "$settings" set create_main_cluster off
status=0
as_root apt-get install -q -y --no-install-recommends postgresql >&2 || status=$?
# As it was: only this installation goes without a cluster of its own.
as_root cp "$before" "$settings"
rm -f "$before"
exit $status
