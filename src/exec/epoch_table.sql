create schema if not exists paceline authorization postgres;
create table if not exists paceline.epoch (
    uuid uuid primary key,
    parent uuid,
    supersedes uuid[] not null,
    begin_lsn pg_lsn not null,
    timeline integer not null,
    node text not null,
    -- As it was written; for people, never compared.
    "time" text not null
);
revoke all on schema paceline from public;
