//! The environment file of an instance: what `--set` gives to a service and nobody else may read.
//!
//! A configuration must be readable for the service's user, who may be made up by systemd, and so
//! for everybody; an environment file is read by the service manager itself, and is 0600. One line
//! for a variable, as [`unit_quoting::variable`] writes it. Lines that somebody added by hand are
//! kept as they are.

use super::unit_quoting;
use crate::text::redact::{MASK, Redactor};

/// The lines of the file, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Reads the text of the file.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().map(str::to_owned).collect())
    }

    /// Sets a variable; an empty value removes it.
    pub fn set(&mut self, key: &str, value: &str) {
        let line = format!("{key}={}", unit_quoting::variable(value));
        let at = self.0.iter().position(|line| key_of(line) == Some(key));
        match (at, value.is_empty()) {
            (Some(at), true) => drop(self.0.remove(at)),
            (Some(at), false) => self.0[at] = line,
            (None, true) => {}
            (None, false) => self.0.push(line),
        }
    }

    /// Whether a variable is set.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|line| key_of(line) == Some(key))
    }

    /// Whether no variable is set.
    pub fn is_empty(&self) -> bool {
        !self.0.iter().any(|line| key_of(line).is_some())
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        self.0.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The variables that can be understood, each with its value.
    pub fn variables(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().filter_map(|line| {
            Some((
                key_of(line)?,
                unit_quoting::value_of(line.split_once('=')?.1)?,
            ))
        })
    }

    /// Tells the redactor every value.
    pub fn teach(&self, redactor: &Redactor) {
        self.variables()
            .for_each(|(_, value)| redactor.learn(&value));
    }

    /// The text without a value; one that is not as in `before` is marked, for otherwise a diff
    /// would not show it.
    pub fn shown(&self, before: &Self) -> String {
        let show = |line: &String| match key_of(line) {
            Some(key) if before.has(key) && !before.0.contains(line) => {
                format!("{key}={MASK} (another value)\n")
            }
            Some(key) => format!("{key}={MASK}\n"),
            None if line.is_empty() || line.starts_with('#') => format!("{line}\n"),
            None => format!("{MASK}\n"),
        };
        self.0.iter().map(show).collect()
    }
}

/// The name of the variable that a line sets, where it sets one.
fn key_of(line: &str) -> Option<&str> {
    line.split_once('=')
        .map(|(key, _)| key.trim())
        .filter(|key| is_name(key))
}

/// Whether a variable may have this name; systemd ignores others, and no shell could use them.
pub(super) fn is_name(key: &str) -> bool {
    let mut chars = key.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_set_replaced_and_removed_and_other_lines_stay() {
        let mut secrets = Secrets::parse("# mine\nOTHER=x y\nAPI_TOKEN=\"old\"\n");
        secrets.set("API_TOKEN", "new \"$1\\");
        secrets.set("DB_PASSWORD", "p");
        secrets.set("GONE", "");
        assert_eq!(
            secrets.text(),
            "# mine\nOTHER=x y\nAPI_TOKEN=\"new \\\"\\$1\\\\\"\nDB_PASSWORD=\"p\"\n"
        );
        let read = Secrets::parse(&secrets.text());
        assert_eq!(
            read.variables().collect::<Vec<_>>(),
            [
                ("API_TOKEN", "new \"$1\\".to_owned()),
                ("DB_PASSWORD", "p".to_owned())
            ]
        );
        secrets.set("DB_PASSWORD", "");
        assert!(!secrets.has("DB_PASSWORD") && secrets.has("API_TOKEN") && !secrets.is_empty());
        assert!(Secrets::parse("# only words\n\n").is_empty());
    }

    #[test]
    fn no_value_is_ever_shown() {
        let before = Secrets::parse("A_TOKEN=\"one\"\nB_TOKEN=\"same\"\n");
        let mut after = before.clone();
        after.set("A_TOKEN", "a \"b");
        after.set("C", "x");
        assert_eq!(
            after.shown(&before),
            "A_TOKEN=*** (another value)\nB_TOKEN=***\nC=***\n"
        );
        assert_eq!(Secrets::parse("what is this\n").shown(&before), "***\n");
    }
}
