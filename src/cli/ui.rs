//! What is printed, and where: answers on standard output, progress and errors on standard error.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::{Map, Value};

use super::args::{Color, Global};
use super::exit::Exit;
use super::schema::Text;
use crate::text::log::escape;
use crate::text::redact::Redactor;

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    pub exit: Exit,
    /// Cause and place, in one sentence.
    pub message: String,
    /// The next command, or what to change.
    pub help: Option<String>,
    /// What else `--json` shows.
    pub details: Vec<(String, Value)>,
}

impl CliError {
    /// An error of this exit code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            help: None,
            details: Vec::new(),
        }
    }

    /// Adds the next command, or what to change.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds something that only `--json` shows.
    #[must_use]
    pub fn with_detail(mut self, key: &str, value: &impl Serialize) -> Self {
        self.details.push((
            key.to_owned(),
            serde_json::to_value(value).unwrap_or_default(),
        ));
        self
    }
}

/// Prints. Errors of printing are no one's to hear: a closed pipe ends no restart.
#[derive(Clone, Debug)]
pub struct Ui {
    json: bool,
    quiet: bool,
    out_color: bool,
    err_color: bool,
    redactor: Redactor,
    closed: Arc<AtomicBool>,
}

/// A colour with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// On its way, or worth a look.
    Busy,
    Bad,
    /// Less important.
    Dim,
    /// More important.
    Strong,
}

impl Ui {
    /// Prints as the flags say.
    pub fn new(global: &Global) -> Self {
        let color = |terminal: bool| match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                terminal && !plain && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        };
        Self {
            json: global.json,
            quiet: global.quiet,
            out_color: color(std::io::stdout().is_terminal()),
            err_color: color(std::io::stderr().is_terminal()),
            redactor: Redactor::default(),
            closed: Arc::default(),
        }
    }

    /// Whether whoever read standard output went away: for what would go on printing.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether the answer is one JSON object.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line of the answer for people; not with `--json` or `--quiet`.
    pub fn say(&self, line: &str) {
        if !self.json && !self.quiet {
            self.raw(&format!("{line}\n"));
        }
    }

    /// Text that was asked for itself, as a script or a page; printed even with `--quiet`.
    pub fn raw(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        if out
            .write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .is_err()
        {
            self.closed.store(true, Ordering::Relaxed);
        }
    }

    /// Text that was asked for itself; with `--json` in the one object.
    pub fn text(&self, text: &Text) {
        if self.json {
            self.object(text)
        } else {
            self.raw(&text.text)
        }
    }

    /// A line of progress, on standard error; not with `--quiet`.
    pub fn progress(&self, line: &str) {
        if !self.quiet {
            let _ = writeln!(
                std::io::stderr().lock(),
                "{}",
                paint(&escape(line), Tone::Dim, self.err_color)
            );
        }
    }

    /// The answer as the one JSON object; only with `--json`.
    pub fn object(&self, answer: &impl Serialize) {
        if self.json {
            let text = serde_json::to_string_pretty(answer)
                .unwrap_or_else(|error| format!("{{\"ok\": false, \"error\": \"{error}\"}}"));
            self.raw(&format!("{text}\n"));
        }
    }

    /// One of many answers, as a JSON object on a line of its own; only with `--json`.
    pub fn line(&self, answer: &impl Serialize) {
        if self.json
            && let Ok(text) = serde_json::to_string(answer)
        {
            self.raw(&format!("{text}\n"));
        }
    }

    /// An error and the next command; with `--json` as the one object.
    pub fn error(&self, error: &CliError) {
        let message = self.redactor.text(&error.message);
        let mut err = std::io::stderr().lock();
        for (index, line) in message.lines().enumerate() {
            let mark = if index == 0 {
                paint("error:", Tone::Bad, self.err_color)
            } else {
                "      ".to_owned()
            };
            let _ = writeln!(err, "{mark} {}", escape(line));
        }
        for line in error.help.iter().flat_map(|help| help.lines()) {
            let _ = writeln!(
                err,
                "  {} {}",
                paint("next:", Tone::Strong, self.err_color),
                escape(line)
            );
        }
        if self.json {
            let mut object = Map::new();
            object.insert("ok".into(), Value::Bool(false));
            object.insert("exit".into(), error.exit.code().into());
            object.insert("error".into(), message.into());
            if let Some(help) = &error.help {
                object.insert("next".into(), help.clone().into());
            }
            object.extend(error.details.clone());
            self.object(&object);
        }
    }

    /// Text in a colour, where standard output shows colours.
    pub fn paint(&self, text: &str, tone: Tone) -> String {
        paint(text, tone, self.out_color)
    }
}

fn paint(text: &str, tone: Tone, color: bool) -> String {
    let code = match tone {
        Tone::Good => "32",
        Tone::Busy => "33",
        Tone::Bad => "31",
        Tone::Dim => "2",
        Tone::Strong => "1",
    };
    if color {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// A length of time for people: "412 ms", "3.2 s", "5 min 2 s", "3 h 12 min", "4 d 1 h".
pub fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{}.{} s", seconds, millis % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// "1 request", "2 requests".
pub fn count(number: u64, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_counts() {
        let shown: Vec<String> = [0, 412, 3250, 302_000, 11_520_000, 350_000_000]
            .into_iter()
            .map(span)
            .collect();
        assert_eq!(
            shown,
            [
                "0 ms",
                "412 ms",
                "3.2 s",
                "5 min 2 s",
                "3 h 12 min",
                "4 d 1 h"
            ]
        );
        assert_eq!(
            (count(1, "request"), count(0, "tunnel")),
            ("1 request".into(), "0 tunnels".into())
        );
    }

    #[test]
    fn colours_only_where_they_are_shown() {
        assert_eq!(paint("x", Tone::Bad, false), "x");
        assert_eq!(paint("x", Tone::Bad, true), "\x1b[31mx\x1b[0m");
    }
}
