//! Keeps secrets out of everything that is printed, logged or shown.
//!
//! A value is secret when the name before it says so (`--token X`, `API_KEY=X`, `"password": "X"`),
//! when it follows `Bearer`, or when it stands in a URL before the `@`. Values found in commands
//! and environments are remembered, so that [`Redactor::text`] hides them wherever they turn up
//! again, as in the output of a sidecar.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Shorter values are not searched for in free text: "1234" would be hidden in every port number.
const LEARN_MIN: usize = 6;

/// Words that mark a value as secret wherever they stand in its name. "key" has rules of its own:
/// see [`names_key`].
const WORDS: [&str; 7] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "credential",
    "authorization",
];

/// What is written before "key" without a break: `apikey`, but not `monkey`.
const KEY_PREFIXES: [&str; 12] = [
    "api",
    "access",
    "private",
    "auth",
    "signing",
    "encryption",
    "master",
    "shared",
    "session",
    "ssh",
    "app",
    "license",
];

/// Endings that make a name speak of a place rather than of the secret itself: `TOKEN_FILE`.
const PLACES: [&str; 4] = ["file", "path", "dir", "error"];

/// Hides secrets. Cheap to clone; clones share what was learned.
#[derive(Clone, Debug)]
pub struct Redactor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    extra: Vec<String>,
    learned: RwLock<Vec<String>>,
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Redactor {
    /// A redactor for the usual words and for `extra` ones (`[gateway] redact`), in any case.
    pub fn new(extra: &[String]) -> Self {
        let extra = extra
            .iter()
            .map(|word| word.trim().to_ascii_lowercase())
            .filter(|word| !word.is_empty())
            .collect();
        Self(Arc::new(Inner {
            extra,
            learned: RwLock::default(),
        }))
    }

    /// A command line as it could be typed into a shell, secret values as `***`.
    pub fn command(&self, argv: &[String]) -> String {
        let shown: Vec<String> = self.arguments(argv).iter().map(|arg| quote(arg)).collect();
        shown.join(" ")
    }

    /// The arguments of a command, secret values as `***`: [`Redactor::command`] before quoting.
    pub fn arguments(&self, argv: &[String]) -> Vec<String> {
        argv.iter()
            .zip(self.in_command(argv))
            .map(|(arg, ranges)| self.hide_learned(&mask(arg, ranges)))
            .collect()
    }

    /// `KEY=VALUE`, the value hidden when it is secret.
    pub fn env(&self, key: &str, value: &str) -> String {
        format!("{key}={}", self.value(key, value))
    }

    /// The value of a variable, hidden when it is secret.
    pub fn value(&self, key: &str, value: &str) -> String {
        if self.names_secret(key) && !value.is_empty() {
            MASK.to_owned()
        } else {
            self.text(value)
        }
    }

    /// Whether a variable is secret, by its name or because its value holds something secret, as a
    /// password in a URL.
    pub fn is_secret(&self, key: &str, value: &str) -> bool {
        !value.is_empty() && (self.names_secret(key) || !self.in_text(value).is_empty())
    }

    /// A text with every secret in it hidden.
    pub fn text(&self, text: &str) -> String {
        let ranges = self.in_text(text);
        self.hide_learned(&mask(text, ranges))
    }

    /// Remembers the secret values of a command line.
    pub fn learn_command(&self, argv: &[String]) {
        for (arg, ranges) in argv.iter().zip(self.in_command(argv)) {
            ranges.into_iter().for_each(|range| self.learn(&arg[range]));
        }
    }

    /// Remembers the value of a variable, when it is secret or holds something secret.
    pub fn learn_env(&self, key: &str, value: &str) {
        if self.names_secret(key) {
            self.learn(value);
        }
        self.in_text(value)
            .into_iter()
            .for_each(|range| self.learn(&value[range]));
    }

    /// Remembers one value; a value of several lines line by line, because output is read that way.
    pub fn learn(&self, value: &str) {
        let mut learned = self
            .0
            .learned
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for line in value.lines().map(without_scheme) {
            if line.len() >= LEARN_MIN
                && !line.starts_with("-----")
                && !learned.iter().any(|known| known == line)
            {
                learned.push(line.to_owned());
            }
        }
        // The longest first: a value that contains another one must go as a whole.
        learned.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    fn hide_learned(&self, text: &str) -> String {
        let learned = self
            .0
            .learned
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        learned
            .iter()
            .filter(|value| text.contains(value.as_str()))
            .fold(None, |hidden: Option<String>, value| {
                Some(
                    hidden
                        .as_deref()
                        .unwrap_or(text)
                        .replace(value.as_str(), MASK),
                )
            })
            .unwrap_or_else(|| text.to_owned())
    }

    /// Whether a name says that its value is secret.
    fn names_secret(&self, name: &str) -> bool {
        let lower = name.to_ascii_lowercase();
        if self
            .0
            .extra
            .iter()
            .any(|word| lower.contains(word.as_str()))
        {
            return true;
        }
        let parts = parts(name);
        if parts
            .last()
            .is_some_and(|last| PLACES.contains(&last.as_str()))
        {
            return false;
        }
        WORDS.iter().any(|word| lower.contains(word)) || parts.iter().any(|part| names_key(part))
    }

    fn in_command(&self, argv: &[String]) -> Vec<Vec<Range<usize>>> {
        let mut after_name = false;
        argv.iter()
            .map(|arg| {
                let whole = after_name && !arg.starts_with("--");
                after_name = arg.starts_with('-')
                    && !arg.contains(['=', ' ', ':'])
                    && self.names_secret(arg);
                if whole {
                    std::iter::once(0..arg.len()).collect()
                } else {
                    self.in_text(arg)
                }
            })
            .collect()
    }

    /// Where secrets stand in a text: sorted, not overlapping.
    fn in_text(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = in_urls(text);
        let mut at = 0;
        while let Some(start) = text[at..].find(is_name).map(|offset| at + offset) {
            let end = text[start..]
                .find(|c| !is_name(c))
                .map_or(text.len(), |offset| start + offset);
            at = end;
            let name = &text[start..end];
            let value = if name.eq_ignore_ascii_case("bearer") {
                Some(word_after(text, end))
            } else if name.eq_ignore_ascii_case("basic") {
                // "basic" is an English word too; credentials are base64 and hardly ever all lower
                // case.
                Some(word_after(text, end))
                    .filter(|range| text[range.clone()].contains(|c: char| !c.is_ascii_lowercase()))
            } else if self.names_secret(name) {
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
}

/// Whether a part of a name means a key: "key" itself, or a known word that ends in it.
fn names_key(part: &str) -> bool {
    let stem = part.strip_suffix('s').unwrap_or(part);
    stem.strip_suffix("key").is_some_and(|prefix| {
        prefix.is_empty() || KEY_PREFIXES.iter().any(|known| prefix.ends_with(known))
    })
}

/// The words of a name in lower case: `X-Api-Key`, `apiKey` and `API_KEY` all give "api" and "key".
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut lower_before = false;
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && lower_before) {
            parts.push(String::new());
        }
        if let (true, Some(part)) = (c.is_ascii_alphanumeric(), parts.last_mut()) {
            part.push(c.to_ascii_lowercase());
        }
        lower_before = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Credentials without the word before them that says of what kind they are.
fn without_scheme(value: &str) -> &str {
    match value.trim().split_once(' ') {
        Some((scheme, rest))
            if ["bearer", "basic", "token", "digest"]
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known)) =>
        {
            rest.trim()
        }
        _ => value.trim(),
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
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
    if separator == ':' && !quoted && parts(name) == ["key"] {
        return None; // prose: "unknown key: x"
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

fn mask(text: &str, ranges: Vec<Range<usize>>) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    for range in ranges {
        if range.start >= at {
            shown.push_str(&text[at..range.start]);
            shown.push_str(MASK);
        }
        at = at.max(range.end);
    }
    shown.push_str(&text[at..]);
    shown
}

/// An argument as a shell would read it, without characters that could drive a terminal.
fn quote(arg: &str) -> String {
    let arg = crate::text::escape::escape(arg);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,*{}[]?&~^".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        arg.into_owned()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn argv(args: &[&str]) -> Vec<String> {
        args.iter().map(|arg| (*arg).to_owned()).collect()
    }

    #[test]
    fn commands_are_shown_without_their_secrets() {
        let redactor = Redactor::default();
        for (args, shown) in [
            (
                &["node", "server.js", "--port", "{port}"][..],
                "node server.js --port {port}",
            ),
            (&["x", "--token", "hunter2"], "x --token ***"),
            (
                &["x", "--token=hunter2", "--api-key=a"],
                "x --token=*** --api-key=***",
            ),
            (&["x", "--token", "--verbose"], "x --token --verbose"),
            (&["env", "DB_PASSWORD=a b", "x"], "env DB_PASSWORD=*** b x"),
            (
                &["curl", "-H", "Authorization: Bearer abc.def"],
                "curl -H 'Authorization: ***'",
            ),
            (
                &["x", "postgres://u:p%40ss@db/x"],
                "x postgres://u:***@db/x",
            ),
            (
                &["sh", "-c", "TOKEN='a b' exec \"x\""],
                r#"sh -c 'TOKEN='\''***'\'' exec "x"'"#,
            ),
            (
                &["x", "--keyboard", "us", "--monkey=y"],
                "x --keyboard us --monkey=y",
            ),
            (&["x", "--token-file", "/run/t"], "x --token-file /run/t"),
            (&["x", "a\u{1b}[2Jb"], r"x 'a\x1b[2Jb'"),
        ] {
            // A value with blanks is a whole argument only after a flag; a variable's ends where a
            // shell's would.
            let expected = if args[0] == "env" {
                "env 'DB_PASSWORD=*** b' x"
            } else {
                shown
            };
            assert_eq!(redactor.command(&argv(args)), expected);
        }
    }

    #[test]
    fn texts_are_shown_without_their_secrets() {
        let redactor = Redactor::new(&["pin".into()]);
        for (text, shown) in [
            (r#"{"apiKey":"abc","n":1}"#, r#"{"apiKey":"***","n":1}"#),
            (
                "GET /?token=abc&x=1 HTTP/1.1",
                "GET /?token=***&x=1 HTTP/1.1",
            ),
            ("x-api-key: abc", "x-api-key: ***"),
            (
                "started with --secret abc --x",
                "started with --secret *** --x",
            ),
            ("Bearer abc", "Bearer ***"),
            ("basic questions", "basic questions"),
            ("Basic YWJj", "Basic ***"),
            ("KeyError: 'name'", "KeyError: 'name'"),
            ("unknown key: x", "unknown key: x"),
            ("pin=1234", "pin=***"),
            ("http://127.0.0.1:80/@x", "http://127.0.0.1:80/@x"),
            ("password", "password"),
            ("ünïcode token=ä ö", "ünïcode token=*** ö"),
        ] {
            assert_eq!(redactor.text(text), shown);
        }
    }

    #[test]
    fn what_was_learned_is_hidden_everywhere_and_by_every_clone() {
        let redactor = Redactor::default();
        let clone = redactor.clone();
        redactor.learn_env("SERVICE_KEY", "first-line-of-it\nsecond-line-of-it");
        redactor.learn_command(&argv(&["x", "--password", "correct horse"]));
        redactor.learn_env("HOME", "/home/someone");
        redactor.learn_env("SHORT_TOKEN", "1234");
        assert_eq!(
            clone.text("got second-line-of-it, correct horse, port 1234 in /home/someone"),
            "got ***, ***, port 1234 in /home/someone"
        );
        assert_eq!(clone.env("API_TOKEN", "x"), "API_TOKEN=***");
        assert_eq!(clone.env("URL", "http://u:pw@h/"), "URL=http://u:***@h/");
    }

    proptest! {
        #[test]
        fn a_canary_never_appears(canary in "CANARY[a-zA-Z0-9+/_.-]{6,24}", word in "(token|SECRET|db_password|Passwd|api-key|X-Api-Key|authorization|SIGNING_KEY)",
            before in "[ -~]{0,12}", shape in 0..8usize)
        {
            let redactor = Redactor::default();
            let args = match shape {
                0 => vec![format!("--{word}"), canary.clone()],
                1 => vec![format!("--{word}={canary}")],
                2 => vec![format!("{word}={canary}")],
                3 => vec!["-H".into(), format!("{word}: {canary}")],
                4 => vec![format!("http://user:{}@host/", canary.replace('/', "_"))],
                5 => vec!["-H".into(), format!("Authorization: Bearer {canary}")],
                6 => vec!["-c".into(), format!("export {word}='{canary}'; run")],
                _ => vec![format!("{{\"{word}\": \"{canary}\"}}")],
            };
            let secret = if shape == 4 { canary.replace('/', "_") } else { canary };
            let mut all = vec!["prog".to_owned()];
            all.extend(args);
            prop_assert!(!redactor.command(&all).contains(&secret), "{}", redactor.command(&all));
            prop_assert!(!redactor.text(&all.join(" ")).contains(&secret), "{}", redactor.text(&all.join(" ")));
            redactor.learn_command(&all);
            let anywhere = format!("{before}{secret}{before}");
            prop_assert!(!redactor.text(&anywhere).contains(&secret), "{}", redactor.text(&anywhere));
        }

        #[test]
        fn any_text_is_taken(text in any::<String>(), more in "[\"'=:@/ a-z]{0,40}") {
            let redactor = Redactor::default();
            redactor.text(&text);
            redactor.text(&format!("token{more}://a:{text}@{more}key={more}"));
        }
    }
}
