//! Where secrets stand in a text or a command line.

use std::ops::Range;

use super::names::{SecretNames, parts};

/// Where secrets stand in each argument of a command line.
pub fn in_command(names: &SecretNames, argv: &[String]) -> Vec<Vec<Range<usize>>> {
    let mut after_name = false;
    argv.iter()
        .map(|arg| {
            let whole = after_name && !arg.starts_with("--");
            after_name =
                arg.starts_with('-') && !arg.contains(['=', ' ', ':']) && names.is_secret(arg);
            if whole {
                std::iter::once(0..arg.len()).collect()
            } else {
                in_text(names, arg)
            }
        })
        .collect()
}

/// Where secrets stand in a text: sorted, not overlapping.
pub fn in_text(names: &SecretNames, text: &str) -> Vec<Range<usize>> {
    let mut found = in_urls(text);
    let mut at = 0;
    while let Some(start) = text[at..].find(is_name).map(|offset| at + offset) {
        let end = text[start..]
            .find(|c| !is_name(c))
            .map_or(text.len(), |offset| start + offset);
        at = end;
        let name = &text[start..end];
        let value = if name.eq_ignore_ascii_case("bearer") {
            Some(word_after(text, end)).filter(|range| !is_prose_of_bearer(&text[range.clone()]))
        } else if name.eq_ignore_ascii_case("basic") {
            // "basic" is an English word too; credentials are base64 and hardly ever all lower
            // case.
            Some(word_after(text, end))
                .filter(|range| text[range.clone()].contains(|c: char| !c.is_ascii_lowercase()))
        } else if may_have_value(&text[end..]) && names.is_secret(name) {
            value_after(text, name, end)
        } else {
            None
        };
        if let Some(value) = value.filter(|range| !range.is_empty()) {
            at = at.max(value.end);
            found.push(value);
        }
    }
    found.sort_by_key(|range| range.start);
    found
}

/// Whether what follows "bearer" speaks of the scheme, as in "no bearer token, so …", and is none. A token
/// may be a word of any letters, so these are all the words that are known.
fn is_prose_of_bearer(word: &str) -> bool {
    const PROSE: [&str; 8] = [
        "token",
        "tokens",
        "auth",
        "authentication",
        "authorization",
        "scheme",
        "credentials",
        "realm=",
    ];
    let word = word.trim_end_matches(['.', ':', '!', '?']);
    PROSE.iter().any(|known| word.eq_ignore_ascii_case(known))
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// Whether [`value_after`] can find a value in what follows a name; most words of a text have none, and
/// to look at a name costs more.
fn may_have_value(rest: &str) -> bool {
    rest.starts_with(['=', ':', ' ', '\t', '"', '\'', '\\', ']'])
}

/// The value that belongs to a secret name ending at `end`: after `=`, after `:`, or after a blank
/// when the name is a flag.
fn value_after(text: &str, name: &str, end: usize) -> Option<Range<usize>> {
    let rest = &text[end..];
    let unquoted = rest.trim_start_matches(['"', '\'', '\\', ']']);
    let quoted = unquoted.len() < rest.len();
    let separated = unquoted.trim_start_matches([' ', '\t']);
    let Some(separator @ ('=' | ':')) = separated.chars().next() else {
        let blank = rest.starts_with([' ', '\t', '=']);
        return (name.starts_with('-') && blank && !separated.starts_with('-'))
            .then(|| word_after(text, end));
    };
    let is_word = || matches!(parts(name).as_slice(), [word] if word == "key" || word == "pass");
    if separator == ':' && !quoted && is_word() {
        return None; // prose: "unknown key: x", "pass: 3"
    }
    let from = text.len() - separated.len() + 1;
    if name.to_ascii_lowercase().ends_with("authorization") {
        // Scheme and credentials, with blanks and commas between: all of it.
        let value = text[from..].trim_start_matches([' ', '\t', '"', '\'', '\\']);
        let start = text.len() - value.len();
        let length = value.find(['\n', '\r', '"', '\'']).unwrap_or(value.len());
        return Some(start..start + length);
    }
    Some(word_after(text, from))
}

/// The next word, or what stands in quotes there.
fn word_after(text: &str, from: usize) -> Range<usize> {
    let rest = text[from..].trim_start_matches([' ', '\t', '\\', '=', ':']);
    let (open, body) = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => (Some(quote), &rest[1..]),
        _ => (None, rest),
    };
    let start = text.len() - body.len();
    let length = match open {
        Some(quote) => body.find(quote).unwrap_or(body.len()),
        None => body
            .find(|c: char| {
                c.is_whitespace() || matches!(c, '"' | '\'' | '&' | ';' | ',' | ')' | '}' | ']')
            })
            .unwrap_or(body.len()),
    };
    start..start + length
}

/// Passwords in URLs; a user name alone counts when it is long enough to be a token.
fn in_urls(text: &str) -> Vec<Range<usize>> {
    const TOKEN_MIN: usize = 20;
    let mut found = Vec::new();
    for (at, mark) in text.match_indices("://") {
        let start = at + mark.len();
        let rest = &text[start..];
        let authority = &rest[..rest
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\''))
            .unwrap_or(rest.len())];
        let Some(user_info) = authority.rfind('@').map(|at| &authority[..at]) else {
            continue;
        };
        match user_info.find(':') {
            Some(colon) => found.push(start + colon + 1..start + user_info.len()),
            None if user_info.len() >= TOKEN_MIN => found.push(start..start + user_info.len()),
            None => {}
        }
    }
    found.retain(|range: &Range<usize>| !range.is_empty());
    found
}
