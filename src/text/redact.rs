//! Keeps secrets out of everything that is printed, logged or shown.
//!
//! A value is secret when the name before it says so (`--token X`, `API_KEY=X`, `"password": "X"`),
//! when it follows `Bearer`, or when it stands in a URL before the `@`. Values found in commands
//! and environments are remembered, so that [`Redactor::text`] hides them wherever they turn up
//! again, as in the output of a sidecar.

mod find;
mod names;
mod target;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use find::{in_command, in_text};
use names::SecretNames;

/// Replaces a secret.
pub const MASK: &str = "***";

/// Shorter values are not searched for in free text: "1234" would be hidden in every port number.
const LEARN_MIN: usize = 6;

/// Hides secrets. Clones are cheap, and share the learned values.
#[derive(Clone, Debug, Default)]
pub struct Redactor(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    names: SecretNames,
    learned: RwLock<Vec<String>>,
}

impl Redactor {
    /// A redactor for the usual words and for `extra` ones (`[gateway] redact`), in any case.
    pub fn new(extra: &[String]) -> Self {
        Self(Arc::new(Inner {
            names: SecretNames::new(extra),
            learned: RwLock::default(),
        }))
    }

    /// A command line as it could be typed into a shell, secret values as `***`.
    pub fn command(&self, argv: &[String]) -> String {
        let shown: Vec<String> = self.arguments(argv).iter().map(|arg| quote(arg)).collect();
        shown.join(" ")
    }

    /// The arguments of a command, secret values as `***`: [`Redactor::command`] before quoting.
    pub fn arguments(&self, argv: &[String]) -> Vec<String> {
        argv.iter()
            .zip(in_command(&self.0.names, argv))
            .map(|(arg, ranges)| self.hide_learned(&mask(arg, ranges)))
            .collect()
    }

    /// `KEY=VALUE`, the value hidden when it is secret.
    pub fn env(&self, key: &str, value: &str) -> String {
        format!("{key}={}", self.value(key, value))
    }

    /// The value of a variable, hidden when it is secret.
    pub fn value(&self, key: &str, value: &str) -> String {
        if self.0.names.is_secret(key) && !value.is_empty() {
            MASK.to_owned()
        } else {
            self.text(value)
        }
    }

    /// Whether a variable is secret, by its name or because its value holds something secret, as a
    /// password in a URL.
    pub fn is_secret(&self, key: &str, value: &str) -> bool {
        !value.is_empty()
            && (self.0.names.is_secret(key) || !in_text(&self.0.names, value).is_empty())
    }

    /// A text with every secret in it hidden.
    pub fn text(&self, text: &str) -> String {
        let ranges = in_text(&self.0.names, text);
        self.hide_learned(&mask(text, ranges))
    }

    /// Remembers the secret values of a command line.
    pub fn learn_command(&self, argv: &[String]) {
        for (arg, ranges) in argv.iter().zip(in_command(&self.0.names, argv)) {
            ranges.into_iter().for_each(|range| self.learn(&arg[range]));
        }
    }

    /// Remembers the value of a variable, when it is secret or holds something secret.
    pub fn learn_env(&self, key: &str, value: &str) {
        if self.0.names.is_secret(key) {
            self.learn(value);
        }
        in_text(&self.0.names, value)
            .into_iter()
            .for_each(|range| self.learn(&value[range]));
    }

    /// Remembers one value; a value of several lines line by line, because output is read that way.
    pub fn learn(&self, value: &str) {
        let learned = self.0.learned.write();
        let mut learned = learned.unwrap_or_else(PoisonError::into_inner);
        for line in value.lines().map(without_scheme) {
            if line.len() >= LEARN_MIN
                && !line.starts_with("-----")
                && !learned.iter().any(|known| known == line)
            {
                learned.push(line.to_owned());
            }
        }
        // The longest first: a value may contain another one.
        learned.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    fn hide_learned(&self, text: &str) -> String {
        let learned = self.0.learned.read();
        let learned = learned.unwrap_or_else(PoisonError::into_inner);
        let mut hidden = text.to_owned();
        for value in learned.iter().filter(|value| text.contains(*value)) {
            hidden = hidden.replace(value, MASK);
        }
        hidden
    }
}

/// Credentials without the name of their scheme.
fn without_scheme(value: &str) -> &str {
    let is_scheme = |word: &str| {
        let schemes = ["bearer", "basic", "token", "digest"];
        schemes
            .iter()
            .any(|scheme| word.eq_ignore_ascii_case(scheme))
    };
    match value.trim().split_once(' ') {
        Some((word, rest)) if is_scheme(word) => rest.trim(),
        _ => value.trim(),
    }
}

fn mask(text: &str, ranges: Vec<Range<usize>>) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    for range in ranges {
        if range.start >= at {
            shown.push_str(&text[at..range.start]);
            shown.push_str(MASK);
        }
        at = at.max(range.end);
    }
    shown.push_str(&text[at..]);
    shown
}

/// An argument as a shell would read it, without characters that could drive a terminal.
fn quote(arg: &str) -> String {
    let arg = crate::text::escape::escape(arg);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,*{}[]?&~^".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        arg.into_owned()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}
