//! How systemd reads unit files and environment files, transcribed from its source (conf-parser.c,
//! extract-word.c, specifier.c, env-file.c), so that what the gateway writes is read by something
//! else than its own code.

use std::collections::BTreeMap;

/// Its WHITESPACE, and those of them that end a line.
const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];
const NEWLINES: [char; 2] = ['\n', '\r'];

/// What an environment file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EnvFile {
    /// The variables that a service gets: of two with one name, the latter.
    pub variables: BTreeMap<String, String>,
    /// The text of all comments.
    pub comments: String,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    PreKey,
    Key,
    PreValue,
    Value,
    ValueEscape,
    SingleQuote,
    DoubleQuote,
    DoubleQuoteEscape,
    Comment,
    CommentEscape,
}

/// parse_env_file_internal(). Before version 254, a comment that ends with a backslash goes on in
/// the next line.
pub fn env_file(text: &str, version: u32) -> EnvFile {
    let mut file = EnvFile::default();
    let (mut state, mut key, mut value) = (State::PreKey, String::new(), String::new());
    // The length without the blanks at the end.
    let mut kept = 0;
    let mut push = |key: &mut String, value: &mut String| {
        let name = std::mem::take(key);
        let name = name.trim_end_matches(BLANKS);
        let value = std::mem::take(value);
        let digit = |c: char| c.is_ascii_digit();
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !name.is_empty() && !name.starts_with(digit) && name.chars().all(fits) {
            file.variables.insert(name.to_owned(), value);
        }
    };
    for c in text.chars() {
        let newline = NEWLINES.contains(&c);
        match state {
            State::PreKey if matches!(c, '#' | ';') => {
                state = State::Comment;
                file.comments.push(c);
            }
            State::PreKey if BLANKS.contains(&c) => {}
            State::PreKey => {
                state = State::Key;
                key.push(c);
            }
            State::Key if newline => {
                state = State::PreKey;
                key.clear();
            }
            State::Key if c == '=' => state = State::PreValue,
            State::Key => key.push(c),
            State::PreValue if newline => {
                state = State::PreKey;
                push(&mut key, &mut value);
            }
            State::PreValue if c == '\'' => state = State::SingleQuote,
            State::PreValue if c == '"' => state = State::DoubleQuote,
            State::PreValue if c == '\\' => state = State::ValueEscape,
            State::PreValue if BLANKS.contains(&c) => {}
            State::PreValue => {
                state = State::Value;
                value.push(c);
                kept = value.len();
            }
            State::Value if newline => {
                state = State::PreKey;
                value.truncate(kept);
                push(&mut key, &mut value);
            }
            State::Value if c == '\\' => {
                state = State::ValueEscape;
                kept = value.len();
            }
            State::Value => {
                value.push(c);
                if !BLANKS.contains(&c) {
                    kept = value.len();
                }
            }
            State::ValueEscape => {
                state = State::Value;
                if !newline {
                    value.push(c);
                }
                kept = value.len();
            }
            State::SingleQuote if c == '\'' => state = State::PreValue,
            State::SingleQuote => value.push(c),
            State::DoubleQuote if c == '"' => state = State::PreValue,
            State::DoubleQuote if c == '\\' => state = State::DoubleQuoteEscape,
            State::DoubleQuote => value.push(c),
            State::DoubleQuoteEscape => {
                state = State::DoubleQuote;
                match c {
                    '"' | '\\' | '`' | '$' => value.push(c),
                    '\n' => {}
                    c => value.extend(['\\', c]),
                }
            }
            State::Comment if newline => {
                state = State::PreKey;
                file.comments.push('\n');
            }
            State::Comment => {
                if c == '\\' {
                    state = State::CommentEscape;
                }
                file.comments.push(c);
            }
            State::CommentEscape => {
                state = match newline && version >= 254 {
                    true => State::PreKey,
                    false => State::Comment,
                };
                file.comments.push(c);
            }
        }
    }
    if state == State::Value {
        value.truncate(kept);
    }
    if !matches!(
        state,
        State::PreKey | State::Key | State::Comment | State::CommentEscape
    ) {
        push(&mut key, &mut value);
    }
    file
}

/// The settings of a unit file: section, key and value. None for a line that is none.
pub fn unit_file(text: &str) -> Option<Vec<(String, String, String)>> {
    let (mut section, mut settings) = (String::new(), Vec::new());
    let mut begun = String::new();
    for line in text.split('\n') {
        let line = line.trim_matches(BLANKS);
        if line.starts_with(['#', ';']) {
            continue;
        }
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            begun.push_str(&line[..line.len() - 1]);
            begun.push(' ');
            continue;
        }
        begun.push_str(line);
        let line = std::mem::take(&mut begun);
        let line = line.trim_matches(BLANKS);
        if line.is_empty() {
            continue;
        }
        match line.strip_prefix('[') {
            Some(name) => section = name.strip_suffix(']')?.to_owned(),
            None => {
                let (key, value) = line.split_once('=')?;
                let [key, value] = [key, value].map(|part| part.trim_matches(BLANKS).to_owned());
                settings.push((section.clone(), key, value));
            }
        }
    }
    begun.is_empty().then_some(settings)
}

/// The first word of a command line: extract_first_word() with EXTRACT_UNQUOTE and
/// EXTRACT_CUNESCAPE, for the escapes that the gateway writes. None where it would refuse the line.
pub fn first_word(line: &str) -> Option<String> {
    let (mut word, mut quote) = (String::new(), None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', _) => match chars.next()? {
                c @ ('\\' | '"' | '\'') => word.push(c),
                _ => return None,
            },
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (c, None) if BLANKS.contains(&c) => break,
            (c, _) => word.push(c),
        }
    }
    quote.is_none().then_some(word)
}

/// `%%` is a percent sign; None for what else a percent sign begins.
pub fn specifiers(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '%' && chars.next()? != '%' {
            return None;
        }
        out.push(c);
    }
    Some(out)
}
