//! Escapes text from outside, so that it cannot harm terminals and logs.

use std::borrow::Cow;
use std::fmt::Write;

/// Escapes control characters except tab as `\n`, `\x1b` or `\u{…}`, so that no text drives a
/// terminal or forges a line.
pub fn escape(text: &str) -> Cow<'_, str> {
    let bad = |c: char| c != '\t' && (c.is_control() || is_direction(c));
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            c if bad(c) && c.is_ascii() => {
                let _ = write!(escaped, "\\x{:02x}", u32::from(c));
            }
            c if bad(c) => {
                let _ = write!(escaped, "\\u{{{:x}}}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Whether a character changes the direction of text, which can make a line look like another one.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_drives_a_terminal() {
        assert_eq!(escape("a\tb ü"), "a\tb ü");
        assert_eq!(
            escape("a\r\n\u{1b}[2J\u{7f}\u{9b}\u{202e}"),
            r"a\r\n\x1b[2J\x7f\u{9b}\u{202e}"
        );
    }
}
