//! Traces: where the time of a start or a restart went, one line for each step.
//!
//! `startup trace: NAME 1.2ms total=3.4ms key=value` and the same with `restart trace:`. The first
//! time is since the step before, `total` since the beginning. A restart trace continues in the
//! process that takes over: its times are of the wall clock, and [`Carried`] is sent with the
//! hand-over or read from the history.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::info;

use crate::config::Env;

/// Switches the trace of the start on.
const STARTUP_SWITCH: &str = "GATEWAY_STARTUP_TRACE";

/// Switches traces of restarts on.
const RESTART_SWITCH: &str = "GATEWAY_RESTART_TRACE";

/// An older trace was not begun by the restart that started this process.
const AGE_MAX: Duration = Duration::from_secs(600);

/// How many characters of a text are shown.
const TEXT_MAX: usize = 120;

/// The value of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Shown with one decimal; left out when it is no number.
    Number(f64),
    /// Shown as true or false.
    Flag(bool),
    /// Shown without blanks and odd characters; left out when nothing remains.
    Text(&'a str),
    /// Shown as null.
    Null,
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number as f64)
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a, V: Into<Value<'a>>> From<Option<V>> for Value<'a> {
    fn from(value: Option<V>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A key and its value.
pub type Pair<'a> = (&'a str, Value<'a>);

/// What the process that continues a restart needs, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Carried {
    /// When the restart began.
    pub started_at_ms: f64,
    /// When its last step was.
    pub last_at_ms: f64,
}

impl Carried {
    fn begun_at(started_at_ms: f64) -> Self {
        Self {
            started_at_ms,
            last_at_ms: started_at_ms,
        }
    }

    /// Whether it can be of the restart that started this process.
    fn fits(&self, now_ms: f64) -> bool {
        let longest = AGE_MAX.as_millis() as f64;
        let possible = self.started_at_ms..=self.started_at_ms + longest;
        self.started_at_ms > 0.0
            && possible.contains(&self.last_at_ms)
            && possible.contains(&now_ms)
    }
}

/// A trace; without effect where it is not switched on.
#[derive(Clone, Debug, Default)]
pub struct Trace(Option<Going>);

#[derive(Clone, Debug)]
struct Going {
    word: &'static str,
    times: Carried,
}

/// The trace of the start of this process, which began `before` ago.
pub fn startup(env: &Env<'_>, before: Duration) -> Trace {
    let times = Carried::begun_at(now_ms() - millis(before));
    Trace::begin("startup", env, STARTUP_SWITCH, times)
}

/// The trace of a restart that begins now.
pub fn restart(env: &Env<'_>) -> Trace {
    Trace::begin("restart", env, RESTART_SWITCH, Carried::begun_at(now_ms()))
}

/// The trace of the restart that started this process; without effect when `carried` is none, in the
/// future, or older than 10 minutes.
pub fn resume(env: &Env<'_>, carried: Option<Carried>) -> Trace {
    match carried.filter(|carried| carried.fits(now_ms())) {
        Some(times) => Trace::begin("restart", env, RESTART_SWITCH, times),
        None => Trace::default(),
    }
}

impl Trace {
    fn begin(word: &'static str, env: &Env<'_>, switch: &str, times: Carried) -> Self {
        Self(env.is_on(switch).then_some(Going { word, times }))
    }

    /// A step is done.
    pub fn mark(&mut self, name: &str, pairs: &[Pair<'_>]) {
        if let Some(going) = &mut self.0 {
            info!("{}", going.mark(name, pairs, now_ms()));
        }
    }

    /// The last step, with what the process holds: `rssMb`, `fdCount`, `threadCount`.
    pub fn finish(&mut self, name: &str, pairs: &[Pair<'_>]) {
        if self.0.is_some() {
            let held = held();
            let held = held
                .iter()
                .map(|(key, value)| (*key, Value::Number(*value)));
            self.mark(name, &pairs.iter().copied().chain(held).collect::<Vec<_>>());
            self.0 = None;
        }
    }

    /// None where the trace is off.
    pub fn carry(&self) -> Option<Carried> {
        self.0.as_ref().map(|going| going.times)
    }
}

impl Going {
    fn mark(&mut self, name: &str, pairs: &[Pair<'_>], now_ms: f64) -> String {
        // The wall clock may have been set back.
        let since = |earlier: f64| (now_ms - earlier).max(0.0);
        let (took, total) = (
            since(self.times.last_at_ms),
            since(self.times.started_at_ms),
        );
        self.times.last_at_ms = now_ms;
        let pairs = shown(pairs);
        format!(
            "{} trace: {name} {took:.1}ms total={total:.1}ms{pairs}",
            self.word
        )
    }
}

/// ` key=value` for each pair.
fn shown(pairs: &[Pair<'_>]) -> String {
    pairs.iter().fold(String::new(), |mut text, (name, value)| {
        if let Some(value) = value_text(*value) {
            // Writing to a String cannot fail.
            let _ = write!(text, " {}={value}", key(name));
        }
        text
    })
}

/// Letters and digits, beginning with a letter.
fn key(name: &str) -> String {
    let kept = name.replace(|c: char| !c.is_ascii_alphanumeric(), "");
    if kept.starts_with(|c: char| c.is_ascii_alphabetic()) {
        kept
    } else {
        format!("metric{kept}")
    }
}

fn value_text(value: Value<'_>) -> Option<String> {
    match value {
        Value::Number(number) => number.is_finite().then(|| format!("{number:.1}")),
        Value::Flag(flag) => Some(flag.to_string()),
        Value::Null => Some("null".to_owned()),
        Value::Text(text) => {
            let words = text.split_whitespace().collect::<Vec<_>>().join("_");
            let odd = |c: char| !c.is_ascii_alphanumeric() && !"_.:/-".contains(c);
            let text: String = words.replace(odd, "_").chars().take(TEXT_MAX).collect();
            (!text.is_empty()).then_some(text)
        }
    }
}

fn now_ms() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(millis)
        .unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// What the process holds (proc(5)), as far as it can be read.
fn held() -> Vec<(&'static str, f64)> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_whitespace().next()?.parse::<f64>().ok()
    };
    let descriptors = std::fs::read_dir("/proc/self/fd")
        .ok()
        .map(|entries| entries.count().saturating_sub(1) as f64);
    let all = [
        ("rssMb", field("VmRSS:").map(|kib| kib / 1024.0)),
        ("fdCount", descriptors),
        ("threadCount", field("Threads:")),
    ];
    all.into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn going(word: &'static str) -> Going {
        Going {
            word,
            times: Carried::begun_at(1000.0),
        }
    }

    #[test]
    fn lines_have_the_form_that_tools_read() {
        let mut trace = going("restart");
        let pairs = [
            ("signal", "SIGUSR1".into()),
            ("force", false.into()),
            ("waitMs", Value::Null),
        ];
        assert_eq!(
            trace.mark("restart.signal.received", &pairs, 1000.04),
            "restart trace: restart.signal.received 0.0ms total=0.0ms signal=SIGUSR1 force=false waitMs=null"
        );
        assert_eq!(
            trace.mark("restart.drain", &[("activeTasks", 3_u64.into())], 1012.36),
            "restart trace: restart.drain 12.3ms total=12.4ms activeTasks=3.0"
        );
        assert_eq!(
            trace.mark("restart.close.http", &[], 1020.0),
            "restart trace: restart.close.http 7.6ms total=20.0ms"
        );
        assert_eq!(
            trace.mark("restart.ready", &[], 1021.0),
            "restart trace: restart.ready 1.0ms total=21.0ms"
        );
        let mut trace = going("startup");
        assert_eq!(
            trace.mark("config", &[], 1001.2),
            "startup trace: config 1.2ms total=1.2ms"
        );
        assert_eq!(shown(&[("sidecars", 2_u64.into())]), " sidecars=2.0");
        assert_eq!(shown(&[("odd", Value::Number(f64::NAN))]), "");
        assert_eq!(
            trace.mark("set.back", &[], 10.0),
            "startup trace: set.back 0.0ms total=0.0ms"
        );
    }

    #[test]
    fn values_are_one_word_each() {
        for (value, expected) in [
            ("  two  words ", Some("two_words")),
            ("a=b \"c\"\u{1b}[2J\nü", Some("a_b__c___2J__")),
            ("gateway:v1.2/x-y_z", Some("gateway:v1.2/x-y_z")),
            (" \n", None),
        ] {
            assert_eq!(value_text(value.into()).as_deref(), expected, "{value:?}");
        }
        assert_eq!(
            value_text(Value::Text(&"x".repeat(500))).unwrap().len(),
            TEXT_MAX
        );
        assert_eq!(value_text(Value::Number(f64::INFINITY)), None);
        assert_eq!(value_text(Some(true).into()).as_deref(), Some("true"));
        for (name, expected) in [
            ("rssMb", "rssMb"),
            ("a b=c", "abc"),
            ("9lives", "metric9lives"),
            ("ü", "metric"),
        ] {
            assert_eq!(key(name), expected);
        }
    }

    #[test]
    fn a_switch_says_yes() {
        let on = |text: &'static str| Env(&|_| Some(text.into())).is_on(RESTART_SWITCH);
        assert!(["1", "true", "TRUE", " yes ", "On"].into_iter().all(on));
        assert!(
            !["", "0", "false", "no", "off", "2"].into_iter().any(on)
                && !Env(&|_| None).is_on(RESTART_SWITCH)
        );
        let env = |name: &str| (name == RESTART_SWITCH).then(|| "1".into());
        assert!(restart(&Env(&env)).0.is_some());
        let mut off = startup(&Env(&env), Duration::ZERO);
        off.mark("nothing", &[]);
        off.finish("nothing", &[]);
        assert_eq!(off.carry(), None);
    }

    #[test]
    fn a_restart_goes_on_in_the_next_process_unless_it_cannot_be_the_same() {
        let now = now_ms();
        let env = |_: &str| Some("1".into());
        let at = |started: f64, last: f64| {
            Some(Carried {
                started_at_ms: now + started,
                last_at_ms: now + last,
            })
        };
        let going_on = |carried| resume(&Env(&env), carried).carry();
        assert_eq!(going_on(at(-5000.0, -100.0)), at(-5000.0, -100.0));
        for carried in [
            None,
            at(60_000.0, 60_000.0),
            at(-600_100.0, -5.0),
            at(-100.0, -200.0),
            at(-1000.0, 700_000.0),
            at(-now, -now),
            Some(Carried::begun_at(f64::NAN)),
        ] {
            assert_eq!(going_on(carried), None, "{carried:?}");
        }
        let text = serde_json::to_string(&at(-5.0, -1.0)).unwrap();
        assert!(
            text.contains("startedAtMs") && text.contains("lastAtMs"),
            "{text}"
        );
        let mut trace = resume(&Env(&env), at(-5000.0, -100.0));
        trace.finish("restart.ready", &[]);
        assert_eq!(trace.carry(), None, "the end is the end");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_the_process_holds() {
        let held = held();
        let of = |name: &str| held.iter().find(|(key, _)| *key == name).unwrap().1;
        assert!(
            of("rssMb") > 1.0 && of("fdCount") >= 3.0 && of("threadCount") >= 1.0,
            "{held:?}"
        );
    }
}
