//! What cleaning did, for people and for programs.

use schemars::JsonSchema;
use serde::Serialize;

use super::address_state::AddressState;
use super::judge::Suspect;
use super::reason::{EndProof, KeepCode};
use crate::os::process::Process;
use crate::text::escape::escape;
use crate::text::words::words;

/// What `clean` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CleanReport {
    /// The addresses that were cleaned.
    pub addresses: Vec<String>,
    /// The processes that were ended, or in a dry run would be.
    pub killed: Vec<EndedProcess>,
    /// The processes that were left alone.
    pub kept: Vec<KeptProcess>,
    /// How the addresses stand; a dry run does not wait for them.
    #[serde(flatten)]
    pub state: AddressState,
    /// Whether nothing was done.
    pub dry_run: bool,
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

/// A process that was ended, or in a dry run would be.
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
    /// Whether it is part of this gateway, so that it holds the port rightly.
    pub ours: bool,
}

impl EndedProcess {
    pub fn new(process: &Process, signal: Option<EndSignal>, proof: EndProof) -> Self {
        Self {
            pid: process.pid,
            uid: process.uid,
            name: process.name.clone(),
            signal,
            proof,
            why: proof.text().to_owned(),
        }
    }
}

impl KeptProcess {
    pub fn new(suspect: &Suspect, reason: KeepCode) -> Self {
        let gateway = suspect.gateway.as_ref();
        let main_of = gateway.and_then(|gateway| gateway.main_of.as_deref());
        Self {
            pid: suspect.process.pid,
            uid: suspect.process.uid,
            name: suspect.process.name.clone(),
            reason,
            why: reason.text(suspect.process.pid, main_of.unwrap_or("another service")),
            ours: reason.is_ours(),
        }
    }
}

impl CleanReport {
    /// What was done, a line for each process.
    pub fn lines(&self) -> Vec<String> {
        let line = |done: &str, name: &str, pid: u32, uid: u32, why: &str| {
            format!("{done} {} (pid {pid}, uid {uid}): {why}", escape(name))
        };
        let killed = self.killed.iter().map(|ended| {
            let done = match (self.dry_run, ended.signal) {
                (true, _) => "would end",
                (false, None) => "gone",
                (false, Some(EndSignal::Kill)) => "killed",
                (false, Some(_)) => "ended",
            };
            line(done, &ended.name, ended.pid, ended.uid, &ended.why)
        });
        let kept = self
            .kept
            .iter()
            .map(|kept| line("kept", &kept.name, kept.pid, kept.uid, &kept.why));
        killed.chain(kept).collect()
    }

    /// How the addresses stand, in a line.
    pub fn stands(&self) -> String {
        self.state.describe(&self.addresses)
    }
}
