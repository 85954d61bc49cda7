//! Names that say that their value is secret: `--token`, `API_KEY`, `"password"`.

/// Words that mark a value as secret wherever they stand in its name. "key" has rules of its own:
/// see [`means_key`].
const WORDS: [&str; 10] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "credential",
    "authorization",
    "jwt",
    "webhook",
    "mnemonic",
];

/// What a part of a name ends in that marks a value as secret: `DB_PASS`, `mysqlpwd`, `SENTRY_DSN`.
const ENDINGS: [&str; 4] = ["pass", "pwd", "dsn", "creds"];

/// Parts that mark a value as secret as a whole: `SESSION_COOKIE`, `GITHUB_PAT`.
const PARTS: [&str; 4] = ["pw", "pat", "otp", "cookie"];

/// Parts that end in one of [`ENDINGS`] and say something else.
const HARMLESS: [&str; 6] = [
    "bypass",
    "compass",
    "encompass",
    "trespass",
    "surpass",
    "oldpwd",
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

/// The names whose values are secret: the usual ones, and those of the configuration.
#[derive(Debug, Default)]
pub struct SecretNames {
    extra: Vec<String>,
}

impl SecretNames {
    /// `extra` words, in any case, mark a name wherever they stand in it.
    pub fn new(extra: &[String]) -> Self {
        let extra = extra
            .iter()
            .map(|word| word.trim().to_ascii_lowercase())
            .filter(|word| !word.is_empty())
            .collect();
        Self { extra }
    }

    pub fn is_secret(&self, name: &str) -> bool {
        let lower = name.to_ascii_lowercase();
        if self.extra.iter().any(|word| lower.contains(word.as_str())) {
            return true;
        }
        let parts = parts(name);
        let is_place = parts
            .last()
            .is_some_and(|last| PLACES.contains(&last.as_str()));
        // The working directory.
        let is_pwd = parts == ["pwd"];
        !is_place
            && !is_pwd
            && (WORDS.iter().any(|word| lower.contains(word))
                || parts
                    .iter()
                    .any(|part| means_key(part) || means_secret(part)))
    }
}

fn means_secret(part: &str) -> bool {
    let ends = ENDINGS.iter().any(|end| part.ends_with(end));
    (ends && !HARMLESS.contains(&part)) || PARTS.contains(&part)
}

/// Whether a part of a name means a key: "key" itself, or a known word that ends in it.
fn means_key(part: &str) -> bool {
    let stem = part.strip_suffix('s').unwrap_or(part);
    stem.strip_suffix("key").is_some_and(|prefix| {
        prefix.is_empty() || KEY_PREFIXES.iter().any(|known| prefix.ends_with(known))
    })
}

/// The words of a name in lower case: `X-Api-Key`, `apiKey` and `API_KEY` all give "api" and "key".
pub fn parts(name: &str) -> Vec<String> {
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
