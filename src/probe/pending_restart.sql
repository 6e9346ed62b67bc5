-- PostgreSQL keeps `pending_restart` of a setting that was put into a file and taken out again before a restart, for
-- good. Such a one is in no file and comes from none: a restart would change nothing.
select s.name
from pg_settings s
where s.pending_restart
  and (s.source = 'configuration file'
       or exists (select from pg_file_settings f where lower(f.name) = lower(s.name)))
order by 1
