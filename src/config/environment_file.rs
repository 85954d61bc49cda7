//! The environment file of an instance: what `--set` gives to a service and nobody else may read.
//!
//! A configuration must be readable for the service's user, who may be made up by systemd, and so
//! for everybody; an environment file is read by the service manager itself, and is 0600. One line
//! for a variable, as [`unit_quoting::variable`] writes it. Lines that somebody added by hand are
//! kept as they are, and are read as systemd reads them (env-file.c).

use std::str::Chars;

use super::{SET_NAMES, unit_quoting};
use crate::text::redact::{MASK, Redactor};

/// What systemd takes for the end of a line, in either order and number.
const NEWLINES: [char; 2] = ['\n', '\r'];

/// The entries of the file, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets(Vec<Entry>);

/// A line with its end; more than one where a quote or a backslash joins them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    text: String,
    /// The name and the value of the variable that it sets, if it sets one.
    variable: Option<(String, String)>,
}

impl Secrets {
    /// Reads the text of the file. What its end leaves open is closed.
    pub fn parse(text: &str) -> Self {
        let mut rest = text.chars();
        let entries = std::iter::from_fn(|| Entry::read(&mut rest));
        Self(entries.filter(|entry| !entry.sets(SET_NAMES)).collect())
    }

    /// The variables of a file's text as a service gets them, the names of those that were set included.
    pub fn variables_of(text: &str) -> Vec<(String, String)> {
        let mut rest = text.chars();
        let entries = std::iter::from_fn(|| Entry::read(&mut rest));
        entries.filter_map(|entry| entry.variable).collect()
    }

    /// Sets a variable; an empty value removes it.
    pub fn set(&mut self, key: &str, value: &str) {
        let entry = (!value.is_empty()).then(|| Entry {
            text: format!("{key}={}\n", unit_quoting::variable(value)),
            variable: Some((key.to_owned(), value.to_owned())),
        });
        let at = self.0.iter().position(|entry| entry.sets(key));
        // systemd takes the last one.
        self.0.retain(|entry| !entry.sets(key));
        let at = at.unwrap_or(self.0.len());
        self.0.splice(at..at, entry);
    }

    /// Whether a variable is set.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|entry| entry.sets(key))
    }

    /// Whether no variable is set.
    pub fn is_empty(&self) -> bool {
        self.variables().next().is_none()
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        self.0.iter().map(|entry| entry.text.as_str()).collect()
    }

    /// The variable that names all of them, where there are some: these win over those of `env_file`, and
    /// the gateway, which has them in its environment, cannot tell them from others.
    pub fn names(&self) -> Option<(String, String)> {
        let names: Vec<&str> = self.variables().map(|(name, _)| name).collect();
        (!names.is_empty()).then(|| (SET_NAMES.to_owned(), names.join(" ")))
    }

    /// The variables, each with its value.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.0.iter().filter_map(|entry| entry.variable.as_ref());
        variables.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Tells the redactor every value.
    pub fn teach(&self, redactor: &Redactor) {
        self.variables()
            .for_each(|(_, value)| redactor.learn(value));
    }

    /// The text without a value; one that is not as in `before` is marked, for otherwise a diff
    /// would not show it.
    pub fn shown(&self, before: &Self) -> String {
        let show = |entry: &Entry| {
            let line = entry.text.trim_end_matches(NEWLINES);
            match &entry.variable {
                Some((key, _)) if before.has(key) && !before.0.contains(entry) => {
                    format!("{key}={MASK} (another value)\n")
                }
                Some((key, _)) => format!("{key}={MASK}\n"),
                None if line.is_empty() || line.starts_with('#') => format!("{line}\n"),
                None => format!("{MASK}\n"),
            }
        };
        self.0.iter().map(show).collect()
    }
}

impl Entry {
    /// The next one; none at the end.
    fn read(rest: &mut Chars<'_>) -> Option<Self> {
        let text = rest.as_str();
        let mut line = text.trim_start_matches([' ', '\t']).chars();
        let mut variable = None;
        let closing = match line.as_str().chars().next() {
            None if text.is_empty() => return None,
            Some('#' | ';') => {
                line.find(|c| NEWLINES.contains(c));
                ""
            }
            // The first character belongs to the name even if it is a `=`.
            Some(c) if !NEWLINES.contains(&c) => {
                line.next();
                match line.find(|c| *c == '=' || NEWLINES.contains(c)) {
                    Some('=') => {
                        let (key, _) = text.split_once('=')?;
                        let (value, closing) = read_value(&mut line);
                        variable = Some((key.trim_matches([' ', '\t']).to_owned(), value));
                        closing
                    }
                    Some(_) => "",
                    None => "\n",
                }
            }
            _ => line.next().map_or("\n", |_| ""),
        };
        *rest = line;
        let text = &text[..text.len() - rest.as_str().len()];
        Some(Self {
            text: match text.trim_start_matches([' ', '\t']).starts_with(['#', ';']) {
                true => closed_comment(text),
                false => format!("{text}{closing}"),
            },
            variable: variable.filter(|(key, _)| is_name(key)),
        })
    }

    fn sets(&self, wanted: &str) -> bool {
        matches!(&self.variable, Some((key, _)) if key == wanted)
    }
}

/// A comment that every systemd ends at the end of its line: before version 254, a backslash there
/// joined it with the next line, and a blank after the backslash keeps both apart.
fn closed_comment(line: &str) -> String {
    let comment = line.trim_end_matches(NEWLINES);
    let backslashes = comment.len() - comment.trim_end_matches('\\').len();
    let blank = if backslashes % 2 == 1 { " " } else { "" };
    format!("{comment}{blank}\n")
}

/// Reads a value to its end. Returns it, and what closes it where the text ends before.
fn read_value(rest: &mut Chars<'_>) -> (String, &'static str) {
    let mut value = String::new();
    // A quote has its meaning before anything else, and blanks at the end do not count.
    let (mut plain, mut length) = (false, 0);
    let closing = loop {
        match rest.next() {
            None => break "\n",
            Some(c) if NEWLINES.contains(&c) => break "",
            Some('\'') if !plain => match read_single_quoted(rest, &mut value) {
                Ok(()) => {}
                Err(closing) => return (value, closing),
            },
            Some('"') if !plain => match read_double_quoted(rest, &mut value) {
                Ok(()) => {}
                Err(closing) => return (value, closing),
            },
            Some('\\') => {
                plain = true;
                length = value.len();
                match rest.next() {
                    None => break "\n\n",
                    Some(c) if NEWLINES.contains(&c) => {}
                    Some(c) => value.push(c),
                }
            }
            Some(' ' | '\t') if !plain => continue,
            Some(c) => {
                plain = true;
                value.push(c);
                if matches!(c, ' ' | '\t') {
                    continue;
                }
            }
        }
        length = value.len();
    };
    value.truncate(length);
    (value, closing)
}

/// Reads to the closing quote; an error is what closes it where the text ends before.
fn read_single_quoted(rest: &mut Chars<'_>, value: &mut String) -> Result<(), &'static str> {
    loop {
        match rest.next().ok_or("'\n")? {
            '\'' => return Ok(()),
            c => value.push(c),
        }
    }
}

/// As [`read_single_quoted`].
fn read_double_quoted(rest: &mut Chars<'_>, value: &mut String) -> Result<(), &'static str> {
    loop {
        match rest.next().ok_or("\"\n")? {
            '"' => return Ok(()),
            '\\' => match rest.next().ok_or("\n\"\n")? {
                '\n' => {}
                c @ ('"' | '\\' | '`' | '$') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
}

/// Whether a variable may have this name; systemd ignores others, and no shell could use them.
pub fn is_name(key: &str) -> bool {
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
                ("OTHER", "x y"),
                ("API_TOKEN", "new \"$1\\"),
                ("DB_PASSWORD", "p")
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
