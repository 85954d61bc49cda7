//! Values as systemd's unit files want them.

/// The program of an `ExecStart=` line.
///
/// systemd replaces `$NAME` in arguments but not in the program's path, and doubling the `$` is
/// right in the one and wrong in the other; the prefix `:` (systemd 244) switches the replacement
/// off for the whole line, and is used only where it matters.
pub fn program(path: &str) -> String {
    let prefix = if path.contains('$') { ":" } else { "" };
    format!("{prefix}{}", word(path))
}

/// The text of a word that [`word`] wrote.
pub fn read_word(word: &str) -> String {
    let inner = word
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let mut rest = inner.unwrap_or(word).chars();
    let mut text = String::with_capacity(word.len());
    while let Some(c) = rest.next() {
        match c {
            '\\' => text.extend(rest.next()),
            // It is there twice.
            '%' => text.extend(rest.next()),
            c => text.push(c),
        }
    }
    text
}

/// A word, quoted where needed; `%`, quotes and backslash are kept from their special meaning.
pub fn word(text: &str) -> String {
    let plain = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(
                c,
                '/' | '.' | '-' | '_' | '+' | ',' | '@' | '=' | ':' | '~' | '%'
            )
            || !c.is_ascii()
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
    if !text.is_empty() && text.chars().all(plain) {
        out
    } else {
        format!("\"{out}\"")
    }
}

/// A value that systemd takes whole to the end of the line, as `EnvironmentFile=` and
/// `ListenStream=`: only `%` is special.
pub fn whole(text: &str) -> String {
    text.replace('%', "%%")
}

/// The value of a variable in an environment file, always in double quotes.
///
/// There systemd reads only `"`, `$`, a backtick and a backslash in a way of its own, each after a
/// backslash; `%`, blanks, tabs, `#` and `;` are themselves, and nothing is replaced (env-file.c;
/// tested on 252).
pub fn variable(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '$' | '`' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// Why a path cannot stand in a unit file at all, if so.
///
/// systemd refuses control characters in paths, cuts spaces off both ends of a value, and joins a
/// line that ends with a backslash with the next.
pub fn unfit(path: &str) -> Option<&'static str> {
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
    use proptest::prelude::*;

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
        assert_eq!(variable("a\"b$c`d\\e%f"), r#""a\"b\$c\`d\\e%f""#);
    }

    #[test]
    fn what_cannot_be_said_is_found() {
        assert_eq!(unfit("/a b\"%$"), None);
        for path in ["/a\nb", "/a ", "/a\\", "a"] {
            assert!(unfit(path).is_some(), "{path:?}");
        }
    }

    /// The first word of a command line as systemd 252 reads it: extract_first_word() with
    /// EXTRACT_UNQUOTE and EXTRACT_CUNESCAPE, then unit_full_printf(). None where it would refuse
    /// the line.
    fn first_word(line: &str) -> Option<String> {
        let mut word = String::new();
        let mut quote = None;
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match (c, quote) {
                ('\\', _) => match chars.next()? {
                    c @ ('\\' | '"' | '\'') => word.push(c),
                    's' => word.push(' '),
                    't' => word.push('\t'),
                    'n' => word.push('\n'),
                    _ => return None,
                },
                (c, Some(open)) if c == open => quote = None,
                ('"' | '\'', None) => quote = Some(c),
                (c, None) if c.is_ascii_whitespace() => break,
                (c, _) => word.push(c),
            }
        }
        if quote.is_some() {
            None
        } else {
            specifiers(&word)
        }
    }

    /// `%%` is a percent sign; what else a percent sign begins is something else.
    fn specifiers(text: &str) -> Option<String> {
        let mut out = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' if chars.next()? == '%' => out.push('%'),
                '%' => return None,
                c => out.push(c),
            }
        }
        Some(out)
    }

    /// The rest of a line `NAME=…` of an environment file: the states of parse_env_file_internal()
    /// that such a line can reach.
    fn env_file_value(text: &str) -> Option<String> {
        let mut out = String::new();
        let mut chars = text.trim_start_matches([' ', '\t']).chars();
        match chars.next()? {
            '"' => {}
            _ => return None,
        }
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => match chars.next()? {
                    c @ ('"' | '\\' | '`' | '$') => out.push(c),
                    '\n' => {}
                    c => {
                        out.push('\\');
                        out.push(c);
                    }
                },
                c => out.push(c),
            }
        }
        chars.next().is_none().then_some(out)
    }

    fn path() -> impl Strategy<Value = String> {
        r#"/[ -~äß中😀]{0,40}"#.prop_filter("a path that can be said", |text| unfit(text).is_none())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_word_is_read_back_as_it_was(text in r#"[ -~äß中😀\t]{0,40}"#) {
            prop_assert_eq!(first_word(&format!("{} run", word(&text))), Some(text));
        }

        #[test]
        fn a_program_is_read_back_as_it_was(text in path()) {
            let line = program(&text);
            let (raw, line) = line.strip_prefix(':').map_or((false, line.as_str()), |rest| (true, rest));
            prop_assert_eq!(raw, text.contains('$'), "with `:` nothing is replaced");
            prop_assert_eq!(first_word(&format!("{line} run")), Some(text));
        }

        #[test]
        fn a_whole_value_is_read_back_as_it_was(text in path()) {
            let line = whole(&text);
            prop_assert_eq!(line.trim(), &line, "systemd cuts blanks off both ends");
            prop_assert!(!line.ends_with('\\'), "and joins such a line with the next");
            prop_assert_eq!(specifiers(&line), Some(text));
        }

        #[test]
        fn a_variable_is_read_back_as_it_was(text in any::<String>()) {
            prop_assert_eq!(env_file_value(&variable(&text)), Some(text));
        }
    }
}
