//! A line for people: text from anywhere, in our colours.
//!
//! Names, reasons and commands come from sidecars, other users and files. Whatever becomes a
//! [`StyledLine`] is escaped here, so that the colours are the only escape sequences in it.

use crate::text::escape::escape;

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

/// What a terminal may get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StyledLine(String);

impl<T: AsRef<str>> From<T> for StyledLine {
    fn from(text: T) -> Self {
        Self(escape(text.as_ref()).into_owned())
    }
}

impl StyledLine {
    /// Text in a colour.
    pub fn painted(text: &str, tone: Tone) -> Self {
        let code = match tone {
            Tone::Good => "32",
            Tone::Busy => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Strong => "1",
        };
        Self(format!("\x1b[{code}m{}\x1b[0m", escape(text)))
    }

    /// With more at its end.
    #[must_use]
    pub fn and(mut self, more: impl Into<Self>) -> Self {
        self.0.push_str(&more.into().0);
        self
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
impl PartialEq<&str> for StyledLine {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_colours_reach_the_terminal() {
        let hostile = "a\x1b]0;owned\x07\u{9b}2J\nb";
        let shown = r"a\x1b]0;owned\x07\u{9b}2J\nb";
        assert_eq!(StyledLine::from(hostile).as_str(), shown);
        let line = StyledLine::painted(hostile, Tone::Bad).and(hostile);
        assert_eq!(line.as_str(), format!("\x1b[31m{shown}\x1b[0m{shown}"));
    }
}
