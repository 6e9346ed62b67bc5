#!/bin/sh
# Everything that has to be right: format, lints, tests, schema. Installs PostgreSQL if it is missing.
#
#   tests/run.sh            all
#   tests/run.sh NAME…      only the tests of these files, such as: tests/run.sh planner lifecycle
set -eu
cd "$(dirname "$0")/.."

sh tests/install-postgresql.sh
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
