select
    pg_is_in_recovery() as in_recovery,
    current_setting('transaction_read_only') as read_only,
    exists (select from pg_stat_wal_receiver where status = 'streaming') as streaming,
    (select system_identifier from pg_control_system()) as system_identifier,
    -- pg_control's timeline is stale after a promotion, so a writing server is asked for its WAL file.
    case
        when pg_is_in_recovery() then coalesce(
            (select received_tli from pg_stat_wal_receiver),
            (select timeline_id from pg_control_checkpoint()))
        else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
    end as timeline,
    case
        when pg_is_in_recovery() then coalesce(pg_last_wal_replay_lsn(), '0/0')
        else pg_current_wal_lsn()
    end as lsn,
    current_setting('server_version') as version,
    current_setting('paceline.configuration', true) as configuration
