#!/bin/sh
# Stands for RaceDB in the demo: every second a registration.
trap 'echo "stopping"; exit 0' TERM
psql -Xqc 'create table if not exists registration (id serial primary key, at timestamptz default now())' || exit 1
while :; do
    psql -XAtqc "insert into registration default values returning 'registration ' || id"
    sleep 1 & wait $!
done
