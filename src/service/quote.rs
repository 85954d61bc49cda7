//! Values as systemd's unit files want them.

/// The program of an `ExecStart=` line.
///
/// systemd replaces `$NAME` in arguments but not in the program's path, and doubling the `$` is right in the one and wrong in
/// the other; the prefix `:` (systemd 244) switches the replacement off for the whole line, and is used only where it matters.
pub(super) fn program(path: &str) -> String {
    let prefix = if path.contains('$') { ":" } else { "" };
    format!("{prefix}{}", word(path))
}

/// A word, quoted where needed; `%`, quotes and backslash are kept from their special meaning.
fn word(text: &str) -> String {
    let plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | ',' | '@' | '=' | ':' | '~' | '%') || !c.is_ascii()
    };
    let mut out = String::with_capacity(text.len() + 2);
    for c in text.chars() {
        match c {
            '%' => out.push_str("%%"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    if !text.is_empty() && text.chars().all(plain) { out } else { format!("\"{out}\"") }
}

/// A value that systemd takes whole to the end of the line, as `EnvironmentFile=` and `ListenStream=`: only `%` is special.
pub(super) fn whole(text: &str) -> String {
    text.replace('%', "%%")
}

/// Why a path cannot stand in a unit file at all, if so.
///
/// systemd refuses control characters in paths, cuts spaces off both ends of a value, and joins a line that ends with a backslash with the next.
pub(super) fn unfit(path: &str) -> Option<&'static str> {
    if path.chars().any(char::is_control) {
        Some("has a control character")
    } else if path.trim() != path {
        Some("begins or ends with a space")
    } else if path.ends_with('\\') {
        Some("ends with a backslash")
    } else if !path.starts_with('/') {
        Some("is not absolute")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_needed() {
        for (text, expected) in [
            ("/usr/bin/gateway", "/usr/bin/gateway"),
            ("/opt/my app/gateway", "\"/opt/my app/gateway\""),
            ("/opt/100%/gateway", "/opt/100%%/gateway"),
            ("/opt/a\"b\\c'd", "\"/opt/a\\\"b\\\\c'd\""),
            ("/opt/größe", "/opt/größe"),
            ("", "\"\""),
            (";", "\";\""),
        ] {
            assert_eq!(word(text), expected);
        }
        assert_eq!(program("/opt/$x/gateway"), ":\"/opt/$x/gateway\"");
    }

    #[test]
    fn what_cannot_be_said_is_found() {
        assert_eq!(unfit("/a b\"%$"), None);
        for path in ["/a\nb", "/a ", "/a\\", "a"] {
            assert!(unfit(path).is_some(), "{path:?}");
        }
    }
}
