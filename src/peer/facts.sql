select
    pg_is_in_recovery() as in_recovery,
    current_setting('transaction_read_only') as read_only,
    (select system_identifier from pg_control_system()) as system_identifier,
    -- As in probe/server.sql. What a WAL receiver does is shown only to roles with pg_read_all_stats.
    case
        when pg_is_in_recovery() then greatest(
            (select received_tli from pg_stat_wal_receiver),
            (select min_recovery_end_timeline from pg_control_recovery()),
            (select timeline_id from pg_control_checkpoint()))
        else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
    end as timeline,
    -- A receiver whose timeline is hidden from us may be on a newer one.
    not exists (select from pg_stat_wal_receiver where received_tli is null) as timeline_certain,
    exists (select from pg_stat_wal_receiver where status = 'streaming') as streaming,
    case
        when pg_is_in_recovery() then
            greatest(coalesce(pg_last_wal_replay_lsn(), '0/0'), coalesce(pg_last_wal_receive_lsn(), '0/0'))
        else pg_current_wal_lsn()
    end as position,
    current_setting('server_version_num')::int / 10000 as major
