//! The target of a request, as an access log shows it.

use std::borrow::Cow;

use super::find::in_text;
use super::{MASK, Redactor};
use crate::text::percent;

/// Names that mark a value as secret in a query, besides those that do everywhere: signatures of
/// links, and what a login passes from one page to the next.
const QUERY_NAMES: [&str; 12] = [
    "sig",
    "signature",
    "x-amz-signature",
    "x-goog-signature",
    "hmac",
    "code",
    "auth",
    "sid",
    "session",
    "sessionid",
    "ticket",
    "assertion",
];

/// What the tokens of widely used services begin with, and JSON web tokens.
const TOKEN_BEGINS: [&str; 15] = [
    "eyJ",
    "sk-",
    "sk_",
    "rk_",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "AIza",
    "ya29.",
];

/// A shorter value is no token of these services.
const TOKEN_MIN: usize = 16;

impl Redactor {
    /// Path and query of a request, secret values as `***`: those whose name says so, percent-encoded
    /// or not, and those that look like a token.
    pub fn target(&self, target: &str) -> String {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let mut shown = match decoded(path) {
            // It is shown as the server reads it, so that what is hidden is seen.
            Cow::Owned(plain) if self.holds_secret(&plain) => plain,
            _ => path.to_owned(),
        };
        if let Some(query) = query {
            shown.reserve(query.len() + 1);
            shown.push('?');
            for pair in query.split_inclusive(['&', ';']) {
                self.push_pair(&mut shown, pair);
            }
        }
        self.text(&shown)
    }

    fn push_pair(&self, shown: &mut String, pair: &str) {
        let text = pair.trim_end_matches(['&', ';']);
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if value.is_empty() || !self.is_secret_pair(&decoded(name), &decoded(value)) {
            shown.push_str(pair);
            return;
        }
        shown.push_str(name);
        shown.push('=');
        shown.push_str(MASK);
        shown.push_str(&pair[text.len()..]);
    }

    fn is_secret_pair(&self, name: &str, value: &str) -> bool {
        let named = QUERY_NAMES
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known));
        let begins = || TOKEN_BEGINS.iter().any(|begin| value.starts_with(begin));
        named
            || self.0.names.is_secret(name)
            || (value.len() >= TOKEN_MIN && begins())
            || self.holds_secret(value)
    }

    fn holds_secret(&self, text: &str) -> bool {
        !in_text(&self.0.names, text).is_empty() || self.hide_learned(text) != text
    }
}

/// A text with `%41` as `A`; what is not UTF-8 then is replaced.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let plain = percent::decode(text.as_bytes());
    Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secrets_of_a_query_are_hidden() {
        let redactor = Redactor::new(&["pin".to_owned()]);
        redactor.learn("p@ss word");
        for (target, shown) in [
            ("/", "/"),
            ("/tokens/12?page=2&sort=asc", "/tokens/12?page=2&sort=asc"),
            ("/a?token=abc&x=1", "/a?token=***&x=1"),
            ("/a?x=1;api_key=abc;y", "/a?x=1;api_key=***;y"),
            ("/a?%74oken=abc", "/a?%74oken=***"),
            ("/a?access%5Ftoken=abc&b", "/a?access%5Ftoken=***&b"),
            ("/a?PIN=1234", "/a?PIN=***"),
            ("/s3?X-Amz-Signature=0f&n=1", "/s3?X-Amz-Signature=***&n=1"),
            ("/cb?code=4%2F0A&state=x", "/cb?code=***&state=x"),
            ("/a?q=eyJhbGciOiJI.eyJzdWIi.sig", "/a?q=***"),
            ("/a?q=p%40ss+word", "/a?q=p%40ss+word"),
            ("/a?q=p%40ss%20word", "/a?q=***"),
            ("/a?u=http%3A%2F%2Fme%3Ahidden%40h%2F", "/a?u=***"),
            ("/p@ss word/x", "/***/x"),
            ("/p%40ss%20word/x", "/***/x"),
            ("/a?token=", "/a?token="),
            ("/a?token=b=c", "/a?token=***"),
            ("/a%zz?b%4", "/a%zz?b%4"),
            ("/a;token=abc/b", "/a;token=***"),
        ] {
            assert_eq!(redactor.target(target), shown, "{target}");
        }
    }
}
