select json_build_object(
    'uuid', uuid, 'parent', parent, 'supersedes', supersedes, 'begin_lsn', begin_lsn::text,
    'timeline', timeline, 'node', node, 'time', "time")
from paceline.epoch
order by timeline, begin_lsn
