//! What cleaning has done, for people and for programs.

use schemars::JsonSchema;
use serde::Serialize;

use crate::text::words::words;

words! {
    /// Why a process was ended.
    pub enum EndProof {
        /// A gateway that nobody looks after, and that answers nobody.
        Unknown = "unknown",
        /// The owner on record, which nobody looks after, and which answers nobody.
        Silent = "silent",
        /// The user named it.
        Named = "named",
        /// A healthy gateway that nobody looks after: it was asked to stop, and did.
        Asked = "asked",
    }
}

words! {
    /// The signal that ended a process.
    pub enum EndSignal {
        /// SIGTERM.
        Term = "TERM",
        /// SIGKILL.
        Kill = "KILL",
    }
}

words! {
    /// Why a process was left alone.
    pub enum KeepCode {
        /// It is this command.
        Myself = "self",
        /// It is process 1.
        First = "process-1",
        /// This command was started from it.
        Ancestor = "ancestor",
        /// The user protects it.
        Protected = "protected",
        /// It is the service manager.
        Manager = "manager",
        /// It is another user's.
        OtherUser = "other-user",
        /// It is the main process of this gateway's service.
        Main = "main",
        /// It belongs to this gateway's service.
        InUnit = "in-unit",
        /// It belongs to the service that this command runs in.
        InOwnService = "in-own-service",
        /// It is no gateway.
        Foreign = "foreign",
        /// It finishes its work and still has time.
        Drains = "drains",
        /// It is the main process of another service.
        MainOfOther = "main-of-other",
        /// It owns this instance and answers.
        Owns = "owns",
        /// It answers.
        Answers = "answers",
        /// It shares its listener with a gateway that answers.
        Beside = "beside",
        /// It is another process by now, or has released the port.
        Changed = "changed",
        /// The kernel does not let this command end it.
        NotPermitted = "not-permitted",
    }
}

/// A process that was ended, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndedProcess {
    /// The process.
    pub pid: u32,
    /// Its user's number.
    pub uid: u32,
    /// The name of its program.
    pub name: String,
    /// The signal that ended it; null when it had ended by itself, or nothing was done.
    pub signal: Option<EndSignal>,
    /// Why, in a word of gatewayctl-clean(8).
    pub proof: EndProof,
    /// The same in a sentence.
    pub why: String,
}

/// A process that was left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeptProcess {
    /// The process.
    pub pid: u32,
    /// Its user's number.
    pub uid: u32,
    /// The name of its program.
    pub name: String,
    /// Why, in a word of gatewayctl-clean(8).
    pub reason: KeepCode,
    /// The same in a sentence.
    pub why: String,
    /// Whether it is part of this very gateway, so that its hold on the port is as it should be.
    pub ours: bool,
}

/// How the addresses stand afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "state", content = "by")]
pub enum AddressState {
    /// A gateway could listen there.
    Free,
    /// The service manager keeps the listener for this gateway's service: there is nothing to wait
    /// for.
    Kept(String),
    /// This very gateway has it.
    Ours,
    /// Somebody else has it.
    Held(Vec<String>),
    /// Nobody can be seen to have it, and yet it cannot be had.
    Busy(String),
}

/// What `clean` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CleanReport {
    /// The addresses that were cleaned.
    pub addresses: Vec<String>,
    /// Those that were ended, or would be.
    pub killed: Vec<EndedProcess>,
    /// Those that were left alone.
    pub kept: Vec<KeptProcess>,
    /// How the addresses stand; nothing was waited for in a dry run.
    #[serde(flatten)]
    pub state: AddressState,
    /// Whether nothing was done.
    pub dry_run: bool,
}

impl CleanReport {
    /// What happened, a line each, without how it stands.
    pub fn lines(&self) -> Vec<String> {
        let killed = self.killed.iter().map(|ended| {
            let done = match (self.dry_run, ended.signal) {
                (true, _) => "would end",
                (false, None) => "gone",
                (false, Some(EndSignal::Kill)) => "killed",
                (false, Some(_)) => "ended",
            };
            format!(
                "{done} {} (pid {}, uid {}): {}",
                crate::text::escape::escape(&ended.name),
                ended.pid,
                ended.uid,
                ended.why
            )
        });
        let kept = self.kept.iter().map(|kept| {
            format!(
                "kept {} (pid {}, uid {}): {}",
                crate::text::escape::escape(&kept.name),
                kept.pid,
                kept.uid,
                kept.why
            )
        });
        killed.chain(kept).collect()
    }

    /// How it stands, in a line.
    pub fn stands(&self) -> String {
        self.state.told(&self.addresses)
    }
}

impl AddressState {
    /// In a line, of these addresses.
    pub fn told(&self, addresses: &[impl ToString]) -> String {
        let at = addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        match self {
            Self::Free => format!("{at}: free"),
            Self::Kept(unit) => format!("{at}: held by systemd for {unit}"),
            Self::Ours => format!("{at}: held by this gateway"),
            Self::Held(by) => format!("{at}: held by {}", by.join(", ")),
            Self::Busy(why) => format!("{at}: cannot be had: {why}"),
        }
    }
}
