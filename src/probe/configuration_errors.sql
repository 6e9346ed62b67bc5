-- A changed setting that only waits for a restart is listed as "could not be applied" too, and one that was taken out of
-- the file is listed without its name; these are no mistakes.
select format('%s: %s (%s:%s)', f.name, f.error, f.sourcefile, f.sourceline)
from pg_file_settings f
left join pg_settings s on lower(s.name) = lower(f.name)
where f.error is not null and not coalesce(s.pending_restart, false)
    and not (f.name is null and f.error like 'parameter % cannot be changed without restarting the server')
union all
select format('pg_hba.conf line %s: %s', line_number, error) from pg_hba_file_rules where error is not null
