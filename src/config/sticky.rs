//! `[sidecar.NAME] sticky`: how requests of one session are known, which stay with the copy that made it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::types::Dur;

/// How long the old copy waits for the next request of its sessions, where nothing else is said: longer
/// than a client of socket.io waits between two polls that are answered (25 s).
const IDLE: Dur = Dur::secs(30);

/// Sessions that stay with the copy of the sidecar that made them, while it drains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StickyKeys", into = "StickyKeys")]
pub struct Sticky {
    pub key: SessionKey,
    /// How long the old copy waits for the next request of its sessions.
    pub idle: Dur,
}

/// Where the value of a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionKey {
    /// In the cookie of this name, which the server sets.
    Cookie(String),
    /// In the query parameter of this name; the server gives the value in the JSON of an answer.
    Query(String),
}

/// Sessions that stay with the copy of the sidecar that made them, known by exactly one of `cookie` and
/// `query`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickyKeys {
    /// The cookie that holds the value of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cookie: Option<String>,
    /// The query parameter that holds the value of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    /// How long the old copy waits for the next request of its sessions.
    #[serde(default = "idle")]
    idle: Dur,
}

fn idle() -> Dur {
    IDLE
}

impl TryFrom<StickyKeys> for Sticky {
    type Error = String;

    fn try_from(keys: StickyKeys) -> Result<Self, Self::Error> {
        let idle = keys.idle;
        let key = match (keys.cookie, keys.query) {
            (Some(name), None) if is_name(&name) => SessionKey::Cookie(name),
            (None, Some(name)) if is_name(&name) => SessionKey::Query(name),
            (Some(name), None) | (None, Some(name)) => {
                return Err(format!(
                    "`{}` is not the name of a cookie or a query parameter: letters, digits, `-`, `_`, `.`, `~`",
                    crate::text::escape::escape(&name)
                ));
            }
            _ => {
                return Err(
                    "`sticky` names one place of the session: { cookie = \"io\" } or { query = \"sid\" }"
                        .to_owned(),
                );
            }
        };
        Ok(Self { key, idle })
    }
}

/// Names that need no escape in a cookie, a query or JSON.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    !name.is_empty() && name.bytes().all(fits)
}

impl From<Sticky> for StickyKeys {
    fn from(sticky: Sticky) -> Self {
        let (cookie, query) = match sticky.key {
            SessionKey::Cookie(name) => (Some(name), None),
            SessionKey::Query(name) => (None, Some(name)),
        };
        Self {
            cookie,
            query,
            idle: sticky.idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{parse, to_toml};

    fn read(sticky: &str) -> Result<Sticky, String> {
        let text = format!("[sidecar.a]\ncommand = [\"x\"]\nsticky = {sticky}\n");
        let config = parse(&text, None).map_err(|error| error.to_string())?;
        let again = parse(&to_toml(&config).unwrap(), None).unwrap();
        assert_eq!(again, config, "written and read again");
        Ok(config.sidecar["a"].sticky.clone().unwrap())
    }

    #[test]
    fn one_place_is_named_and_written_as_it_was_read() {
        let cookie = read("{ cookie = \"io\" }").unwrap();
        assert_eq!(cookie.key, SessionKey::Cookie("io".to_owned()));
        assert_eq!(cookie.idle, IDLE);
        let query = read("{ query = \"sid\", idle = \"5s\" }").unwrap();
        assert_eq!(query.key, SessionKey::Query("sid".to_owned()));
        assert_eq!(query.idle, Dur::secs(5));
        for (wrong, part) in [
            ("{}", "names one place"),
            ("{ cookie = \"a\", query = \"b\" }", "names one place"),
            ("{ cookie = \"a b\" }", "`a b` is not the name"),
            ("{ query = \"\" }", "`` is not the name"),
            ("{ header = \"x\" }", "header"),
        ] {
            let why = read(wrong).unwrap_err();
            assert!(why.contains(part), "{wrong}: {why}");
        }
    }
}
