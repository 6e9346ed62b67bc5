#!/bin/sh
# A laptop to play with: builds Paceline, starts it on a state file in a new directory, and says what to try.
# Ctrl-C stops application, server and daemon, and removes the directory.
set -eu
cd "$(dirname "$0")/.."

sh tests/install-postgresql.sh
cargo build --release --locked
paceline=$PWD/target/release/paceline

directory=$(mktemp -d /tmp/paceline-demo.XXXXXX)
chmod 755 "$directory"
cp examples/demo.yaml "$directory/state.yaml"
cp examples/demo-app.sh "$directory/"
# The program may lie where the server's user cannot go; the demo's files do not.
cd "$directory"

cat <<TEXT

  state file   $directory/state.yaml
  look         $paceline status $directory/state.yaml
               tail -f $directory/home/log/racedb.log
  psql         sudo -u postgres psql -h $directory/home/run -p 54329 racedb     (or as yourself, if you are not root)
  try          edit the state file (paused: true, a wrong word, another port), kill -9 the server, the application,
               the daemon
  end          Ctrl-C

TEXT

"$paceline" run "$directory/state.yaml" &
daemon=$!
# A Ctrl-C in the terminal reaches the daemon by itself; a second signal would make it end at once.
trap : INT
trap 'kill -TERM $daemon 2> /dev/null || :' TERM
status=0
# A signal ends the first wait; the second one waits for the orderly end.
wait $daemon || status=$?
wait $daemon 2> /dev/null || :

if [ -e "$directory/home/data/postmaster.pid" ]; then
    echo "the server still runs (the daemon did not end in order); its directory stays: $directory"
else
    rm -rf "$directory"
    echo "the demo's directory is removed"
fi
exit $status
