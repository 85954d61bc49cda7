//! The dotenv format, as people write it: one `NAME=VALUE` a line, `export` before it or not, values
//! in quotes or not, comments.
//!
//! The dialects differ. What all of them read alike is read alike here; where they differ, the rule is
//! the one that no shell contradicts, and what would be read in one way here and in another elsewhere
//! is refused with its line:
//!
//! - A comment begins with `#` at the beginning of a line or after a blank, so `COLOR=#fff` is a
//!   colour.
//! - In single quotes every character is itself. In double quotes `\n`, `\r`, `\t`, `\"`, `\\`, `\$`
//!   and a backslash before a backquote have their meaning, and a backslash at the end of a line joins
//!   it with the next.
//! - Both kinds of quotes may go over several lines, as for keys in PEM. A quote that is not closed, or
//!   a text right after the one that closes it, is an error: a stray quote never swallows the lines
//!   after it.
//! - Nothing is replaced: `$NAME` stays as it is. Many secrets have a `$`.
//!
//! No message shows a value, or a line: both may be secret.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// The longest `NAME=VALUE` that a process can be given: MAX_ARG_STRLEN of Linux, with its end.
const VARIABLE_MAX: usize = 128 * 1024;

/// A line that is no variable, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    pub why: String,
}

/// The variables of a text; of a name that is there twice, the last counts.
///
/// # Errors
/// The first line that is no variable.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, BadLine> {
    // Editors of Windows begin a file with it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = DotenvReader {
        rest: text.chars().peekable(),
        line: 1,
    };
    let mut variables = BTreeMap::new();
    while let Some((name, value)) = reader.variable()? {
        variables.insert(name, value);
    }
    Ok(variables)
}

/// The line of the byte at `offset`, counted from 1.
pub fn line_of(text: &[u8], offset: usize) -> usize {
    let before = text.iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}

struct DotenvReader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl DotenvReader<'_> {
    /// The next variable; none at the end.
    fn variable(&mut self) -> Result<Option<(String, String)>, BadLine> {
        loop {
            self.blanks();
            match self.rest.peek() {
                None => return Ok(None),
                Some('\n') => {
                    self.next();
                }
                // systemd takes `;` for one, too, and no name begins with it.
                Some('#' | ';') => self.comment(),
                Some(_) => break,
            }
        }
        let line = self.line;
        let name = self.name()?;
        let value = self.value()?;
        let at = |why: &str| BadLine {
            line,
            why: format!("{name}: {why}"),
        };
        if value.contains('\0') {
            return Err(at("its value has a NUL, which no variable can have"));
        }
        if name.len() + value.len() + 2 > VARIABLE_MAX {
            return Err(at("its value is longer than a process can be given"));
        }
        Ok(Some((name, value)))
    }

    /// The next character. A line may end as on Windows.
    fn next(&mut self) -> Option<char> {
        let mut next = self.rest.next()?;
        if next == '\r' && self.rest.peek() == Some(&'\n') {
            next = self.rest.next()?;
        }
        if next == '\n' {
            self.line += 1;
        }
        Some(next)
    }

    /// Blanks, and the first half of an end of line as on Windows.
    fn blanks(&mut self) -> bool {
        let mut any = false;
        while self
            .rest
            .next_if(|c| matches!(c, ' ' | '\t' | '\r'))
            .is_some()
        {
            any = true;
        }
        any
    }

    fn comment(&mut self) {
        while self.rest.next_if(|c| *c != '\n').is_some() {}
    }

    fn bad<T>(&self, why: impl Into<String>) -> Result<T, BadLine> {
        let (line, why) = (self.line, why.into());
        Err(BadLine { line, why })
    }

    /// The name, and the `=` after it.
    fn name(&mut self) -> Result<String, BadLine> {
        let mut name = self.word();
        let mut after_blank = self.blanks();
        if name == "export" && after_blank && self.rest.peek() != Some(&'=') {
            name = self.word();
            after_blank = self.blanks();
        }
        let shown = |name: &str| match is_name(name) {
            true => format!("`{name}`"),
            false => "it".to_owned(),
        };
        match self.rest.next_if_eq(&'=') {
            Some(_) if is_name(&name) => Ok(name),
            Some(_) => self.bad(
                "what stands before the `=` is not the name of a variable: letters, digits, `_`, `.` and `-`, not beginning with a digit",
            ),
            None if after_blank || self.rest.peek().is_none_or(|c| *c == '\n') => {
                let why = format!("{} has no value: a line is NAME=VALUE", shown(&name));
                self.bad(why)
            }
            None => self.bad("it is no variable: a line is NAME=VALUE"),
        }
    }

    /// What may be a name, for as long as it is one.
    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(|c| is_of_name(*c)) {
            word.push(c);
        }
        word
    }

    /// The value, to the end of its line.
    fn value(&mut self) -> Result<String, BadLine> {
        let after_blank = self.blanks();
        match self.rest.peek() {
            Some('\'') => self.quoted('\''),
            Some('"') => self.quoted('"'),
            _ => Ok(self.plain(after_blank)),
        }
    }

    /// A value without quotes: to the end of the line, or to a comment.
    fn plain(&mut self, mut after_blank: bool) -> String {
        let mut value = String::new();
        while let Some(c) = self.rest.next_if(|c| *c != '\n') {
            if c == '#' && after_blank {
                self.comment();
                break;
            }
            after_blank = matches!(c, ' ' | '\t');
            value.push(c);
        }
        value.truncate(value.trim_end_matches([' ', '\t', '\r']).len());
        value
    }

    /// A value in quotes, and what may follow it.
    fn quoted(&mut self, quote: char) -> Result<String, BadLine> {
        let opened = self.line;
        self.next();
        let mut value = String::new();
        loop {
            match self.next() {
                None => {
                    let why = format!("its quote ({quote}) is not closed");
                    return Err(BadLine { line: opened, why });
                }
                Some(c) if c == quote => break,
                Some('\\') if quote == '"' => self.escape(&mut value),
                Some(c) => value.push(c),
            }
        }
        let after_blank = self.blanks();
        match self.rest.peek() {
            None | Some('\n') => Ok(value),
            Some('#') if after_blank => {
                self.comment();
                Ok(value)
            }
            Some(_) => self.bad(format!(
                "there is text after the quote ({quote}) that closes its value, which begins in line {opened}"
            )),
        }
    }

    /// What a backslash in double quotes makes of the next character.
    fn escape(&mut self, value: &mut String) {
        match self.next() {
            Some('n') => value.push('\n'),
            Some('r') => value.push('\r'),
            Some('t') => value.push('\t'),
            Some(c @ ('"' | '\\' | '$' | '`')) => value.push(c),
            // Joined with the next line.
            Some('\n') => {}
            Some(other) => value.extend(['\\', other]),
            // The quote is not closed, which is said next.
            None => {}
        }
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// Frameworks read names with dots, which a shell cannot set.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(is_of_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> String {
        let variables = parse(text).unwrap();
        assert_eq!(variables.len(), 1, "{text}");
        variables.into_values().next().unwrap()
    }

    #[test]
    fn a_file_as_people_write_it() {
        let text = "\u{feff}# settings\r\n\r\nexport X=1\r\nPORT=3000 # web\r\n  NAME = a b  \r\n; old\r\nEMPTY=\r\nspring.mail.host=h\r\nX=2\r\n";
        let pairs = [
            ("PORT", "3000"),
            ("NAME", "a b"),
            ("EMPTY", ""),
            ("spring.mail.host", "h"),
            ("X", "2"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text).unwrap(), BTreeMap::from(pairs));
    }

    #[test]
    fn comments_begin_after_a_blank_and_quotes_keep_them() {
        for (text, expected) in [
            ("A=#fff", "#fff"),
            ("A= #fff", ""),
            ("A=a#b", "a#b"),
            ("A=a\t#b", "a"),
            ("A='a #b' # c", "a #b"),
            ("A=\"a #b\"", "a #b"),
            ("A=postgres://u:p$w@h/d?x=y", "postgres://u:p$w@h/d?x=y"),
            ("A=C:\\temp", "C:\\temp"),
            ("A=it's", "it's"),
            ("export=1", "1"),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn quotes_go_over_lines_and_double_ones_know_the_backslash() {
        for (text, expected) in [
            ("A='x\\n\ny'", "x\\n\ny"),
            ("A=\"x\\ny\"", "x\ny"),
            ("A=\"x\r\ny\"", "x\ny"),
            ("A=\"x\\\ny\"", "xy"),
            ("A=\"\\\"\\\\\\$\\`\\d\"", "\"\\$`\\d"),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn a_bad_line_is_named_and_never_shown() {
        for (text, line, why) in [
            ("A=1\nSECRET\n", 2, "`SECRET` has no value"),
            ("A=1\nexport SECRET\n", 2, "`SECRET` has no value"),
            ("\nset -a\n", 2, "`set` has no value"),
            ("2A=secret", 1, "not the name"),
            ("=secret", 1, "not the name"),
            ("A!=secret", 1, "no variable"),
            ("A=1\nB=\"secret\nC=2\n", 2, "(\") is not closed"),
            ("A='secret' secret", 1, "text after the quote"),
            ("A=1\nB=\"\nC=\"secret\"\n", 3, "begins in line 2"),
            ("A=1\nB=se\0cret", 2, "B: its value has a NUL"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.why.contains(why), "{text:?}: {error}");
            assert!(!error.why.contains("secret"), "{text:?}: {error}");
        }
        let long = format!("A={}", "x".repeat(VARIABLE_MAX));
        assert!(parse(&long).unwrap_err().why.contains("longer"));
        assert_eq!(line_of(b"a\nb\n\xff", 4), 3);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_in_one_of_its_lines(text in "[A-Z=\"'\\\\# \t\r\n\0é$]{0,60}") {
            if let Err(error) = parse(&text) {
                prop_assert!(error.line >= 1 && error.line <= text.lines().count().max(1));
            }
        }

        #[test]
        fn what_is_quoted_comes_back(text in "[^'\0\r]{0,40}", other in "[^\0\r]{0,40}") {
            prop_assert_eq!(value(&format!("A='{text}' # c")), text);
            let escaped = other.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(value(&format!("A=\"{escaped}\"")), other);
        }
    }
}
