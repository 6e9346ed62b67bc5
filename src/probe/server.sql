select
    pg_is_in_recovery() as in_recovery,
    current_setting('transaction_read_only') as read_only,
    exists (select from pg_stat_wal_receiver where status = 'streaming') as streaming,
    (select system_identifier from pg_control_system()) as system_identifier,
    -- pg_control's timeline is stale after a promotion, so a writing server is asked for its WAL file.
    case
        when pg_is_in_recovery() then greatest(
            (select received_tli from pg_stat_wal_receiver),
            -- Without a receiver pg_control alone may still name a timeline that was left long ago (until the next
            -- restartpoint), and the copy would look forked. What was received lies in segments of its timeline.
            (select max(('x' || substr(pg_ls_waldir.name, 1, 8))::bit(32)::int)
             from pg_ls_waldir(), pg_settings
             where pg_settings.name = 'wal_segment_size' and pg_ls_waldir.name ~ '^[0-9A-F]{24}$'
                 and not exists (select from pg_stat_wal_receiver where received_tli > 0)
                 and div(greatest(coalesce(pg_last_wal_replay_lsn(), pg_lsn '0/1'), coalesce(pg_last_wal_receive_lsn(), pg_lsn '0/1'))
                     - pg_lsn '0/1', setting::numeric)
                 = ('x' || substr(pg_ls_waldir.name, 9, 8))::bit(32)::bigint * (4294967296 / setting::bigint)
                     + ('x' || substr(pg_ls_waldir.name, 17, 8))::bit(32)::bigint),
            (select min_recovery_end_timeline from pg_control_recovery()),
            (select timeline_id from pg_control_checkpoint()))
        else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
    end as timeline,
    case
        -- What was received is replayed before a promotion ends.
        when pg_is_in_recovery() then
            greatest(coalesce(pg_last_wal_replay_lsn(), '0/0'), coalesce(pg_last_wal_receive_lsn(), '0/0'))
        else pg_current_wal_lsn()
    end as lsn,
    -- The WAL receiver is asked for only when everything that lies here is replayed.
    not pg_is_in_recovery() or pg_last_wal_receive_lsn() is not null
        or current_setting('primary_conninfo') = '' as position_proven,
    current_setting('synchronous_standby_names') <> '' as synchronous,
    current_setting('server_version') as version,
    current_setting('paceline.configuration', true) as configuration,
    (select timeline_id from pg_control_checkpoint()) as checkpoint_timeline,
    case when pg_is_in_recovery() then 0
        else pg_current_wal_lsn() - (select redo_lsn from pg_control_checkpoint()) end as since_checkpoint,
    case when pg_is_in_recovery() then pg_is_wal_replay_paused() else false end as replay_paused,
    case when pg_is_in_recovery() then pg_last_xact_replay_timestamp()::text end as replayed_until
