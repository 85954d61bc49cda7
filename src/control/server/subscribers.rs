//! Those who follow the gateway: what they are told, in order, as far as they read it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::mpsc;

use super::places::OWN_MAX;
use super::queued_event::{QUEUE_MAX, QueuedEvent};
use super::reply::{HeldConnection, Reply};
use crate::control::access::Caller;
use crate::control::counters::ControlCounters;
use crate::control::protocol::{
    EventName, Failure, FailureCode, GatewayEvent, LogEvent, ShutdownEvent, Subscribed, Topic,
};
use crate::os::mutex::lock;
use crate::text::log_tap;

/// The same in bytes: as many subscribers as there may be hold 128 megabytes, if none of them reads.
pub const QUEUE_BYTES_MAX: usize = 512 * 1024;

/// Lines of the log are left out where more than this part of the queue is taken: a sidecar that
/// prints without end drops nobody, and the other events have the rest.
const LOG_PART: usize = 2;

/// So many may follow at once over the control socket: half of the connections that it takes, so that
/// with the leases, which may have a quarter, gatewayctl can always connect. As many again may follow
/// over WebSocket with each of the tokens.
const SUBSCRIBERS_MAX: usize = OWN_MAX / 2;

/// All who follow this process.
#[derive(Clone, Debug, Default)]
pub struct Subscribers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    counters: Arc<ControlCounters>,
}

#[derive(Debug, Default)]
struct Table {
    all: Vec<Subscriber>,
    /// How many there were.
    count: u64,
    /// The end that is announced.
    shutdown: Option<ShutdownEvent>,
}

#[derive(Debug)]
struct Subscriber {
    number: u64,
    topics: BTreeSet<Topic>,
    connection: HeldConnection,
    /// The number of the last event.
    seq: u64,
    /// Lines of the log that were left out since the last one.
    lost: u64,
    /// Bytes that wait in its queue.
    queued: Arc<AtomicUsize>,
}

/// An event on its way to several subscribers.
struct Published {
    name: EventName,
    topic: Option<Topic>,
    payload: Arc<Value>,
    bytes: usize,
}

impl Published {
    fn new(event: &GatewayEvent) -> Self {
        let payload = event.payload();
        Self {
            name: event.name(),
            topic: event.topic(),
            bytes: payload.to_string().len(),
            payload: Arc::new(payload),
        }
    }
}

impl Subscriber {
    fn wants(&self, topic: Option<Topic>) -> bool {
        topic.is_none_or(|topic| self.topics.contains(&topic))
    }

    /// False when it does not read.
    fn send(&mut self, event: &Published) -> bool {
        let before = self.queued.fetch_add(event.bytes, Ordering::Relaxed);
        let event = QueuedEvent {
            name: event.name,
            payload: Arc::clone(&event.payload),
            seq: self.seq + 1,
            bytes: event.bytes,
            queued: Arc::clone(&self.queued),
        };
        // One that is longer than the whole queue still has a place in an empty one.
        if before > 0 && before + event.bytes > QUEUE_BYTES_MAX {
            return false;
        }
        self.seq += 1;
        match self.connection.try_send(event) {
            Ok(()) => true,
            // It has left, which its connection knows.
            Err(mpsc::error::TrySendError::Closed(_)) => true,
            Err(mpsc::error::TrySendError::Full(_)) => false,
        }
    }

    /// Whether the queue has room for a line of the log.
    fn takes_log(&self) -> bool {
        self.connection.events().capacity() > QUEUE_MAX / LOG_PART
            && self.queued.load(Ordering::Relaxed) < QUEUE_BYTES_MAX / LOG_PART
    }
}

impl Subscribers {
    /// Nobody yet; what happens to them is counted there.
    pub fn new(counters: Arc<ControlCounters>) -> Self {
        Self(Arc::new(Shared {
            table: Mutex::default(),
            counters,
        }))
    }

    /// Answers a `subscribe`: `first` tells how things stand.
    pub fn add(&self, topics: BTreeSet<Topic>, first: &[GatewayEvent], reply: Reply) {
        let mut table = lock(&self.0.table);
        if let Err(why) = table.admits(&reply) {
            drop(table);
            return reply.fail(Failure::new(FailureCode::Rejected, why));
        }
        let pid = std::process::id();
        let answer = Subscribed { topics, pid };
        let Some(connection) = reply.hold(&answer) else {
            return;
        };
        table.count += 1;
        let mut subscriber = Subscriber {
            number: table.count,
            topics: answer.topics,
            connection,
            seq: 0,
            lost: 0,
            queued: Arc::default(),
        };
        let shutdown = table.shutdown.clone().map(GatewayEvent::Shutdown);
        let mut first = first.iter().chain(&shutdown).map(Published::new);
        let fits = first.all(|event| !subscriber.wants(event.topic) || subscriber.send(&event));
        if !fits {
            subscriber.connection.drop_slow();
        }
        let (number, end) = (subscriber.number, subscriber.connection.end());
        table.all.push(subscriber);
        self.follow_log(&table);
        drop(table);
        self.0.counters.subscribers.fetch_add(1, Ordering::Relaxed);
        let all = self.clone();
        tokio::spawn(async move {
            end.gone.cancelled().await;
            all.0.counters.subscribers.fetch_sub(1, Ordering::Relaxed);
            let mut table = lock(&all.0.table);
            table.all.retain(|one| one.number != number);
            all.follow_log(&table);
        });
    }

    /// Whether nobody has subscribed.
    pub fn is_empty(&self) -> bool {
        lock(&self.0.table).all.is_empty()
    }

    /// Tells those who follow its topic.
    pub fn publish(&self, event: &GatewayEvent) {
        let mut table = lock(&self.0.table);
        if table.all.is_empty() {
            return;
        }
        table.send(&Published::new(event));
    }

    /// Tells those who follow the log, as far as they have room.
    fn publish_log(&self, line: log_tap::LogLine<'_>) {
        let mut table = lock(&self.0.table);
        let follows = |one: &mut Subscriber| one.topics.contains(&Topic::Log) && !one.log(line);
        table
            .all
            .extract_if(.., follows)
            .for_each(Subscriber::disconnect);
    }

    /// Tells everybody, and those who subscribe later, that their connections end soon; none when they
    /// do not.
    pub fn announce(&self, shutdown: Option<ShutdownEvent>) {
        let mut table = lock(&self.0.table);
        if table.shutdown == shutdown {
            return;
        }
        table.shutdown = shutdown.clone();
        if let Some(shutdown) = shutdown {
            table.send(&Published::new(&GatewayEvent::Shutdown(shutdown)));
        }
    }

    /// Ends every connection that has subscribed, when it has been told what it was to be told.
    pub fn close(&self) {
        let mut table = lock(&self.0.table);
        for subscriber in std::mem::take(&mut table.all) {
            subscriber.connection.finish();
        }
        self.follow_log(&table);
    }

    /// Follows the log while somebody wants it.
    fn follow_log(&self, table: &Table) {
        let shared = Arc::downgrade(&self.0);
        let tap = move |line: log_tap::LogLine<'_>| {
            if let Some(shared) = shared.upgrade() {
                Self(shared).publish_log(line);
            }
        };
        let wanted = table.follows_log();
        log_tap::set(wanted.then(|| -> log_tap::Tap { Arc::new(tap) }));
    }
}

impl Table {
    fn follows_log(&self) -> bool {
        let mut all = self.all.iter();
        all.any(|subscriber| subscriber.topics.contains(&Topic::Log))
    }

    /// Why nobody else may subscribe on this connection.
    fn admits(&self, reply: &Reply) -> Result<(), String> {
        let kind = |caller: Caller| (caller.is_remote(), caller.authority());
        let asks = reply.caller().map(kind);
        let alike = { self.all.iter() }.filter(|one| Some(kind(one.connection.caller())) == asks);
        if alike.count() >= SUBSCRIBERS_MAX {
            return Err(format!("there are {SUBSCRIBERS_MAX} subscribers already"));
        }
        match self.all.iter().any(|one| one.connection.is_of(reply)) {
            true => Err("this connection has subscribed already: use another one".to_owned()),
            false => Ok(()),
        }
    }

    /// Those that do not read are disconnected.
    fn send(&mut self, event: &Published) {
        let slow = |one: &mut Subscriber| one.wants(event.topic) && !one.send(event);
        self.all
            .extract_if(.., slow)
            .for_each(Subscriber::disconnect);
    }
}

impl Subscriber {
    /// Disconnects one that does not read.
    fn disconnect(self) {
        self.connection.drop_slow();
    }

    /// False when it does not read: a line for which there is no room is only left out.
    fn log(&mut self, line: log_tap::LogLine<'_>) -> bool {
        if !self.takes_log() {
            self.lost += 1;
            return true;
        }
        let event = GatewayEvent::Log(LogEvent {
            level: line.level.into(),
            sidecar: line.sidecar.map(str::to_owned),
            text: line.text.to_owned(),
            lost: std::mem::take(&mut self.lost),
        });
        self.send(&Published::new(&event))
    }
}
