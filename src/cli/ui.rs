//! What every command gets: its flags, and where it prints. Answers go to standard output, progress
//! and errors to standard error.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::answers::ErrorAnswer;
use super::args::{Color, Global};
use super::error::CliError;
use super::styled_line::{StyledLine, Tone};
use super::target::Target;
use crate::config::Env;
use crate::text::escape::{escape, escape_json};
use crate::text::redact::Redactor;

/// The width of the labels in front of lines.
const LABEL: usize = 11;

/// What every command gets.
#[derive(Clone, Debug)]
pub struct Context {
    /// Flags of every command.
    pub global: Global,
    pub ui: Ui,
}

impl Context {
    pub fn new(global: Global) -> Self {
        Self {
            ui: Ui::new(&global),
            global,
        }
    }

    /// The running gateway that the flags select; see [`Target::find`].
    pub fn target(&self) -> Result<Target, CliError> {
        Target::find(&self.global, &Env::real())
    }

    /// A command that prints nothing, for the gateway of this state directory.
    #[cfg(test)]
    pub fn quiet(state: &std::path::Path) -> Self {
        Self::new(Global {
            state_dir: Some(state.to_owned()),
            quiet: true,
            ..Global::default()
        })
    }

    /// A command that prints without colours.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self::new(Global {
            color: super::args::Color::Never,
            ..Global::default()
        })
    }
}

/// Prints. Errors of printing are ignored: a closed pipe must not end a restart.
#[derive(Clone, Debug)]
pub struct Ui {
    json: bool,
    quiet: bool,
    out_color: bool,
    err_color: bool,
    redactor: Redactor,
    closed: Arc<AtomicBool>,
}

/// Text that was asked for itself.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Always true; an error has its own object.
    pub ok: bool,
    /// What it is.
    pub name: String,
    /// The text.
    pub text: String,
}

impl Text {
    /// Text with its name.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            ok: true,
            name: name.into(),
            text: text.into(),
        }
    }
}

impl Ui {
    /// Prints as the flags say.
    pub fn new(global: &Global) -> Self {
        // anstream decides otherwise: it colours for TERM=dumb where CI is set.
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

    /// Whether the reader of standard output is gone, so that a command can stop printing.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether the answer is one JSON object.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line of the answer for people; not with `--json` or `--quiet`.
    pub fn say(&self, line: impl Into<StyledLine>) {
        if !self.json && !self.quiet {
            self.write(&format!("{}\n", line.into().as_str()));
        }
    }

    /// A line for each item, all with the same text in front.
    pub fn say_all(&self, before: &str, items: impl IntoIterator<Item = impl Display>) {
        for item in items {
            self.say(format!("{before}{item}"));
        }
    }

    /// Text that was asked for itself, as a script or a page; printed even with `--quiet`.
    pub fn page(&self, text: &str) {
        let lines = text.split('\n').map(escape);
        self.write(&lines.collect::<Vec<_>>().join("\n"));
    }

    /// Writes what is escaped already.
    pub fn write(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if written.is_err() {
            self.closed.store(true, Ordering::Relaxed);
        }
    }

    /// Text that was asked for itself; with `--json` in the one object.
    pub fn text(&self, text: &Text) {
        if self.json {
            self.object(text)
        } else {
            self.page(&text.text)
        }
    }

    /// A line of progress, on standard error; not with `--quiet`.
    pub fn progress(&self, line: &str) {
        if !self.quiet {
            let line = paint(line, Tone::Dim, self.err_color);
            let _ = writeln!(std::io::stderr().lock(), "{}", line.as_str());
        }
    }

    /// A line of progress, with the time since `begun` in front.
    pub fn step(&self, begun: Instant, line: &str) {
        self.progress(&format!("{:>7.2}s  {line}", begun.elapsed().as_secs_f64()));
    }

    /// The answer as the one JSON object; only with `--json`.
    pub fn object(&self, answer: &impl Serialize) {
        if self.json {
            let text = serde_json::to_string_pretty(answer)
                .unwrap_or_else(|error| format!("{{\"ok\": false, \"error\": \"{error}\"}}"));
            self.write(&format!("{}\n", escape_json(&text)));
        }
    }

    /// One of many answers, as a JSON object on a line of its own; only with `--json`.
    pub fn line(&self, answer: &impl Serialize) {
        if self.json
            && let Ok(text) = serde_json::to_string(answer)
        {
            self.write(&format!("{}\n", escape_json(&text)));
        }
    }

    /// An error and the next command; with `--json` as the one object.
    pub fn error(&self, error: &CliError) {
        let lines: Vec<String> = (error.all_lines())
            .map(|line| self.redactor.text(line))
            .collect();
        let mut err = std::io::stderr().lock();
        for (index, line) in lines.iter().enumerate() {
            let mark = if index == 0 {
                paint("error:", Tone::Bad, self.err_color)
            } else {
                StyledLine::from("      ")
            };
            let _ = writeln!(err, "{} {}", mark.as_str(), escape(line));
        }
        let next = paint("next:", Tone::Strong, self.err_color);
        for line in error.help.iter().flat_map(|help| help.lines()) {
            let _ = writeln!(err, "  {} {}", next.as_str(), escape(line));
        }
        if self.json {
            self.object(&ErrorAnswer::new(error, &lines.join("\n")));
        }
    }

    /// An indented line with a label in front.
    pub fn labelled(&self, label: &str, text: &str) -> StyledLine {
        let label = self.paint(&format!("{label:<LABEL$}"), Tone::Dim);
        StyledLine::from("  ").and(label).and(" ").and(text)
    }

    /// Indented lines, with a label in front of the first.
    pub fn labelled_list(&self, label: &str, lines: &[String]) -> Vec<StyledLine> {
        let labels = std::iter::once(label).chain(std::iter::repeat(""));
        let line = |(label, line): (&str, &String)| self.labelled(label, line);
        labels.zip(lines).map(line).collect()
    }

    /// Text in a colour, where standard output shows colours.
    pub fn paint(&self, text: &str, tone: Tone) -> StyledLine {
        paint(text, tone, self.out_color)
    }
}

fn paint(text: &str, tone: Tone, color: bool) -> StyledLine {
    if color {
        StyledLine::painted(text, tone)
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_only_where_they_are_shown() {
        assert_eq!(paint("x", Tone::Bad, false).as_str(), "x");
        assert_eq!(paint("x", Tone::Bad, true).as_str(), "\x1b[31mx\x1b[0m");
    }
}
