//! The kinds of steps, and which keys each may have.

use std::time::Duration;

/// Of every step.
pub(super) const COMMON: [&str; 10] = [
    "drill",
    "name",
    "stage",
    "kind",
    "needs",
    "timeout",
    "usually",
    "at",
    "on_failure",
    "retries",
];

/// Kinds, each with the keys it may have beside the common ones, and the time it may take where nothing is said.
pub(super) const KINDS: [(&str, &[&str], Duration); 18] = [
    (
        "terraform",
        &[
            "dir",
            "action",
            "variables",
            "secrets",
            "backend",
            "mirror",
            "program",
            "environment",
        ],
        Duration::from_secs(20 * 60),
    ),
    (
        "restore",
        &["site", "host", "port", "user", "password"],
        Duration::from_secs(60 * 60),
    ),
    (
        "verify",
        &["site", "host", "port", "user", "password"],
        Duration::from_secs(60 * 60),
    ),
    (
        "accounts",
        &["site", "host", "port", "user", "password"],
        Duration::from_secs(10 * 60),
    ),
    (
        "standby-open",
        &["host", "port", "user", "password"],
        Duration::from_secs(10 * 60),
    ),
    (
        "primary-open",
        &["host", "port", "user", "password"],
        Duration::from_secs(10 * 60),
    ),
    (
        "fence",
        &["site", "host", "port", "user", "password", "read_only"],
        Duration::from_secs(5 * 60),
    ),
    (
        "unfence",
        &["site", "host", "port", "user", "password"],
        Duration::from_secs(5 * 60),
    ),
    ("last-backup", &["site", "host"], Duration::from_secs(60 * 60)),
    (
        "preserve",
        &["site", "host", "rds_snapshot", "region"],
        Duration::from_secs(60 * 60),
    ),
    (
        "manifests",
        &["dir", "kubeconfig", "variables", "secrets"],
        Duration::from_secs(15 * 60),
    ),
    (
        "maintenance-page",
        &["page", "container", "contact", "expected", "utc_offset"],
        Duration::from_secs(5 * 60),
    ),
    ("store-ready", &[], Duration::from_secs(5 * 60)),
    (
        "http",
        &[
            "url", "connect", "method", "body", "expect", "contains", "times", "interval", "tls_ca",
        ],
        Duration::from_secs(10 * 60),
    ),
    (
        "traffic",
        &["site", "distribution", "origin", "domain"],
        Duration::from_secs(30 * 60),
    ),
    (
        "primary-ready",
        &["region", "node_groups", "target_groups", "rds_instances"],
        Duration::from_secs(10 * 60),
    ),
    (
        "command",
        &[
            "means",
            "site",
            "program",
            "args",
            "probe",
            "undo",
            "secrets",
            "environment",
        ],
        Duration::from_secs(10 * 60),
    ),
    ("manual", &["text"], Duration::from_secs(24 * 60 * 60)),
];

/// Of one kind or another.
pub(super) const OWN_KEYS: [&str; 42] = [
    "action",
    "args",
    "backend",
    "body",
    "connect",
    "contact",
    "container",
    "contains",
    "dir",
    "distribution",
    "domain",
    "environment",
    "expect",
    "expected",
    "host",
    "interval",
    "kubeconfig",
    "means",
    "method",
    "mirror",
    "node_groups",
    "origin",
    "page",
    "password",
    "port",
    "probe",
    "program",
    "rds_instances",
    "rds_snapshot",
    "read_only",
    "region",
    "secrets",
    "site",
    "target_groups",
    "text",
    "times",
    "tls_ca",
    "undo",
    "url",
    "user",
    "utc_offset",
    "variables",
];
