//! Sessions that stay with the copy of a server that made them, while it drains (`sticky`).
//!
//! A session is remembered only from the server's own answers, never from what a client sends: from its
//! Set-Cookie, or from the JSON at the beginning of an answer to a request that is of no session yet, as
//! socket.io gives its `sid`. So nobody can make a value up, and a value that is not known goes where
//! requests without one go. Who has the server make very many sessions lets old ones be forgotten: they
//! go to the new copy then, as without `sticky`.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, Weak};

use http::header::{self, HeaderMap};
use http::{Response, StatusCode, Uri};

use super::backend::Backend;
use crate::config::SessionKey;
use crate::os::mutex::lock;
use crate::text::percent;

/// How many sessions are remembered at least, and twice as many at most: some 2 MB.
const REMEMBERED: usize = 32 * 1024;

/// How much of an answer is looked through for the value of a session: socket.io's first answer has some
/// 120 bytes.
const LOOKED_THROUGH: usize = 4 * 1024;

/// The sessions of one server, whichever of its copies made them.
#[derive(Debug)]
pub struct Sessions {
    key: SessionKey,
    hasher: RandomState,
    known: Mutex<KnownSessions>,
}

/// By the hash of their values: a value is a secret of its client. Those that were used last are in
/// `young`; when that is full, it takes the place of `old`.
#[derive(Debug, Default)]
struct KnownSessions {
    young: HashMap<u64, Weak<Backend>>,
    old: HashMap<u64, Weak<Backend>>,
}

impl KnownSessions {
    fn note(&mut self, session: u64, home: Weak<Backend>) {
        if self.young.len() >= REMEMBERED && !self.young.contains_key(&session) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(session, home);
    }

    fn home(&mut self, session: u64) -> Option<Arc<Backend>> {
        if let Some(home) = self.young.get(&session) {
            return home.upgrade();
        }
        let home = self.old.remove(&session)?;
        self.note(session, home.clone());
        home.upgrade()
    }
}

/// What one request has to do with sessions.
#[derive(Debug)]
pub struct RequestSession {
    sessions: Arc<Sessions>,
    /// The hash of its value, if it has one.
    value: Option<u64>,
}

impl Sessions {
    pub fn new(key: SessionKey) -> Arc<Self> {
        Arc::new(Self {
            key,
            hasher: RandomState::new(),
            known: Mutex::default(),
        })
    }

    /// Whether sessions of this key are meant.
    pub fn are_of(&self, key: &SessionKey) -> bool {
        self.key == *key
    }

    /// The session of a request.
    pub fn of(self: &Arc<Self>, target: &Uri, headers: &HeaderMap) -> RequestSession {
        let value = match &self.key {
            SessionKey::Cookie(name) => cookie(headers, name).map(|value| self.hash(value)),
            SessionKey::Query(name) => {
                query(target, name).map(|value| self.hash(&percent::decode(value)))
            }
        };
        RequestSession {
            sessions: Arc::clone(self),
            value,
        }
    }

    fn hash(&self, value: &[u8]) -> u64 {
        self.hasher.hash_one(value)
    }

    fn remember(&self, value: &[u8], home: &Arc<Backend>) {
        if !value.is_empty() {
            home.has_sessions();
            lock(&self.known).note(self.hash(value), Arc::downgrade(home));
        }
    }
}

impl RequestSession {
    /// The copy of the server that made the session, if that is known.
    pub fn home(&self) -> Option<Arc<Backend>> {
        lock(&self.sessions.known).home(self.value?)
    }

    /// Learns from the head of the answer of `home`. What comes back learns from its body.
    pub fn learn<B>(self, answer: &Response<B>, home: &Arc<Backend>) -> Option<SessionTap> {
        let headers = answer.headers();
        match &self.sessions.key {
            SessionKey::Cookie(name) => {
                let set = headers.get_all(header::SET_COOKIE).into_iter();
                let pairs = set.filter_map(|set| pair(first(set.as_bytes(), b';')));
                let ours = pairs.filter(|(key, _)| *key == name.as_bytes());
                ours.for_each(|(_, value)| self.sessions.remember(value, home));
                None
            }
            SessionKey::Query(_) => {
                let readable = !headers.contains_key(header::CONTENT_ENCODING);
                let begins = self.value.is_none() && answer.status() == StatusCode::OK;
                (begins && readable).then(|| SessionTap {
                    sessions: self.sessions,
                    home: Arc::clone(home),
                    seen: Vec::new(),
                })
            }
        }
    }
}

/// Looks for the value of a session in the beginning of an answer.
#[derive(Debug)]
pub struct SessionTap {
    sessions: Arc<Sessions>,
    home: Arc<Backend>,
    /// What was seen so far, without backslashes: JSON may stand in a text of JavaScript.
    seen: Vec<u8>,
}

impl SessionTap {
    /// Looks at the next bytes, before the client has them; false when there is nothing more to look for.
    pub fn see(&mut self, data: &[u8]) -> bool {
        let SessionKey::Query(name) = &self.sessions.key else {
            return false;
        };
        let room = LOOKED_THROUGH.saturating_sub(self.seen.len());
        let data = data.iter().take(room).filter(|byte| **byte != b'\\');
        self.seen.extend(data);
        if let Some(value) = member(&self.seen, name) {
            self.sessions.remember(value, &self.home);
            return false;
        }
        room > 0
    }
}

/// The value of the cookie `name` of a request.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let lines = headers.get_all(header::COOKIE).into_iter();
    let mut pairs = lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(pair);
    let (_, value) = pairs.find(|(key, _)| *key == name.as_bytes())?;
    Some(value).filter(|value| !value.is_empty())
}

/// The value of the query parameter `name`, as it is written.
fn query<'a>(target: &'a Uri, name: &str) -> Option<&'a [u8]> {
    let query = target.query()?.as_bytes();
    let mut pairs = query.split(|byte| *byte == b'&').filter_map(pair);
    let (_, value) = pairs.find(|(key, _)| *key == name.as_bytes())?;
    Some(value).filter(|value| !value.is_empty())
}

/// `name=value`
fn pair(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'=', text)?;
    Some((text[..at].trim_ascii(), text[at + 1..].trim_ascii()))
}

fn first(text: &[u8], end: u8) -> &[u8] {
    let at = memchr::memchr(end, text).unwrap_or(text.len());
    &text[..at]
}

/// The text of the member `name` in what begins as JSON: `"name" : "text"`.
fn member<'a>(json: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let quoted = format!("\"{name}\"");
    memchr::memmem::find_iter(json, &quoted).find_map(|at| {
        let rest = json[at + quoted.len()..].trim_ascii_start();
        let rest = rest.strip_prefix(b":")?.trim_ascii_start();
        let rest = rest.strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', rest)?;
        Some(&rest[..end])
    })
}

#[cfg(test)]
mod tests {
    use http::header::{COOKIE, HeaderValue, SET_COOKIE};

    use super::*;
    use crate::proxy::Door;

    fn sessions(key: SessionKey) -> (Arc<Sessions>, Arc<Backend>) {
        (Sessions::new(key), Backend::new("a", Door::Gone))
    }

    fn of_query(sessions: &Arc<Sessions>, target: &str) -> RequestSession {
        sessions.of(&target.parse().unwrap(), &HeaderMap::new())
    }

    #[test]
    fn a_session_is_known_by_the_cookie_that_the_server_set() {
        let (sessions, home) = sessions(SessionKey::Cookie("io".to_owned()));
        let with = |line: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append(COOKIE, HeaderValue::from_static("a=1"));
            headers.append(COOKIE, HeaderValue::from_static(line));
            sessions.of(&Uri::from_static("/"), &headers)
        };
        let mut answer = Response::new(());
        for line in ["other=x", "io=abc; Path=/; HttpOnly"] {
            let line = HeaderValue::from_static(line);
            answer.headers_mut().append(SET_COOKIE, line);
        }
        assert!(with("io=abc").home().is_none(), "nobody set it yet");
        assert!(with("b=2").learn(&answer, &home).is_none());
        for (line, known) in [
            ("b=2; io=abc", true),
            ("io=abd", false),
            ("Io=abc", false),
            ("xio=abc", false),
            ("io=", false),
        ] {
            assert_eq!(with(line).home().is_some(), known, "{line}");
        }
        drop(home);
        assert!(with("io=abc").home().is_none(), "its copy is gone");
    }

    #[test]
    fn a_session_is_known_by_the_value_that_the_server_gave_in_its_first_answer() {
        let (sessions, home) = sessions(SessionKey::Query("sid".to_owned()));
        let first = "/socket.io/?EIO=4&transport=polling";
        let tap =
            |target: &str, answer: &Response<()>| of_query(&sessions, target).learn(answer, &home);
        let known = |value: &str| {
            let target = format!("{first}&sid={value}");
            of_query(&sessions, &target).home().is_some()
        };
        let answer = Response::new(());
        // In two pieces.
        let mut looks = tap(first, &answer).unwrap();
        assert!(looks.see(b"0{\"upgrades\":[\"sid\"],\"sid\": \"ab"));
        assert!(!known("abc"));
        assert!(!looks.see(b"c\",\"pingInterval\":25000}"));
        assert!(known("abc") && known("%61bc"));
        assert!(!known("abcd"), "nobody gave it");
        let mut looks = tap(first, &answer).unwrap();
        assert!(!looks.see(b"___eio[0](\"0{\\\"sid\\\":\\\"jsonp\\\"}\")"));
        assert!(known("jsonp"));
        // Not in what comes later.
        let mut looks = tap(first, &answer).unwrap();
        assert!(looks.see(&[b'x'; LOOKED_THROUGH]));
        assert!(!looks.see(b"\"sid\":\"late\""));
        assert!(!known("late"));
        // A request that is of a session begins none.
        assert!(tap("/?sid=abc", &answer).is_none());
        let mut refused = Response::new(());
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        assert!(tap(first, &refused).is_none());
        let mut packed = Response::new(());
        let gzip = HeaderValue::from_static("gzip");
        packed.headers_mut().insert(header::CONTENT_ENCODING, gzip);
        assert!(tap(first, &packed).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_used_stays() {
        let (sessions, home) = sessions(SessionKey::Query("sid".to_owned()));
        sessions.remember(b"mine", &home);
        sessions.remember(b"idle", &home);
        for number in 0..3 * REMEMBERED {
            sessions.remember(number.to_string().as_bytes(), &home);
            if number % 1000 == 0 {
                assert!(
                    of_query(&sessions, "/?sid=mine").home().is_some(),
                    "{number}"
                );
            }
        }
        assert!(of_query(&sessions, "/?sid=idle").home().is_none());
        let known = lock(&sessions.known);
        assert!(known.young.len() + known.old.len() <= 2 * REMEMBERED);
    }
}
