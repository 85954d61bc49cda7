//! The keys of a job's property list, as launchd.plist(5) has them: what each may hold, and whom it is for.
//! launchd takes a key that it does not know, or of another type, without a word, and ignores it.

use plist::{Dictionary, Value};

use crate::state::paths::Scope;

/// What a key may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Integer,
    Text,
    Texts,
    Dictionary,
    /// One or several of a dictionary.
    Dictionaries,
    BoolOrDictionary,
    IntegerOrText,
    TextOrTexts,
}

/// For which jobs a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    All,
    /// Ignored in agents.
    Daemons,
    /// It has no effect any more.
    Dead,
}

/// What is wrong with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyProblem {
    Unknown,
    WrongType {
        wanted: &'static str,
    },
    ForDaemons,
    Dead,
    /// It makes a stop end the gateway at once.
    KillsAtOnce,
}

const KEYS: &[(&str, Kind, Use)] = &[
    ("AbandonProcessGroup", Kind::Bool, Use::All),
    ("AssociatedBundleIdentifiers", Kind::TextOrTexts, Use::All),
    ("BundleProgram", Kind::Text, Use::All),
    ("Debug", Kind::Bool, Use::Dead),
    ("Disabled", Kind::Bool, Use::All),
    ("EnableGlobbing", Kind::Bool, Use::Dead),
    ("EnablePressuredExit", Kind::Bool, Use::All),
    ("EnableTransactions", Kind::Bool, Use::All),
    ("EnvironmentVariables", Kind::Dictionary, Use::All),
    ("ExitTimeOut", Kind::Integer, Use::All),
    ("GroupName", Kind::Text, Use::Daemons),
    ("HardResourceLimits", Kind::Dictionary, Use::All),
    ("HopefullyExitsFirst", Kind::Bool, Use::Dead),
    ("HopefullyExitsLast", Kind::Bool, Use::Dead),
    ("InitGroups", Kind::Bool, Use::Daemons),
    ("KeepAlive", Kind::BoolOrDictionary, Use::All),
    ("Label", Kind::Text, Use::All),
    ("LaunchEvents", Kind::Dictionary, Use::All),
    ("LaunchOnlyOnce", Kind::Bool, Use::All),
    ("LegacyTimers", Kind::Bool, Use::All),
    ("LimitLoadFromHosts", Kind::Texts, Use::Dead),
    ("LimitLoadToHardware", Kind::Dictionary, Use::All),
    ("LimitLoadToHosts", Kind::Texts, Use::Dead),
    ("LimitLoadToSessionType", Kind::TextOrTexts, Use::All),
    ("LowPriorityBackgroundIO", Kind::Bool, Use::All),
    ("LowPriorityIO", Kind::Bool, Use::All),
    ("MachServices", Kind::Dictionary, Use::All),
    ("MaterializeDatalessFiles", Kind::Bool, Use::All),
    ("NetworkState", Kind::Bool, Use::Dead),
    ("Nice", Kind::Integer, Use::All),
    ("OnDemand", Kind::Bool, Use::Dead),
    ("ProcessType", Kind::Text, Use::All),
    ("Program", Kind::Text, Use::All),
    ("ProgramArguments", Kind::Texts, Use::All),
    ("QueueDirectories", Kind::Texts, Use::All),
    ("RootDirectory", Kind::Text, Use::Daemons),
    ("RunAtLoad", Kind::Bool, Use::All),
    ("SessionCreate", Kind::Bool, Use::Daemons),
    ("Sockets", Kind::Dictionary, Use::All),
    ("SoftResourceLimits", Kind::Dictionary, Use::All),
    ("StandardErrorPath", Kind::Text, Use::All),
    ("StandardInPath", Kind::Text, Use::All),
    ("StandardOutPath", Kind::Text, Use::All),
    ("StartCalendarInterval", Kind::Dictionaries, Use::All),
    ("StartInterval", Kind::Integer, Use::All),
    ("StartOnMount", Kind::Bool, Use::All),
    ("ThrottleInterval", Kind::Integer, Use::All),
    ("TimeOut", Kind::Integer, Use::Dead),
    ("Umask", Kind::IntegerOrText, Use::All),
    ("UserName", Kind::Text, Use::Daemons),
    ("WaitForDebugger", Kind::Bool, Use::All),
    ("WatchPaths", Kind::Texts, Use::All),
    ("WorkingDirectory", Kind::Text, Use::All),
    ("inetdCompatibility", Kind::Dictionary, Use::All),
];

/// What is wrong with the keys of a job, in their order.
pub fn problems(job: &Dictionary, scope: Scope) -> Vec<(String, KeyProblem)> {
    let judged = job.iter().filter_map(|(name, value)| {
        let problem = judge(name, value, scope)?;
        Some((name.clone(), problem))
    });
    judged.collect()
}

fn judge(name: &str, value: &Value, scope: Scope) -> Option<KeyProblem> {
    let Some((_, kind, who)) = KEYS.iter().find(|(known, ..)| *known == name) else {
        return Some(KeyProblem::Unknown);
    };
    let kills = name == "EnableTransactions" && value.as_boolean() == Some(true);
    match who {
        Use::Dead => Some(KeyProblem::Dead),
        Use::Daemons if scope == Scope::User => Some(KeyProblem::ForDaemons),
        _ if !kind.fits(value) => Some(KeyProblem::WrongType {
            wanted: kind.in_words(),
        }),
        _ if kills => Some(KeyProblem::KillsAtOnce),
        _ => None,
    }
}

impl Kind {
    fn fits(self, value: &Value) -> bool {
        let is_integer = value.as_signed_integer().is_some();
        let is_text = value.as_string().is_some();
        let is_dictionary = value.as_dictionary().is_some();
        let all = |fits: fn(&Value) -> bool| {
            value
                .as_array()
                .is_some_and(|values| values.iter().all(fits))
        };
        let are_texts = all(|value| value.as_string().is_some());
        match self {
            Self::Bool => value.as_boolean().is_some(),
            Self::Integer => is_integer,
            Self::Text => is_text,
            Self::Texts => are_texts,
            Self::Dictionary => is_dictionary,
            Self::Dictionaries => is_dictionary || all(|value| value.as_dictionary().is_some()),
            Self::BoolOrDictionary => value.as_boolean().is_some() || is_dictionary,
            Self::IntegerOrText => is_integer || is_text,
            Self::TextOrTexts => is_text || are_texts,
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Integer => "an integer",
            Self::Text => "a text",
            Self::Texts => "an array of texts",
            Self::Dictionary => "a dictionary",
            Self::Dictionaries => "a dictionary or an array of them",
            Self::BoolOrDictionary => "true, false or a dictionary",
            Self::IntegerOrText => "an integer or a text",
            Self::TextOrTexts => "a text or an array of texts",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchd_would_ignore_it_without_a_word() {
        let text = "<plist version=\"1.0\"><dict><key>KeepALive</key><true/><key>ThrottleInterval</key><string>10</string>\
            <key>TimeOut</key><integer>5</integer><key>UserName</key><string>root</string>\
            <key>EnableTransactions</key><true/><key>Umask</key><string>077</string></dict></plist>";
        let job = Value::from_reader_xml(text.as_bytes()).unwrap();
        let found = |scope| {
            let problems = problems(job.as_dictionary().unwrap(), scope);
            problems.into_iter().map(|(_, problem)| problem)
        };
        let wanted = "an integer";
        let expected = [
            KeyProblem::Unknown,
            KeyProblem::WrongType { wanted },
            KeyProblem::Dead,
            KeyProblem::ForDaemons,
            KeyProblem::KillsAtOnce,
        ];
        assert!(found(Scope::User).eq(expected));
        assert!(!found(Scope::System).any(|problem| problem == KeyProblem::ForDaemons));
    }

    #[test]
    fn a_key_stands_once_in_the_table() {
        assert!(KEYS.is_sorted_by(|one, next| one.0 < next.0));
    }
}
