-- PostgreSQL keeps `pending_restart` of a setting that was put into a file and taken out again before a restart, for
-- good. Such a one is in no file and comes from none: a restart would change nothing. Nor would it where what comes
-- instead is the value in force: so it is between the removal of a line and the next reload. A setting that is in no
-- file any more goes back to its own default, which is written here as `current_setting` writes values. What an
-- extension's setting holds nobody knows: it is not shown.
with wanted as (
    select s.name, s.setting, s.boot_val, s.unit, s.source, f.setting as in_file, f.name is not null as declared
    from pg_settings s
    left join lateral (
        select f.name, f.setting from pg_file_settings f
        where lower(f.name) = lower(s.name)
        order by f.seqno desc limit 1) f on true
    where s.pending_restart
)
select json_build_object(
    'name', name,
    'in_force', case when name not like '%.%' then current_setting(name) end,
    'wanted', case
        when name like '%.%' then null
        when declared then in_file
        when unit like '%B' and boot_val ~ '^[0-9]+$' then replace(pg_size_pretty(boot_val::bigint
            * pg_size_bytes(case when unit ~ '^[0-9]' then unit else '1' || unit end)), ' ', '')
        else coalesce(boot_val, '') || coalesce(unit, '')
    end)
from wanted
where case
    when declared then in_file is distinct from current_setting(name)
    else source = 'configuration file' and setting is distinct from boot_val
end
order by name
