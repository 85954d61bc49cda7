//! A server whose workers failed when it started, and that takes no notice: it does nothing that can be
//! seen, and perhaps it will never listen. Debian's uvicorn with `--workers` does so when the application
//! cannot be imported. It is only a hint: a server that waits for its database looks the same.

use std::time::{Duration, Instant};

use crate::os::process;

/// So long must it stand still: a server that looks after its workers reaps or replaces them within a
/// second or two, and one that loads uses the processor now and then.
const UNNOTICED: Duration = Duration::from_secs(5);

/// Looks again and again at a server that does not listen yet.
#[derive(Debug, Default)]
pub struct FailedWorkers {
    still: Option<(Instant, Standstill)>,
}

/// What changes while a server does anything.
#[derive(Debug, PartialEq, Eq)]
struct Standstill {
    /// Its children that failed and were not reaped, with their exit codes.
    failed: Vec<(u32, u8)>,
    /// The processor time of it and of everything that it started.
    ticks: u64,
}

impl FailedWorkers {
    /// The exit code of the first worker that failed, once the server has stood still for
    /// [`UNNOTICED`] since.
    pub fn look(&mut self, server: u32, now: Instant) -> Option<u8> {
        self.judge(Standstill::of(server), now)
    }

    fn judge(&mut self, seen: Option<Standstill>, now: Instant) -> Option<u8> {
        let Some(seen) = seen else {
            self.still = None;
            return None;
        };
        match &self.still {
            Some((since, before)) if *before == seen => {
                let (_, code) = *seen.failed.first()?;
                (now.duration_since(*since) >= UNNOTICED).then_some(code)
            }
            _ => {
                self.still = Some((now, seen));
                None
            }
        }
    }
}

impl Standstill {
    /// None where no worker has failed.
    fn of(server: u32) -> Option<Self> {
        let dead = process::dead_children(server).into_iter();
        let failed: Vec<(u32, u8)> = dead
            .filter_map(|pid| Some((pid, process::exit_code(pid).filter(|code| *code != 0)?)))
            .collect();
        if failed.is_empty() {
            return None;
        }
        let all = process::descendants(server).into_iter();
        let ticks = all.filter_map(process::ticks).sum();
        Some(Self { failed, ticks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_stands_still_with_a_failed_worker_is_odd() {
        let begun = Instant::now();
        let still = |ticks| {
            Some(Standstill {
                failed: vec![(7, 1)],
                ticks,
            })
        };
        let mut workers = FailedWorkers::default();
        let mut look = |seen, after| workers.judge(seen, begun + after);
        assert_eq!(look(still(3), Duration::ZERO), None);
        assert_eq!(look(still(3), UNNOTICED / 2), None);
        // It did something.
        assert_eq!(look(still(4), UNNOTICED), None);
        assert_eq!(look(still(4), UNNOTICED * 3 / 2), None);
        assert_eq!(look(still(4), UNNOTICED * 2), Some(1));
        // It reaped the worker, and another one failed.
        assert_eq!(look(None, UNNOTICED * 2), None);
        assert_eq!(look(still(4), UNNOTICED * 2), None);
    }
}
