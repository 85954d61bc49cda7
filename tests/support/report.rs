//! What a load saw.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::client::Fault;
use super::machine::{Machine, Meanwhile};

/// How many faults are kept word by word; the counters hold them all.
const TOLD: usize = 40;

/// Which part of the load an observation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A connection of its own for one request.
    New,
    /// A kept connection that is rarely silent.
    Busy,
    /// A kept connection that is silent for seconds.
    Idle,
    /// A slow download.
    Download,
    /// A WebSocket.
    WebSocket,
}

/// Everything a load saw, failures by kind and part.
#[derive(Clone)]
pub struct Report {
    /// Good answers, downloads and echoes.
    pub good: BTreeMap<Part, u64>,
    /// Failures: refused, reset, eof, truncated, timeout, garbage, a status as text, `closed while
    /// idle`, `cut`.
    pub failed: BTreeMap<(Part, String), u64>,
    /// Requests on new and kept connections that were begun.
    pub begun: u64,
    /// The first failures in full.
    pub told: Vec<String>,
    /// Latency of requests on new and kept connections, from when each was due, in microseconds.
    pub latency: Histogram<u64>,
    /// The longest time between two good answers.
    pub longest_gap: Duration,
    /// How long the load ran.
    pub length: Duration,
    /// How late the load itself was at most: a request began so long after it was due.
    pub late: Duration,
    before: Machine,
    meanwhile: Option<Meanwhile>,
    began: Instant,
    last_good: Option<Instant>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            good: BTreeMap::new(),
            failed: BTreeMap::new(),
            begun: 0,
            told: Vec::new(),
            // Three digits over the whole range; it grows as needed.
            latency: Histogram::new(3).unwrap(),
            longest_gap: Duration::ZERO,
            length: Duration::ZERO,
            late: Duration::ZERO,
            before: Machine::now(),
            meanwhile: None,
            began: Instant::now(),
            last_good: None,
        }
    }
}

impl Report {
    /// A request begins now that was due at `due`.
    pub fn begins(&mut self, due: Instant) {
        self.begun += 1;
        self.late = self.late.max(due.elapsed());
    }

    /// A good answer to a request that was due at `due`.
    pub fn answered(&mut self, part: Part, due: Instant) {
        let now = Instant::now();
        *self.good.entry(part).or_default() += 1;
        if let Some(last) = self.last_good.replace(now) {
            self.longest_gap = self.longest_gap.max(now - last);
        }
        self.latency
            .record(u64::try_from((now - due).as_micros()).unwrap_or(u64::MAX))
            .unwrap();
    }

    /// A download that came whole, or an echo: good, but no measure of latency.
    pub fn whole(&mut self, part: Part) {
        *self.good.entry(part).or_default() += 1;
    }

    /// A failure; `detail` says where in the exchange.
    pub fn lost(&mut self, part: Part, kind: &str, detail: &str) {
        *self.failed.entry((part, kind.to_owned())).or_default() += 1;
        if self.told.len() < TOLD {
            self.told.push(format!(
                "{:8.3} s  {part:?}: {kind} {detail}",
                self.began.elapsed().as_secs_f64()
            ));
        }
    }

    /// A failure of the transport.
    pub fn fault(&mut self, part: Part, fault: &Fault, detail: &str) {
        match fault {
            Fault::Garbage(text) => self.lost(part, "garbage", &format!("{text} {detail}")),
            other => self.lost(part, &other.to_string(), detail),
        }
    }

    /// Closes the books.
    pub fn finish(&mut self) {
        self.length = self.began.elapsed();
        self.meanwhile = Some(self.before.since());
    }

    /// Requests on new and kept connections that were answered well.
    pub fn ended(&self) -> u64 {
        let parts = [Part::New, Part::Busy, Part::Idle];
        parts.into_iter().map(|part| self.good_of(part)).sum()
    }

    /// All failures together.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Failures of one kind, whatever the part.
    pub fn failures_of(&self, kind: &str) -> u64 {
        self.failed
            .iter()
            .filter(|((_, of), _)| of == kind)
            .map(|(_, count)| count)
            .sum()
    }

    /// Good observations of a part.
    pub fn good_of(&self, part: Part) -> u64 {
        self.good.get(&part).copied().unwrap_or(0)
    }

    /// Latency at a quantile.
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_quantile(quantile))
    }

    /// Takes out of the failures those requests, `most` at most, that a dead server had in its hands:
    /// it may have died of one of them, so no other server gets them.
    pub fn died_with_the_server(mut self, most: u64) -> Self {
        let cut = self.failures_of("status 502");
        assert!(cut <= most, "a server died with {cut} requests:\n{self}");
        self.failed.retain(|(_, kind), _| kind != "status 502");
        self
    }

    /// Panics unless nothing failed and every part named saw at least so much good.
    pub fn assert_clean(&self, least: &[(Part, u64)]) {
        // Shown by `--success-output`: how close it was.
        println!("{self}");
        assert_eq!(self.failures(), 0, "the load lost something:\n{self}");
        for (part, least) in least {
            assert!(
                self.good_of(*part) >= *least,
                "{part:?}: fewer than {least} good, so this shows little:\n{self}"
            );
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s, good:", self.length.as_secs_f64())?;
        for (part, count) in &self.good {
            write!(f, " {part:?} {count}")?;
        }
        write!(f, "; failed: {}", self.failures())?;
        for ((part, kind), count) in &self.failed {
            write!(f, " {part:?} {kind} {count}")?;
        }
        let ms = |quantile| self.quantile(quantile).as_secs_f64() * 1000.0;
        write!(
            f,
            "; p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            ms(0.5),
            ms(0.99),
            ms(1.0)
        )?;
        write!(
            f,
            ", longest gap {:.1} ms, itself late by {:.1} ms",
            self.longest_gap.as_secs_f64() * 1000.0,
            self.late.as_secs_f64() * 1000.0
        )?;
        if let Some(meanwhile) = &self.meanwhile {
            write!(f, "; {meanwhile}")?;
        }
        for line in &self.told {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}
