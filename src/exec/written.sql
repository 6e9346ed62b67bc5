select
    pg_is_in_recovery() as in_recovery,
    (select system_identifier from pg_control_system()) as system_identifier,
    -- pg_control's timeline is stale after a promotion.
    case when not pg_is_in_recovery()
        then ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end as timeline,
    case when not pg_is_in_recovery() then pg_current_wal_lsn() end as position
