//! Counts and times of the requests that one route leads to one backend. There are as many as routes in
//! the configuration, whatever clients ask.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::exchange_end::ExchangeEnd;
use super::stats;
use crate::text::words::{Words, words};

/// The upper ends of the buckets of a duration, in microseconds: those that Prometheus' own clients
/// have, with a finer one below for loopback, and two above for models that think.
const BOUNDS: [u64; 14] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 60_000_000,
];

words! {
    /// How the gateway failed a client.
    pub enum ClientFailure {
        /// It answered 502: the server gave no answer.
        BadGateway = "502",
        /// It answered 503: the server was away for too long, or too many waited.
        Unavailable = "503",
        /// It answered 504: the server took too long.
        GatewayTimeout = "504",
        /// The answer was broken off.
        BrokenOff = "broken off",
    }
}

/// The requests of one route.
#[derive(Debug)]
pub struct RouteStats {
    /// The sidecar, or the URL of the upstream.
    pub sidecar: String,
    /// Host and path of the route.
    pub route: String,
    /// Requests by duration; those longer than the last of [`BOUNDS`] are in one more.
    durations: [AtomicU64; BOUNDS.len() + 1],
    /// All durations together, in microseconds.
    micros: AtomicU64,
    /// By class of status, 1xx to 5xx.
    answers: [AtomicU64; stats::CLASSES],
    /// By [`ExchangeEnd`].
    ends: [AtomicU64; ExchangeEnd::ALL.len()],
    /// By [`ClientFailure`].
    failures: [AtomicU64; ClientFailure::ALL.len()],
    /// Streams that the gateway ended in order.
    streams_ended: AtomicU64,
    /// Tunnels that the gateway ended.
    tunnels_ended: AtomicU64,
    retries: AtomicU64,
}

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct EndedRequest {
    /// 0 when no answer went out.
    pub status: u16,
    pub end: ExchangeEnd,
    pub retries: u32,
    pub duration: Duration,
}

impl EndedRequest {
    /// How the gateway failed the client, if it did.
    fn failure(&self) -> Option<ClientFailure> {
        match (self.end, self.status) {
            (ExchangeEnd::Failed, 502) => Some(ClientFailure::BadGateway),
            (ExchangeEnd::Refused, 503) => Some(ClientFailure::Unavailable),
            (ExchangeEnd::TimedOut, 504) => Some(ClientFailure::GatewayTimeout),
            (ExchangeEnd::Failed, _) => Some(ClientFailure::BrokenOff),
            (ExchangeEnd::Cut, status) if status != SWITCHED => Some(ClientFailure::BrokenOff),
            _ => None,
        }
    }
}

/// The status of a tunnel.
const SWITCHED: u16 = 101;

/// What became of the requests of some routes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTally {
    /// Answered whole, whatever the server answered.
    pub answered: u64,
    /// By [`ClientFailure`].
    pub failed: [u64; ClientFailure::ALL.len()],
    /// Streams that the gateway ended in order.
    pub streams_ended: u64,
    /// Tunnels that the gateway ended.
    pub tunnels_ended: u64,
}

/// The durations of a route's requests.
#[derive(Debug, PartialEq)]
pub struct Durations {
    /// The upper end of each bucket in seconds, and how many requests took no longer.
    pub buckets: Vec<(f64, u64)>,
    /// All of them.
    pub count: u64,
    pub seconds: f64,
}

fn now(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl RouteStats {
    /// Nothing is counted yet.
    pub fn new(sidecar: &str, host: Option<&str>, path: &str) -> Self {
        Self {
            sidecar: sidecar.to_owned(),
            route: format!("{}{path}", host.unwrap_or_default()),
            durations: Default::default(),
            micros: AtomicU64::new(0),
            answers: Default::default(),
            ends: Default::default(),
            failures: Default::default(),
            streams_ended: AtomicU64::new(0),
            tunnels_ended: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        }
    }

    /// Whether both are for the same route to the same backend.
    pub fn counts_the_same(&self, other: &Self) -> bool {
        (&self.sidecar, &self.route) == (&other.sidecar, &other.route)
    }

    /// Counts a request.
    pub fn count(&self, request: EndedRequest) {
        let one_more = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        one_more(&self.ends[request.end as usize]);
        if request.status != 0 {
            one_more(&self.answers[stats::class(request.status)]);
        }
        if let Some(failure) = request.failure() {
            one_more(&self.failures[failure as usize]);
        }
        match (request.status, request.end) {
            (SWITCHED, ExchangeEnd::Ended | ExchangeEnd::Cut) => one_more(&self.tunnels_ended),
            (_, ExchangeEnd::Ended) => one_more(&self.streams_ended),
            _ => {}
        }
        if request.retries > 0 {
            self.retries
                .fetch_add(request.retries.into(), Ordering::Relaxed);
        }
        // How long a tunnel is open says nothing about the server.
        if request.status != SWITCHED {
            let micros = request.duration.as_micros() as u64;
            one_more(&self.durations[BOUNDS.partition_point(|bound| *bound < micros)]);
            self.micros.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// Adds what became of its requests.
    pub fn add_to(&self, tally: &mut RequestTally) {
        tally.answered += now(&self.ends[ExchangeEnd::Done as usize]);
        for (failed, counter) in tally.failed.iter_mut().zip(&self.failures) {
            *failed += now(counter);
        }
        tally.streams_ended += now(&self.streams_ended);
        tally.tunnels_ended += now(&self.tunnels_ended);
    }

    /// How often the requests were sent once more.
    pub fn retries(&self) -> u64 {
        now(&self.retries)
    }

    /// How many answers there were of each class, from 1xx.
    pub fn answers(&self) -> impl Iterator<Item = (usize, u64)> {
        (1..).zip(self.answers.iter().map(now))
    }

    /// How many requests ended in each way.
    pub fn ends(&self) -> impl Iterator<Item = (ExchangeEnd, u64)> {
        let ends = ExchangeEnd::ALL.iter().copied();
        ends.map(|end| (end, now(&self.ends[end as usize])))
    }

    pub fn durations(&self) -> Durations {
        let mut count = 0;
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6);
        let buckets = bounds.zip(&self.durations).map(|(bound, bucket)| {
            count += now(bucket);
            (bound, count)
        });
        let buckets: Vec<_> = buckets.collect();
        Durations {
            count: count + now(&self.durations[BOUNDS.len()]),
            buckets,
            seconds: now(&self.micros) as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_every_bucket_that_it_fits_in() {
        let stats = RouteStats::new("main", Some("h"), "/x");
        assert_eq!(stats.route, "h/x");
        for micros in [0, 1_000, 1_001, 60_000_000, 60_000_001] {
            stats.count(EndedRequest {
                status: 200,
                end: ExchangeEnd::Done,
                retries: 1,
                duration: Duration::from_micros(micros),
            });
        }
        stats.count(EndedRequest {
            status: 101,
            end: ExchangeEnd::Cut,
            retries: 0,
            duration: Duration::from_secs(1),
        });
        let durations = stats.durations();
        assert_eq!(durations.buckets[0], (0.001, 2));
        assert_eq!(durations.buckets[1], (0.0025, 3));
        assert_eq!(durations.buckets[13], (60.0, 4));
        assert_eq!((durations.count, durations.seconds), (5, 120.002_002));
        let answers: Vec<_> = stats.answers().map(|(_, count)| count).collect();
        assert_eq!(answers, [1, 5, 0, 0, 0]);
        assert_eq!(stats.retries(), 5);
        let cut = stats.ends().find(|(end, _)| *end == ExchangeEnd::Cut);
        assert_eq!(cut, Some((ExchangeEnd::Cut, 1)));
        let mut tally = RequestTally::default();
        stats.add_to(&mut tally);
        let expected = RequestTally {
            answered: 5,
            tunnels_ended: 1,
            ..RequestTally::default()
        };
        assert_eq!(tally, expected);
    }

    #[test]
    fn only_what_the_gateway_did_not_do_counts_as_its_failure() {
        for (status, end, failure) in [
            (502, ExchangeEnd::Failed, Some(ClientFailure::BadGateway)),
            (503, ExchangeEnd::Refused, Some(ClientFailure::Unavailable)),
            (
                504,
                ExchangeEnd::TimedOut,
                Some(ClientFailure::GatewayTimeout),
            ),
            (200, ExchangeEnd::Failed, Some(ClientFailure::BrokenOff)),
            (200, ExchangeEnd::Cut, Some(ClientFailure::BrokenOff)),
            (101, ExchangeEnd::Cut, None),
            (200, ExchangeEnd::Ended, None),
            (503, ExchangeEnd::Done, None),
            (408, ExchangeEnd::TimedOut, None),
            (200, ExchangeEnd::ClientGone, None),
        ] {
            let request = EndedRequest {
                status,
                end,
                retries: 0,
                duration: Duration::ZERO,
            };
            assert_eq!(request.failure(), failure, "{status} {end}");
        }
    }
}
