//! What a line of the access log looks like.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use http::Version;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::entry::{AccessEntry, AskedText};
use crate::config::AccessLogFormat;
use crate::proxy::forwarded::Peer;
use crate::text::escape::escape_json;
use crate::text::redact::Redactor;

/// Makes lines.
#[derive(Debug)]
pub struct Lines {
    format: AccessLogFormat,
    redactor: Redactor,
    /// The second that was last shown, and how.
    second: (i64, String),
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            format: AccessLogFormat::Json,
            redactor: Redactor::default(),
            second: (i64::MIN, String::new()),
        }
    }
}

impl Lines {
    /// From here on lines have this format, without the secrets that `redactor` knows.
    pub fn set(&mut self, format: AccessLogFormat, redactor: Redactor) {
        *self = Self {
            format,
            redactor,
            ..Self::default()
        };
    }

    /// Adds the line of `entry`, with its line break.
    pub fn add(&mut self, line: &mut String, entry: &AccessEntry) {
        match self.format {
            AccessLogFormat::Json => self.json(line, entry),
            AccessLogFormat::Combined => self.combined(line, entry),
        }
        line.push('\n');
    }

    /// Writing to a String cannot fail.
    fn json(&mut self, line: &mut String, entry: &AccessEntry) {
        let millis = since_epoch(entry.time).subsec_millis();
        let second = self.second(entry.time);
        let _ = write!(line, "{{\"time\":\"{second}.{millis:03}Z\"");
        let asked = entry.asked.as_ref();
        let id = asked.map_or(&[][..], AskedText::id);
        text_field(line, "id", id);
        let _ = write!(line, ",\"client\":\"{}\"", ClientText(entry.client));
        if let Some(asked) = asked {
            text_field(line, "method", asked.method());
            text_field(line, "host", asked.host());
            let target = self.target(asked.target());
            text_field(line, "path", target.as_bytes());
            let _ = write!(line, ",\"protocol\":\"{}\"", protocol(asked.version));
        }
        let _ = write!(
            line,
            ",\"status\":{},\"bytes\":{},\"durationMs\":{}",
            entry.status,
            entry.bytes,
            Millis(entry.duration)
        );
        if let Some(upstream) = entry.upstream {
            let _ = write!(line, ",\"upstreamMs\":{}", Millis(upstream));
        }
        if let Some((route, generation)) = &entry.route {
            text_field(line, "sidecar", route.sidecar.as_bytes());
            let _ = write!(line, ",\"generation\":{generation}");
        }
        let _ = write!(
            line,
            ",\"retries\":{},\"end\":\"{}\"",
            entry.retries, entry.end
        );
        if let Some(asked) = asked {
            if !asked.referer().is_empty() {
                let referer = self.target(asked.referer());
                text_field(line, "referer", referer.as_bytes());
            }
            if !asked.agent().is_empty() {
                let agent = self.redactor.text(&String::from_utf8_lossy(asked.agent()));
                text_field(line, "agent", agent.as_bytes());
            }
        }
        line.push('}');
    }

    /// `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent
    /// "$http_referer" "$http_user_agent"`, as nginx writes it; a user is never known here.
    fn combined(&mut self, line: &mut String, entry: &AccessEntry) {
        let _ = write!(line, "{} - - [", ClientText(entry.client));
        let second = self.second(entry.time);
        let _ = write!(line, "{second}] \"");
        if let Some(asked) = &entry.asked {
            push_escaped(line, asked.method());
            line.push(' ');
            let target = self.target(asked.target());
            push_escaped(line, target.as_bytes());
            line.push(' ');
            line.push_str(protocol(asked.version));
        }
        let _ = write!(line, "\" {:03} {} \"", entry.status, entry.bytes);
        let (mut referer, mut agent) = (String::new(), String::new());
        if let Some(asked) = &entry.asked {
            referer = self.target(asked.referer());
            agent = self.redactor.text(&String::from_utf8_lossy(asked.agent()));
        }
        push_field(line, &referer);
        line.push_str("\" \"");
        push_field(line, &agent);
        line.push('"');
    }

    fn target(&self, target: &[u8]) -> String {
        self.redactor.target(&String::from_utf8_lossy(target))
    }

    /// A time without its fraction: in UTC for JSON, else as nginx's $time_local.
    fn second(&mut self, time: SystemTime) -> &str {
        let second = since_epoch(time).as_secs().cast_signed();
        if self.second.0 != second {
            let time = Timestamp::from_second(second).unwrap_or_default();
            let shown = match self.format {
                AccessLogFormat::Json => time.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
                AccessLogFormat::Combined => time
                    .to_zoned(TimeZone::system())
                    .strftime("%d/%b/%Y:%H:%M:%S %z")
                    .to_string(),
            };
            self.second = (second, shown);
        }
        &self.second.1
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// Adds a field of a JSON object with a text of a client.
fn text_field(line: &mut String, key: &str, text: &[u8]) {
    line.push_str(",\"");
    line.push_str(key);
    line.push_str("\":");
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    let text = String::from_utf8_lossy(text);
    if text.as_bytes().iter().all(plain) {
        line.push('"');
        line.push_str(&text);
        line.push('"');
    } else {
        // A text can always be written.
        let json = serde_json::to_string(&text).unwrap_or_default();
        line.push_str(&escape_json(&json));
    }
}

/// Adds a text of a client as nginx does (ngx_http_log_escape): quotes, backslashes and everything
/// that is not printable ASCII as `\xHH`.
fn push_escaped(line: &mut String, text: &[u8]) {
    for byte in text {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => {
                let _ = write!(line, "\\x{byte:02X}");
            }
            byte => line.push(char::from(*byte)),
        }
    }
}

/// The same, with `-` for nothing.
fn push_field(line: &mut String, text: &str) {
    match text {
        "" => line.push('-'),
        text => push_escaped(line, text.as_bytes()),
    }
}

/// A client's address; nginx writes `unix:` for clients of a unix socket, too.
struct ClientText(Peer);

impl std::fmt::Display for ClientText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Peer::Tcp(addr) | Peer::Announced(Some(addr)) => addr.to_canonical().fmt(f),
            // A proxy does not tell it.
            Peer::Announced(None) => f.write_str("-"),
            Peer::Unix | Peer::Watchdog | Peer::Passage => f.write_str("unix:"),
        }
    }
}

/// Milliseconds with three decimals.
struct Millis(Duration);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderValue, Method};

    use super::super::entry::LoggedHead;
    use super::*;
    use crate::proxy::exchange_end::ExchangeEnd;
    use crate::proxy::route_stats::RouteStats;

    fn entry(target: &'static str, agent: &'static [u8]) -> AccessEntry {
        let agent = HeaderValue::from_bytes(agent).unwrap();
        let asked = LoggedHead {
            client: Peer::Unix,
            method: Method::GET,
            target: target.parse().unwrap(),
            version: Version::HTTP_11,
            host: Some(HeaderValue::from_static("h")),
            referer: Some(HeaderValue::from_static("http://me:hidden@h/?sig=1&x=2")),
            agent: Some(agent),
        };
        AccessEntry {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_007),
            client: Peer::Tcp("::ffff:10.1.2.3".parse().unwrap()),
            asked: Some(asked.text(Some(&HeaderValue::from_static("the-id")))),
            status: 200,
            bytes: 36,
            duration: Duration::from_micros(12_034),
            upstream: Some(Duration::from_micros(900)),
            route: Some((Arc::new(RouteStats::new("main", None, "/")), 3)),
            retries: 1,
            end: ExchangeEnd::Done,
        }
    }

    fn line(format: AccessLogFormat, entry: &AccessEntry) -> String {
        let mut lines = Lines::default();
        lines.set(format, Redactor::default());
        let mut line = String::new();
        lines.add(&mut line, entry);
        line
    }

    #[test]
    fn a_json_line_tells_all() {
        let line = line(AccessLogFormat::Json, &entry("/x?token=abc&y=1", b"curl/8"));
        assert_eq!(
            line,
            "{\"time\":\"2026-09-21T14:13:20.007Z\",\"id\":\"the-id\",\"client\":\"10.1.2.3\",\"method\":\"GET\",\
             \"host\":\"h\",\"path\":\"/x?token=***&y=1\",\"protocol\":\"HTTP/1.1\",\"status\":200,\"bytes\":36,\
             \"durationMs\":12.034,\"upstreamMs\":0.900,\"sidecar\":\"main\",\"generation\":3,\"retries\":1,\
             \"end\":\"done\",\"referer\":\"http://me:***@h/?sig=***&x=2\",\"agent\":\"curl/8\"}\n"
        );
    }

    #[test]
    fn no_text_of_a_client_forges_a_line() {
        let hostile = entry(
            "/%0a%22x",
            "a\"b\\c\u{e9}\u{9b}\u{202e}\t\u{7f}d"
                .replace('\u{7f}', "")
                .leak()
                .as_bytes(),
        );
        let json = line(AccessLogFormat::Json, &hostile);
        assert_eq!(json.matches('\n').count(), 1);
        assert!(!json.contains(['\u{202e}', '\u{9b}', '\t']), "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["agent"], "a\"b\\c\u{e9}\u{9b}\u{202e}\td");
        let combined = line(AccessLogFormat::Combined, &hostile);
        let (head, tail) = combined.split_once(" \"GET ").unwrap();
        assert!(head.starts_with("10.1.2.3 - - [2"), "{head}");
        assert_eq!(
            tail,
            "/%0a%22x HTTP/1.1\" 200 36 \"http://me:***@h/?sig=***&x=2\" \
             \"a\\x22b\\x5Cc\\xC3\\xA9\\xC2\\x9B\\xE2\\x80\\xAE\\x09d\"\n"
        );
    }

    #[test]
    fn a_request_whose_head_was_not_read_has_a_line() {
        let mut refused = entry("/", b"x");
        (refused.asked, refused.route, refused.upstream) = (None, None, None);
        (refused.status, refused.end) = (400, ExchangeEnd::Refused);
        let json: serde_json::Value =
            serde_json::from_str(&line(AccessLogFormat::Json, &refused)).unwrap();
        assert_eq!(
            (&json["status"], &json["end"]),
            (&400.into(), &"refused".into())
        );
        assert!(json.get("path").is_none() && json.get("sidecar").is_none());
        let combined = line(AccessLogFormat::Combined, &refused);
        assert!(
            combined.ends_with("] \"\" 400 36 \"-\" \"-\"\n"),
            "{combined}"
        );
    }
}
