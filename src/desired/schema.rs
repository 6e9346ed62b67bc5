//! The shape of the state file as editors see it: documented types from which the JSON schema is derived.
//!
//! Nothing is ever read into these types, since serde stops at the first mistake and a person wants to see all of them:
//! [`super::validate`] walks the tree of the file instead. `tests/state_file.rs` proves that both agree. The comments
//! on the fields are what an editor shows to a race crew, so they are written for one.

// The types exist for their descriptions; no value of them is ever made.
#![expect(
    dead_code,
    clippy::zero_sized_map_values,
    reason = "only the schema is derived from these types"
)]

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema, json_schema};

use super::model::{AfterCrash, Durability, Role, SslMode};

/// Digits with a unit, once or several times: `10s`, `1h 30m`.
const DURATION: &str = "^[0-9]+(ms|s|sec|min|m|h|d)( ?[0-9]+(ms|s|sec|min|m|h|d))*$";

/// The state file of Paceline: which role this laptop's database has, and everything around it. Most laptops need two
/// lines: `role` and `peer`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, title = "Paceline state file",
    extend("oneOf" = [{"required": ["role"], "properties": {"nodes": false}},
        {"required": ["nodes"], "properties": {"role": false, "peer": false}}]))]
struct StateFile {
    /// What this laptop is: the one word that you change during an event. Not used together with `nodes`.
    role: Option<Role>,
    /// `true`: Paceline only watches and reports. It starts nothing, stops nothing and changes nothing.
    #[schemars(extend("default" = false))]
    paused: Option<bool>,
    /// The name of this laptop. Default: its host name. With `nodes`: which of the entries is this laptop.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"))]
    node: Option<String>,
    /// Where the other laptop is. Leave it out if there is only one. Not used together with `nodes`.
    peer: Option<Peer>,
    /// Both laptops in one file, which can then be the same on both. Each finds itself by `--node`, `node`, its host
    /// name or its address; the other entry is its peer.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 2,
        "propertyNames" = {"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"}))]
    nodes: Option<BTreeMap<String, NodeEntry>>,
    /// Where Paceline keeps what it writes for itself. Default: `/var/lib/paceline` as root, else
    /// `~/.local/state/paceline`.
    #[schemars(length(min = 1))]
    home: Option<String>,
    /// The database server.
    postgres: Option<Postgres>,
    /// How the two laptops are kept the same.
    replication: Option<Replication>,
    /// A continuous backup, for example on a USB stick.
    archive: Option<Archive>,
    /// What `role: recovery` restores.
    recovery: Option<Recovery>,
    /// The application (RaceDB) that runs only while this laptop's database may be written to.
    racedb: Option<App>,
    /// An address that always belongs to the laptop whose database may be written to.
    address: Option<VirtualAddress>,
    /// The read-only status page and interface of Paceline.
    api: Option<Api>,
    /// Waiting times, and what is kept.
    safety: Option<Safety>,
    /// The token that `paceline status` shows when a step could lose data. Writing it here allows that step, once.
    consent: Option<Word>,
}

/// One laptop of `nodes`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct NodeEntry {
    /// What this laptop is.
    role: Role,
    /// Host name or address at which the other laptop reaches it.
    #[schemars(length(min = 1))]
    address: String,
    /// Its PostgreSQL port. Default: `postgres.port`.
    port: Option<Port>,
    /// The port of its status page. Default: the port of `api.listen`.
    api_port: Option<Port>,
}

/// The other laptop.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct PeerKeys {
    /// Host name or address of the other laptop.
    #[schemars(length(min = 1))]
    host: String,
    /// Its PostgreSQL port.
    #[schemars(extend("default" = 5432))]
    port: Option<Port>,
    /// The port of its status page.
    #[schemars(extend("default" = 8432))]
    api_port: Option<Port>,
}

/// The database server.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Postgres {
    /// The directory of the database. It must not be a mount point itself, since Paceline renames it. Default: `data`
    /// in `home`.
    #[schemars(length(min = 1))]
    data_directory: Option<String>,
    /// Where the programs of PostgreSQL are. Default: the version that fits the data, else the newest one found.
    #[schemars(length(min = 1))]
    bin_directory: Option<String>,
    /// The port that PostgreSQL answers on.
    #[schemars(extend("default" = 5432))]
    port: Option<Port>,
    /// On which of its addresses PostgreSQL answers. Default: `"*"` (all) with another laptop, else `localhost`.
    #[schemars(length(min = 1))]
    listen_addresses: Option<String>,
    /// The user whom PostgreSQL runs as. Default: `postgres` if Paceline runs as root, else the user of Paceline.
    #[schemars(length(min = 1))]
    os_user: Option<String>,
    /// Further settings of PostgreSQL, as in `postgresql.conf`. The ones that Paceline manages itself are refused.
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Za-z_][A-Za-z0-9_.]*$"}))]
    settings: Option<BTreeMap<String, Scalar>>,
    /// Networks that may connect, such as `192.168.40.0/24`; always with a password. Default: none.
    #[schemars(inner(length(min = 1)))]
    allow: Option<Vec<String>>,
    /// Further lines of `pg_hba.conf`, put before the ones of Paceline exactly as they stand here.
    hba: Option<Vec<HbaLine>>,
    /// The database of the application. It is made if it does not exist.
    database: Option<Database>,
    /// While this file exists, `role: standby` means `role: failover`.
    #[schemars(length(min = 1))]
    trigger_file: Option<String>,
}

/// The database of the application.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Database {
    /// Name of the database.
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_-]{0,62}$"))]
    name: String,
    /// The database user that it belongs to. Default: the same word as `name`.
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_-]{0,62}$"))]
    owner: Option<String>,
    /// A file whose first line is that user's password. Default: one that Paceline makes in `home`.
    #[schemars(length(min = 1))]
    password_file: Option<String>,
}

/// How the two laptops are kept the same.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Replication {
    /// The database user that the other laptop copies with.
    #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_-]{0,62}$"), extend("default" = "replicator"))]
    user: Option<String>,
    /// The file that holds the password; the same on both laptops. Default: `secrets/replication` in `home`.
    #[schemars(length(min = 1))]
    password_file: Option<String>,
    /// Whether the line between the laptops is encrypted, in the words of PostgreSQL's `sslmode`.
    #[schemars(extend("default" = "prefer"))]
    sslmode: Option<SslMode>,
    /// What has to have happened before an entry counts as saved.
    #[schemars(extend("default" = "async"))]
    durability: Option<Durability>,
    /// How much disk may be used to wait for a laptop that is away: a number with kB, MB, GB or TB.
    #[schemars(regex(pattern = r"^[1-9][0-9]* ?(kB|MB|GB|TB)$"), extend("default" = "4GB"))]
    max_slot_wal_keep_size: Option<String>,
}

/// A continuous backup.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Archive {
    /// The directory of the backup, for example on a USB stick.
    #[schemars(length(min = 1))]
    directory: String,
    /// How often a full copy is made, such as `6h`.
    #[schemars(regex(pattern = DURATION), extend("default" = "6h"))]
    base_backup_every: Option<String>,
    /// How many full copies are kept.
    #[schemars(range(min = 1, max = 1000), extend("default" = 3))]
    keep: Option<u32>,
}

/// What `role: recovery` restores: a directory, a command, or both.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Recovery {
    /// An archive directory, a base backup directory, or a tar file of one.
    #[schemars(length(min = 1))]
    from: Option<String>,
    /// A command that fetches one WAL file, as PostgreSQL's `restore_command`.
    #[schemars(length(min = 1))]
    restore_command: Option<String>,
    /// Up to which moment.
    #[schemars(extend("default" = "latest"))]
    target: Option<Target>,
    /// Any word or number. Change it to ask for the same restore again.
    #[schemars(extend("default" = "1"))]
    request: Option<Word>,
}

/// The application that runs only while this laptop's database may be written to.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct App {
    /// The program and its arguments, as a list. `{port}` is replaced by the port that the program has to answer on.
    #[schemars(length(min = 1))]
    command: Vec<Scalar>,
    /// The directory in which the program is started. Default: the one of this file.
    #[schemars(length(min = 1))]
    working_directory: Option<String>,
    /// The user whom the program runs as; never root. Default: `postgres.os_user`.
    #[schemars(length(min = 1))]
    user: Option<String>,
    /// Further environment variables. The ones that lead to the database are there already.
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}))]
    environment: Option<BTreeMap<String, Scalar>>,
    /// What the stations use, such as `0.0.0.0:8080`; the same on both laptops.
    #[schemars(length(min = 1))]
    listen: Option<String>,
    /// The program's own port behind `listen`; `auto`: a fresh one at each start.
    #[schemars(extend("default" = "auto"))]
    port: Option<AppPort>,
    /// `true`: the program is loaded early and waits for one line on its standard input before it touches the database.
    #[schemars(extend("default" = false))]
    prewarm: Option<bool>,
    /// A page that really reads the database, such as `/RaceDB/GetEvents/`.
    #[schemars(regex(pattern = "^/[!-~]*$"))]
    health: Option<String>,
    /// How long a start may take.
    #[schemars(regex(pattern = DURATION), extend("default" = "60s"))]
    start_timeout: Option<String>,
    /// How the program is stopped.
    stop: Option<Stop>,
}

/// How the program is stopped.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Stop {
    /// The signal that asks it to stop.
    #[schemars(extend("default" = "SIGTERM"))]
    signal: Option<Signal>,
    /// How long it may take before it is killed.
    #[schemars(regex(pattern = DURATION), extend("default" = "10s"))]
    grace: Option<String>,
}

/// A signal.
#[derive(JsonSchema)]
#[schemars(rename_all = "UPPERCASE")]
enum Signal {
    /// Please stop (the usual one).
    Sigterm,
    /// As if somebody had pressed Ctrl-C.
    Sigint,
    /// As if somebody had pressed Ctrl-\.
    Sigquit,
    /// The terminal is gone.
    Sighup,
    /// Whatever the program makes of it.
    Sigusr1,
    /// Whatever the program makes of it.
    Sigusr2,
}

/// An address that always belongs to the laptop whose database may be written to.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct VirtualAddress {
    /// The address with its prefix length, such as `192.168.40.10/24`.
    #[schemars(length(min = 1))]
    virtual_ip: String,
    /// The network interface; `auto`: the one in the same network.
    #[schemars(regex(pattern = "^[!-.0-~]{1,15}$"), extend("default" = "auto"))]
    interface: Option<String>,
}

/// The read-only status page and interface.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Api {
    /// Address and port.
    #[schemars(length(min = 1), extend("default" = "0.0.0.0:8432"))]
    listen: Option<String>,
}

/// Waiting times, and what is kept.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Safety {
    /// How long a starting Paceline waits for the other laptop's first answer.
    #[schemars(regex(pattern = DURATION), extend("default" = "10s"))]
    peer_wait: Option<String>,
    /// What a primary does whose server crashed while the other laptop cannot be asked.
    #[schemars(extend("default" = "quarantine"))]
    after_crash: Option<AfterCrash>,
    /// How many replaced copies of the database are kept.
    #[schemars(range(max = 1000), extend("default" = 2))]
    keep_set_aside: Option<u32>,
}

/// Makes a type that stands for a schema written out by hand.
macro_rules! by_hand {
    ($($name:ident => $schema:expr;)*) => { $(
        struct $name;
        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> Schema {
                // Most of them refer to no other type.
                let _ = &generator;
                ($schema)(generator)
            }
        }
    )* };
}

by_hand! {
    Port => |_| json_schema!({ "description": "A port number.", "type": "integer", "minimum": 1, "maximum": 65535 });
    Word => |_| json_schema!({ "description": "A word or a number.", "type": ["string", "number"], "minLength": 1 });
    Scalar => |_| json_schema!({ "description": "A text, a number, true or false.",
        "type": ["string", "number", "boolean"] });
    HbaLine => |_| json_schema!({ "description": "A line of pg_hba.conf.", "type": "string",
        "pattern": r"^(local|host|hostssl|hostnossl|hostgssenc|hostnogssenc)[ \t]" });
    AppPort => |generator: &mut schemars::SchemaGenerator| json_schema!({
        "description": "A port number, or `auto`.",
        "anyOf": [{ "const": "auto" }, generator.subschema_for::<Port>()] });
    Peer => |generator: &mut schemars::SchemaGenerator| json_schema!({
        "description": "Where the other laptop is: \"host\", \"host:port\", or host, port and api_port.",
        "anyOf": [{ "type": "string", "minLength": 1 }, generator.subschema_for::<PeerKeys>()] });
    Target => |_| json_schema!({
        "description": "`latest`, `immediate` (the first consistent moment), or one of time, lsn, name, xid.",
        "anyOf": [
            { "enum": ["latest", "immediate"] },
            { "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false, "properties": {
                "time": { "description": "A moment with its time zone, such as `2026-06-06 14:05:00 America/Vancouver`.",
                    "type": "string", "minLength": 1 },
                "lsn": { "description": "A WAL position.", "type": "string",
                    "pattern": "^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$" },
                "name": { "description": "A restore point.", "type": ["string", "number"], "minLength": 1 },
                "xid": { "description": "A transaction number.", "type": "integer", "minimum": 3,
                    "maximum": u32::MAX }
            } }
        ] });
}

/// The JSON schema of the state file, as it is committed in `schema/state.schema.json`.
pub fn schema() -> String {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<StateFile>();
    RecursiveTransform(forbid_null).transform(&mut schema);
    format!("{:#}\n", schema.as_value())
}

/// A key without a value is a mistake, not a way to leave the key out; `Option` only means that the key may be missing.
fn forbid_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if let Some(serde_json::Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [single] = types.as_slice() {
            let single = single.clone();
            object.insert("type".to_owned(), single);
        }
    }
    if let Some(serde_json::Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
        let reference = match choices.as_slice() {
            [single] => single.get("$ref").cloned(),
            _ => None,
        };
        if let Some(reference) = reference {
            object.remove("anyOf");
            object.insert("$ref".to_owned(), reference);
        }
    }
}

/// Every key of the format with the section it belongs to, such as `postgres.port`: for suggestions.
pub fn key_paths() -> Vec<String> {
    fn walk(properties: &serde_json::Value, prefix: &str, root: &serde_json::Value, out: &mut Vec<String>) {
        let Some(properties) = properties.as_object() else {
            return;
        };
        for (name, schema) in properties {
            let path = format!("{prefix}{name}");
            let referred = schema
                .get("$ref")
                .and_then(|reference| reference.as_str()?.strip_prefix('#'))
                .and_then(|pointer| root.pointer(pointer));
            if let Some(inner) = referred.and_then(|schema| schema.get("properties")) {
                walk(inner, &format!("{path}."), root, out);
            }
            out.push(path);
        }
    }
    let schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<StateFile>();
    let mut schema = schema;
    RecursiveTransform(forbid_null).transform(&mut schema);
    let mut out = Vec::new();
    walk(&schema.as_value()["properties"], "", schema.as_value(), &mut out);
    out
}
