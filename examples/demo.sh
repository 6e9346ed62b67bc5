#!/bin/sh
# Two laptops to play with on this machine: installs PostgreSQL if it is missing, builds Paceline, runs `paceline demo`.
#
#   examples/demo.sh              edit state files, kill things, and watch; Ctrl-C ends and removes everything
#   examples/demo.sh --script     an event day that plays itself, in half a minute
set -eu
cd "$(dirname "$0")/.."

sh tests/install-postgresql.sh
cargo build --release --locked
exec target/release/paceline demo "$@"
