//! What a service may do to the machine: `--sandbox app|strict|off`.
//!
//! Every line was run with real Node, Python and Java servers. Never here: MemoryDenyWriteExecute
//! (Node and Java die), `~@resources`, ProtectHome=yes and ProcSubset=pid (servers in home
//! directories, runtimes that read /proc).

use clap::ValueEnum;

use crate::state::paths::Scope;
use crate::text::words::words;

words! {
    /// How much of the machine a service can reach.
    #[derive(Default, ValueEnum)]
    pub enum Sandbox {
        /// Safe for ordinary servers
        #[default]
        App = "app",
        /// A temporary user, a read-only system, no devices
        Strict = "strict",
        /// None
        Off = "off",
    }
}

/// A line of a unit and the systemd version that first knew it; 0 for those older than any version
/// in use.
pub(super) type SandboxDirective = (&'static str, &'static str, u32);

/// What an unprivileged user manager can apply too: seccomp filters and prctl flags.
///
/// RestrictNamespaces is here and not only in `strict`, for the exposure: 3.1 without it, 2.4 with
/// it (systemd-analyze security, 252). A browser's or bubblewrap's own sandbox needs
/// `RestrictNamespaces=no` in a drop-in.
const FILTERS: &[SandboxDirective] = &[
    ("NoNewPrivileges", "yes", 0),
    ("RestrictRealtime", "yes", 0),
    ("RestrictSUIDSGID", "yes", 242),
    ("RestrictNamespaces", "yes", 0),
    ("LockPersonality", "yes", 0),
    (
        "RestrictAddressFamilies",
        "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        0,
    ),
    ("SystemCallArchitectures", "native", 0),
    ("SystemCallFilter", "@system-service", 0),
    ("SystemCallErrorNumber", "EPERM", 0),
];

/// What takes a privileged manager: mounts and capabilities. PrivateMounts says what PrivateTmp
/// brings anyway.
const MOUNTS: &[SandboxDirective] = &[
    ("PrivateTmp", "yes", 0),
    ("PrivateMounts", "yes", 239),
    ("ProtectKernelTunables", "yes", 0),
    ("ProtectKernelModules", "yes", 0),
    ("ProtectKernelLogs", "yes", 244),
    ("ProtectControlGroups", "yes", 0),
    ("ProtectClock", "yes", 245),
    ("ProtectHostname", "yes", 242),
];

const APP_ONLY: &[SandboxDirective] = &[("ProtectSystem", "full", 0)];

/// A user of the configured name that exists already is used as it is, so DynamicUser and User= go
/// together.
const STRICT_ONLY: &[SandboxDirective] = &[
    ("DynamicUser", "yes", 0),
    ("ProtectSystem", "strict", 0),
    ("ProtectHome", "read-only", 0),
    ("PrivateDevices", "yes", 0),
    ("RemoveIPC", "yes", 0),
];

impl Sandbox {
    /// The lines of this sandbox in a scope, capabilities not included.
    pub(super) fn lines(self, scope: Scope) -> Vec<SandboxDirective> {
        match (self, scope) {
            (Self::Off, _) => Vec::new(),
            (_, Scope::User) => FILTERS.to_vec(),
            (Self::App, Scope::System) => [FILTERS, MOUNTS, APP_ONLY].concat(),
            (Self::Strict, Scope::System) => [FILTERS, MOUNTS, STRICT_ONLY].concat(),
        }
    }

    /// The sandbox of a unit that install wrote. In user scope `strict` is the same as `app`.
    pub(super) fn of_unit(text: &str) -> Self {
        let has = |lines: &[SandboxDirective]| {
            lines.iter().any(|(key, value, _)| {
                let line = format!("{key}={value}");
                *key != "DynamicUser" && text.lines().any(|other| other == line)
            })
        };
        if has(STRICT_ONLY) {
            Self::Strict
        } else if has(FILTERS) {
            Self::App
        } else {
            Self::Off
        }
    }

    /// Whether /tmp and /var/tmp of the service are not those of everybody else.
    pub fn hides_tmp(self, scope: Scope) -> bool {
        self != Self::Off && scope == Scope::System
    }
}
