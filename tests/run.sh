#!/bin/sh
# Everything that has to be right: format, lints, tests, schema. Installs PostgreSQL if it is missing, and as root what
# the tests with two laptops in network namespaces need.
#
#   tests/run.sh            all
#   tests/run.sh NAME…      only the tests of these files, such as: tests/run.sh planner lifecycle
set -eu
cd "$(dirname "$0")/.."

sh tests/install-postgresql.sh
# Where they are permitted a test that skips itself for want of them is a failure.
if sh tests/install-network.sh; then export PACELINE_TEST_NETWORK=1; fi
# A linker and the C library's headers are what Rust itself needs.
command -v cc > /dev/null || { echo "no C compiler (Rust links with it): apt-get install gcc libc6-dev" >&2; exit 1; }

# A snapshot that differs is a failure, never an update.
export INSTA_UPDATE=no CARGO_TERM_COLOR=never

if [ $# -gt 0 ]; then
    for name; do set -- "$@" --test "$name"; shift; done
    exec cargo test "$@"
fi

cargo fmt --check
cargo clippy --all-targets --locked -- -D warnings
cargo test --locked
cargo run --quiet --locked -- schema | diff - schema/state.schema.json
echo "all right: format, lints, tests, schema"
