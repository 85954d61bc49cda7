//! Why a process is ended, and why it is kept: the words for programs and the sentences for people.

use crate::text::words::words;

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

impl EndProof {
    /// The reason for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unknown => "a gateway without a supervisor that answers no probe",
            Self::Silent => "the recorded owner, which has no supervisor and answers no probe",
            Self::Named => "you named it",
            Self::Asked => "it was asked to stop, and did",
        }
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
        /// Somebody suspended it: by a signal, as Ctrl-Z does, in a debugger, or by freezing its control
        /// group.
        Suspended = "suspended",
        /// It owns this instance and answers.
        Owns = "owns",
        /// It answers.
        Answers = "answers",
        /// It shares its listener with a gateway that answers.
        Beside = "beside",
        /// It has a control socket that this command cannot ask whether it is alive.
        OutOfReach = "out-of-reach",
        /// It is another process by now, or has released the port.
        Changed = "changed",
        /// The kernel does not let this command end it.
        NotPermitted = "not-permitted",
    }
}

impl KeepCode {
    /// Whether the process is part of this gateway, so that it holds the port rightly.
    pub fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Myself | Self::Main | Self::InUnit | Self::Owns | Self::Drains
        )
    }

    /// The reason for people, for process `pid`; `main_of` is the service of [`Self::MainOfOther`].
    pub fn text(self, pid: u32, main_of: &str) -> String {
        let text = match self {
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
            Self::MainOfOther => return format!("it is the main process of {main_of}"),
            Self::Suspended => {
                return format!(
                    "somebody suspended it: by SIGSTOP or at a terminal (Ctrl-Z), where `kill -CONT {pid}` or `fg` continues it, in a debugger, or by freezing its control group"
                );
            }
            Self::Owns => "it owns this instance, and answers",
            Self::Answers => "it answers, so it is no leftover",
            Self::Beside => "it shares its listener with one that answers",
            Self::OutOfReach => "its control socket cannot be reached from here to ask it",
            Self::Changed => "it is another process by now, or has let go of the port",
            Self::NotPermitted => "the kernel does not let this command end it",
        };
        text.to_owned()
    }
}
