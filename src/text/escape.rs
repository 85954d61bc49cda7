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

/// Escapes the same characters in JSON text. All but its own line breaks stand in strings.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    let bad = |c: char| c != '\n' && (c.is_control() || is_direction(c));
    if !json.contains(bad) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if bad(c) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
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
        let text = "\u{1b}\u{7f}\u{9b}\u{202e}ü\n";
        let json = serde_json::to_string_pretty(&[text]).unwrap();
        let shown = escape_json(&json);
        assert_eq!(shown, "[\n  \"\\u001b\\u007f\\u009b\\u202eü\\n\"\n]");
        assert_eq!(serde_json::from_str::<[String; 1]>(&shown).unwrap(), [text]);
    }
}
