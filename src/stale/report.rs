//! What cleaning has done, for people and for programs.

use serde::Serialize;

/// A process that was ended, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndedProcess {
    pub pid: u32,
    pub uid: u32,
    pub name: String,
    /// What it took: TERM, KILL, or none when it was gone by itself or nothing was done.
    pub signal: Option<&'static str>,
    /// Why, in a word: unknown, silent, named, asked.
    pub proof: &'static str,
    /// The same in a sentence.
    pub why: String,
}

/// A process that was left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptProcess {
    pub pid: u32,
    pub uid: u32,
    pub name: String,
    /// Why, in a word.
    pub reason: &'static str,
    /// The same in a sentence.
    pub why: String,
    /// Whether it is part of this very gateway, so that its hold on the port is as it should be.
    pub ours: bool,
}

/// How the addresses stand afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CleanReport {
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
                (false, Some("KILL")) => "killed",
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
