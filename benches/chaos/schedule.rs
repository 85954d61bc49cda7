//! What is done to the gateway, and when: a function of the seed.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// Faults begin during this part of a round; those that last end soon after.
const ROUND: Duration = Duration::from_secs(8);

/// Between two faults, in milliseconds: some meet in one restart, others find a settled gateway.
const GAP_MS: std::ops::Range<u64> = 50..1200;

/// How long a fault lasts that lasts, in milliseconds: below the watchdog (30 s), below the time that
/// requests are held (10 s).
const LENGTH_MS: std::ops::Range<u64> = 100..3000;

/// The clock jumps by at most a day.
const JUMP_SECONDS: i64 = 24 * 60 * 60;

/// A process of the service or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    Gateway,
    Sidecar,
    Journald,
}

/// A fault of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sudden {
    Kill(Victim),
    /// A signal that asks the gateway for something, by name.
    Signal(&'static str),
    /// A command of an operator.
    Command(&'static [&'static str]),
    /// The wall clock jumps.
    Clock {
        seconds: i64,
    },
}

/// A fault that lasts until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// SIGSTOP, ended by SIGCONT.
    Stopped(Victim),
    /// The state directory has no room.
    FullDisk,
    /// Clients use up the descriptors.
    Crowd,
    /// The configuration file cannot be read as TOML; a reload is tried.
    BadConfiguration,
}

/// A step of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Do(Sudden),
    Begin(Lasting),
    End(Lasting),
}

/// A step and its time from the beginning of its round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub at: Duration,
    pub act: Act,
}

/// The steps of one round, in order. The same seed and number give the same steps.
pub fn round(seed: u64, number: u64) -> Vec<Step> {
    // The first number of a seed's sequence tells rounds apart, whatever the seed.
    let mut rng = Rng::with_seed(seed ^ Rng::with_seed(number).u64(..));
    let mut steps = Vec::new();
    // A lasting fault is not begun again before it has ended.
    let mut under_way: Vec<(Lasting, Duration)> = Vec::new();
    let mut at = Duration::ZERO;
    while at < ROUND {
        match fault(&mut rng) {
            Act::Begin(lasting) => {
                let end = at + Duration::from_millis(rng.u64(LENGTH_MS));
                if !under_way.iter().any(|one| one.0 == lasting && one.1 >= at) {
                    under_way.push((lasting, end));
                    steps.push(Step {
                        at,
                        act: Act::Begin(lasting),
                    });
                    steps.push(Step {
                        at: end,
                        act: Act::End(lasting),
                    });
                }
            }
            act => steps.push(Step { at, act }),
        }
        at += Duration::from_millis(rng.u64(GAP_MS));
    }
    steps.sort_by_key(|step| step.at);
    steps
}

/// How often each fault is drawn, of the sum of all.
fn fault(rng: &mut Rng) -> Act {
    const RESTART: &[&str] = &["gatewayctl", "restart"];
    const FRESH: &[&str] = &["gatewayctl", "restart", "--fresh"];
    const FORCE: &[&str] = &["gatewayctl", "restart", "--force"];
    const BY_SYSTEMD: &[&str] = &["systemctl", "restart", "gateway"];
    const RELOAD: &[&str] = &["gatewayctl", "reload"];
    let jump = rng.i64(-JUMP_SECONDS..=JUMP_SECONDS);
    let faults = [
        (3, Act::Do(Sudden::Kill(Victim::Gateway))),
        (2, Act::Do(Sudden::Kill(Victim::Sidecar))),
        (1, Act::Do(Sudden::Kill(Victim::Journald))),
        (2, Act::Begin(Lasting::Stopped(Victim::Gateway))),
        (2, Act::Begin(Lasting::Stopped(Victim::Sidecar))),
        (2, Act::Begin(Lasting::Stopped(Victim::Journald))),
        (2, Act::Do(Sudden::Signal("TERM"))),
        (2, Act::Do(Sudden::Signal("HUP"))),
        (3, Act::Do(Sudden::Signal("USR1"))),
        (3, Act::Do(Sudden::Signal("USR2"))),
        (5, Act::Do(Sudden::Command(RESTART))),
        (3, Act::Do(Sudden::Command(FRESH))),
        (1, Act::Do(Sudden::Command(FORCE))),
        (1, Act::Do(Sudden::Command(BY_SYSTEMD))),
        (2, Act::Do(Sudden::Command(RELOAD))),
        (2, Act::Begin(Lasting::BadConfiguration)),
        (2, Act::Begin(Lasting::FullDisk)),
        (2, Act::Begin(Lasting::Crowd)),
        (2, Act::Do(Sudden::Clock { seconds: jump })),
    ];
    let sum: u32 = faults.iter().map(|(weight, _)| weight).sum();
    let mut ticket = rng.u32(..sum);
    for (weight, act) in faults {
        match ticket.checked_sub(weight) {
            Some(rest) => ticket = rest,
            None => return act,
        }
    }
    unreachable!("a ticket is below the sum of the weights")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} s {}", self.at.as_secs_f64(), self.act)
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Do(Sudden::Kill(victim)) => write!(f, "kill -9 {victim:?}"),
            Self::Do(Sudden::Signal(name)) => write!(f, "{name}"),
            Self::Do(Sudden::Command(words)) => write!(f, "{}", words.join(" ")),
            Self::Do(Sudden::Clock { seconds }) => write!(f, "clock {seconds:+} s"),
            Self::Begin(lasting) => write!(f, "{lasting:?} begins"),
            Self::End(lasting) => write!(f, "{lasting:?} ends"),
        }
    }
}
