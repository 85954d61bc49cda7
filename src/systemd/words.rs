//! systemd's words for what a unit is and does.

use std::fmt;

use crate::text::words::{Words, words};

/// A word of systemd: one on which something depends here, or another, kept as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word<K> {
    Known(K),
    Other(String),
}

impl<K: Words> Word<K> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(known) => known.word(),
            Self::Other(word) => word,
        }
    }
}

impl<K: Words, T: AsRef<str>> From<T> for Word<K> {
    fn from(word: T) -> Self {
        let word = word.as_ref();
        K::from_word(word).map_or_else(|| Self::Other(word.to_owned()), Self::Known)
    }
}

impl<K: Words> Default for Word<K> {
    fn default() -> Self {
        Self::from("")
    }
}

impl<K: PartialEq> PartialEq<K> for Word<K> {
    fn eq(&self, known: &K) -> bool {
        matches!(self, Self::Known(word) if word == known)
    }
}

impl<K: Words> fmt::Display for Word<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

words! {
    pub enum ActiveState {
        Active = "active",
        Reloading = "reloading",
        Inactive = "inactive",
        Failed = "failed",
        Activating = "activating",
        Deactivating = "deactivating",
        /// Nothing is known of the unit.
        Unknown = "",
    }
}

impl Word<ActiveState> {
    /// Whether the unit runs; it runs while it reloads.
    pub fn is_up(&self) -> bool {
        matches!(
            self,
            Self::Known(ActiveState::Active | ActiveState::Reloading)
        )
    }

    /// Whether nothing of the unit runs.
    pub fn is_down(&self) -> bool {
        use ActiveState::{Failed, Inactive, Unknown};
        matches!(self, Self::Known(Inactive | Failed | Unknown))
    }
}

words! {
    pub enum SubState {
        AutoRestart = "auto-restart",
    }
}

words! {
    pub enum LoadState {
        Loaded = "loaded",
        Masked = "masked",
    }
}

words! {
    pub enum UnitFileState {
        Enabled = "enabled",
        Disabled = "disabled",
    }
}

words! {
    /// How the last run of a service ended.
    pub enum ServiceResult {
        Success = "success",
        ExitCode = "exit-code",
        Signal = "signal",
        CoreDump = "core-dump",
        Watchdog = "watchdog",
        Timeout = "timeout",
        OomKill = "oom-kill",
        StartLimitHit = "start-limit-hit",
        Resources = "resources",
        /// The unit is no service.
        NoService = "",
    }
}

words! {
    /// The values of Type= with which systemd waits for READY=1.
    pub enum ServiceType {
        Notify = "notify",
        NotifyReload = "notify-reload",
    }
}

words! {
    /// The values of NotifyAccess= with which systemd listens to the main process.
    pub enum NotifyAccess {
        Main = "main",
        Exec = "exec",
        All = "all",
    }
}

words! {
    pub enum KillMode {
        ControlGroup = "control-group",
        Process = "process",
        None = "none",
    }
}

words! {
    /// The values of Restart= that restart a gateway.
    pub enum RestartPolicy {
        Always = "always",
        OnSuccess = "on-success",
        OnFailure = "on-failure",
    }
}

words! {
    /// The values of OOMPolicy= that end the whole service.
    pub enum OomPolicy {
        Stop = "stop",
        Kill = "kill",
    }
}

words! {
    /// How a job ended; other words are failed, timeout, dependency, canceled, skipped.
    pub enum JobResult {
        Done = "done",
    }
}

words! {
    /// What a manager itself does.
    pub enum SystemState {
        Stopping = "stopping",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_word_is_kept_and_equals_no_known_one() {
        let known: Word<KillMode> = "process".into();
        let other: Word<KillMode> = "mixed".into();
        assert!(known == KillMode::Process && known != KillMode::None);
        assert!(other != KillMode::Process);
        assert_eq!(format!("{known} {other}"), "process mixed");
        assert!(Word::<ActiveState>::default().is_down());
    }
}
