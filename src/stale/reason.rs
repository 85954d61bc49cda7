//! Why a process is ended, and why it is kept: the words for programs and the sentences for people.

use std::fmt;

use crate::text::words::words;

/// Why a process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleProof {
    /// A gateway that no service manager looks after, that does not own this instance, and that
    /// does not answer.
    Unknown,
    /// The owner on record, which no service manager looks after, and which does not answer.
    Silent,
    /// The user named it.
    Named,
}

impl StaleProof {
    /// The word for programs.
    pub fn code(self) -> EndProof {
        match self {
            Self::Unknown => EndProof::Unknown,
            Self::Silent => EndProof::Silent,
            Self::Named => EndProof::Named,
        }
    }
}

impl fmt::Display for StaleProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "a gateway without a supervisor that answers no probe",
            Self::Silent => "the recorded owner, which has no supervisor and answers no probe",
            Self::Named => "you named it",
        })
    }
}

/// Why a process is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepReason {
    /// It is this process.
    Myself,
    /// It is process 1, with which everything here ends.
    First,
    /// It is an ancestor of this process.
    Ancestor,
    /// The user protects it.
    Protected,
    /// It is the service manager.
    Manager,
    /// It belongs to another user.
    OtherUser,
    /// It is the main process of this gateway's service.
    Main,
    /// It belongs to this gateway's service.
    InUnit,
    /// It belongs to the service that this process runs in.
    InOwnService,
    /// It is no gateway.
    Foreign,
    /// It finishes its work and still has time.
    Drains,
    /// It is the main process of another service.
    MainOf(String),
    /// It owns this instance and answers.
    Owns,
    /// It answers: it is not stale, whatever the records say.
    Answers,
    /// It shares its listener with a gateway that answers: it is a successor that has not taken
    /// over yet, or a predecessor that finishes its work.
    Beside,
    /// It is another process by now, or has let go of the addresses.
    Changed,
    /// The kernel does not let this process end it.
    NotPermitted,
}

impl KeepReason {
    /// Whether the process is part of this gateway, so that it holds the port rightly.
    pub fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::Myself | Self::Main | Self::InUnit | Self::Owns | Self::Drains
        )
    }

    /// The word for programs.
    pub fn code(&self) -> KeepCode {
        match self {
            Self::Myself => KeepCode::Myself,
            Self::First => KeepCode::First,
            Self::Ancestor => KeepCode::Ancestor,
            Self::Protected => KeepCode::Protected,
            Self::Manager => KeepCode::Manager,
            Self::OtherUser => KeepCode::OtherUser,
            Self::Main => KeepCode::Main,
            Self::InUnit => KeepCode::InUnit,
            Self::InOwnService => KeepCode::InOwnService,
            Self::Foreign => KeepCode::Foreign,
            Self::Drains => KeepCode::Drains,
            Self::MainOf(_) => KeepCode::MainOfOther,
            Self::Owns => KeepCode::Owns,
            Self::Answers => KeepCode::Answers,
            Self::Beside => KeepCode::Beside,
            Self::Changed => KeepCode::Changed,
            Self::NotPermitted => KeepCode::NotPermitted,
        }
    }
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Myself => "it is this very process",
            Self::First => "it is process 1: everything here would end with it",
            Self::Ancestor => "this command was started from it",
            Self::Protected => "you protect it",
            Self::Manager => "it is the service manager",
            Self::OtherUser => "it is another user's",
            Self::Main => "it is the service's main process",
            Self::InUnit => "it belongs to the service",
            Self::InOwnService => "it belongs to the service that this command runs in",
            Self::Foreign => "it is no gateway",
            Self::Drains => "it finishes its work, and still has time",
            Self::MainOf(unit) => return write!(f, "it is the main process of {unit}"),
            Self::Owns => "it owns this instance, and answers",
            Self::Answers => "it answers, so it is no leftover",
            Self::Beside => "it shares its listener with one that answers",
            Self::Changed => "it is another process by now, or has let go of the port",
            Self::NotPermitted => "the kernel does not let this command end it",
        })
    }
}

words! {
    /// Why a process was ended.
    pub enum EndProof {
        /// A gateway without a supervisor that answers no probe.
        Unknown = "unknown",
        /// The recorded owner, which has no supervisor and answers no probe.
        Silent = "silent",
        /// The user named it.
        Named = "named",
        /// A healthy gateway without a supervisor: it was asked to stop, and did.
        Asked = "asked",
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
