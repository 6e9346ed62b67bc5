//! The server settings that a state file cannot declare under `postgres.settings`, each with the reason.
//!
//! One list serves two ends: such a setting is refused in the file, and whoever writes the server's configuration purges
//! the same names from `postgresql.auto.conf`, where they would win. Only data; it must not decide anything.

/// Name and what to do instead, as the end of a help line.
const TABLE: [(&str, &str); 37] = [
    ("data_directory", "declare `postgres.data_directory` instead"),
    (
        "config_file",
        "Paceline writes the configuration itself: put single settings under `postgres.settings`",
    ),
    ("hba_file", "declare `postgres.allow` or `postgres.hba` instead"),
    ("ident_file", "Paceline writes this file itself: leave it out"),
    ("port", "declare `postgres.port` instead"),
    ("listen_addresses", "declare `postgres.listen_addresses` instead"),
    (
        "unix_socket_directories",
        "the socket is in `run` of `home`: declare `home` instead",
    ),
    (
        "external_pid_file",
        "Paceline finds the server without it: leave it out",
    ),
    ("event_source", "it only exists on Windows: leave it out"),
    // Without these there is no replication, no rewind, or no notice of a laptop that is gone.
    (
        "wal_level",
        "replication needs `replica`, which Paceline sets: leave it out",
    ),
    (
        "hot_standby",
        "Paceline sets it, since it has to ask a standby: leave it out",
    ),
    (
        "wal_log_hints",
        "Paceline sets it, since a rewind needs it: leave it out",
    ),
    (
        "wal_sender_timeout",
        "Paceline sets it, since a handover depends on it: leave it out",
    ),
    ("wal_receiver_timeout", "Paceline sets it: leave it out"),
    ("wal_retrieve_retry_interval", "Paceline sets it: leave it out"),
    ("password_encryption", "it is always scram-sha-256: leave it out"),
    (
        "max_slot_wal_keep_size",
        "declare `replication.max_slot_wal_keep_size` instead",
    ),
    // Whom a server follows is the role's business.
    (
        "primary_conninfo",
        "declare `peer` (or `nodes`) and `replication` instead",
    ),
    ("primary_slot_name", "declare `peer` (or `nodes`) instead"),
    (
        "synchronous_standby_names",
        "declare `replication.durability` instead",
    ),
    ("promote_trigger_file", "declare `postgres.trigger_file` instead"),
    // Set while a recovery runs, and at no other time.
    ("restore_command", "declare `recovery.restore_command` instead"),
    ("archive_cleanup_command", "declare `archive.keep` instead"),
    ("recovery_end_command", "declare `recovery` instead"),
    ("recovery_target", "declare `recovery.target` instead"),
    ("recovery_target_action", "declare `recovery.target` instead"),
    ("recovery_target_inclusive", "declare `recovery.target` instead"),
    ("recovery_target_lsn", "declare `recovery.target` instead"),
    ("recovery_target_name", "declare `recovery.target` instead"),
    ("recovery_target_time", "declare `recovery.target` instead"),
    ("recovery_target_timeline", "declare `recovery.target` instead"),
    ("recovery_target_xid", "declare `recovery.target` instead"),
    // Turned off, they make a database that does not survive a power cut.
    (
        "fsync",
        "turning it off loses data in a power cut; it stays on: leave it out",
    ),
    (
        "full_page_writes",
        "turning it off loses data in a power cut; it stays on: leave it out",
    ),
    // Not settings but instructions, which could bring in any of the above.
    (
        "include",
        "a file cannot be included here: put its settings under `postgres.settings`",
    ),
    (
        "include_dir",
        "a directory cannot be included here: put its settings under `postgres.settings`",
    ),
    (
        "include_if_exists",
        "a file cannot be included here: put its settings under `postgres.settings`",
    ),
];

const NAMES: [&str; TABLE.len()] = {
    let mut names = [""; TABLE.len()];
    let mut row = 0;
    while row < TABLE.len() {
        names[row] = TABLE[row].0;
        row += 1;
    }
    names
};

/// The names, in lower case.
pub const MANAGED_SETTINGS: &[&str] = &NAMES;

/// What to do instead of declaring the setting `name` (in lower case); `None`: it may be declared.
pub fn instead_of(name: &str) -> Option<&'static str> {
    TABLE
        .iter()
        .find(|(managed, _)| *managed == name)
        .map(|(_, instead)| *instead)
}
