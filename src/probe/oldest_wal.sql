-- The names of segments are the timeline, and the position in two halves, eight hexadecimal digits each. Recycled ones
-- are called after positions to come.
select pg_lsn '0/0' + min(
    ('x' || substr(name, 9, 8))::bit(32)::bigint::numeric * 4294967296
    + ('x' || substr(name, 17, 8))::bit(32)::bigint::numeric
      * (select setting::bigint from pg_settings where name = 'wal_segment_size'))
from pg_ls_waldir()
where name ~ '^[0-9A-F]{24}$'
