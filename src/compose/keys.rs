//! Which keys of a service are read, and what becomes of a file that has others.

use super::Severity;

/// Keys that are read.
pub(super) const READ: [&str; 15] = [
    "image",
    "command",
    "entrypoint",
    "environment",
    "env_file",
    "volumes",
    "user",
    "working_dir",
    "mem_limit",
    "cpus",
    "network_mode",
    "init",
    "stdin_open",
    "security_opt",
    "privileged",
];

/// Keys without which a server does the same.
const HARMLESS: [(&str, &str); 27] = [
    ("annotations", "nothing reads it here"),
    ("attach", "nothing reads it here"),
    ("blkio_config", "it is not kept to"),
    ("cap_drop", "every capability is dropped anyway"),
    ("container_name", "containers have names of the engine's choice"),
    ("cpu_count", "use `cpus`"),
    ("cpu_percent", "use `cpus`"),
    ("cpu_shares", "use `cpus`"),
    ("cpu_quota", "use `cpus`"),
    ("cpuset", "use `cpus`"),
    ("depends_on", "servers are started when they are called, in no order"),
    ("deploy", "limits are `mem_limit` and `cpus` here"),
    ("develop", "nothing reads it here"),
    ("domainname", "it is not set"),
    ("expose", "servers are spoken to over standard input and output"),
    ("healthcheck", "a server is healthy when it answers"),
    ("hostname", "it is not set"),
    ("label_file", "containers have the broker's labels"),
    ("labels", "containers have the broker's labels"),
    ("logging", "what servers say on standard error goes to the broker's log"),
    ("mem_reservation", "it is not kept to"),
    ("memswap_limit", "servers have no swap"),
    ("ports", "nothing is published: servers are spoken to over standard input and output"),
    ("pull_policy", "when images are pulled is the broker's setting (--pull)"),
    ("restart", "a server that ended is started again by the next call"),
    ("stop_grace_period", "how long a server has to stop is the broker's setting"),
    ("stop_signal", "servers are stopped by the end of their input, then by SIGTERM"),
];

/// Other keys of Compose, without which a server would be another one.
const NEEDED: [(&str, &str); 21] = [
    ("build", "nothing is built here: build the image and name it in `image`"),
    ("extends", "write the service out"),
    ("profiles", "a service that is for some only is not started for all: take the key out, or the service"),
    ("networks", "servers of a session share one network of their own"),
    ("links", "servers of a session share one network of their own"),
    ("external_links", "servers of a session share one network of their own"),
    ("secrets", "give the value as a variable, or through `env_file`"),
    ("configs", "mount a file with `volumes`"),
    ("cap_add", "servers have no capabilities"),
    ("devices", "servers see no devices"),
    ("gpus", "servers see no devices"),
    ("runtime", "servers run in the engine's own runtime"),
    ("volumes_from", "write the volumes out"),
    ("read_only", "a container's own file system can be written"),
    ("tmpfs", "a container's own file system is as short-lived"),
    ("tty", "a terminal garbles the protocol"),
    ("pid", "servers have a namespace of their own"),
    ("ipc", "servers have a namespace of their own"),
    ("platform", "images are run for the engine's own platform"),
    ("scale", "a session has one instance of each server"),
    ("extra_hosts", "hosts cannot be added here"),
];

/// What is said of a key that is not read: nothing of an extension.
pub(super) fn unread(key: &str) -> Option<(Severity, String)> {
    if key.starts_with("x-") || READ.contains(&key) {
        return None;
    }
    if let Some((_, why)) = HARMLESS.iter().find(|(name, _)| *name == key) {
        return Some((Severity::Warning, format!("is left out: {why}")));
    }
    let why = match NEEDED.iter().find(|(name, _)| *name == key) {
        Some((_, why)) => format!("is not supported: {why}"),
        None => "is not supported, or no key of a service".to_owned(),
    };
    Some((Severity::Error, why))
}

/// What is said of a key of the file itself.
pub(super) fn unread_at_top(key: &str) -> Option<(Severity, &'static str)> {
    match key {
        "services" | "volumes" | "version" | "name" => None,
        "networks" => Some((Severity::Warning, "is left out: servers of a session share one network of their own")),
        "secrets" | "configs" => Some((Severity::Warning, "is left out: no service can use it")),
        "include" => Some((Severity::Warning, "is not supported: the services of other files are left out")),
        _ if key.starts_with("x-") => None,
        _ => Some((Severity::Warning, "is not supported, or no key of a Compose file")),
    }
}
