//! The end of a process that was killed, as its parent records it.

use jiff::Timestamp;
use nix::sys::signal::Signal;
use tracing::warn;

use super::{LifeRecord, lines};
use crate::state::history::{HistoryEntry, Recorded};
use crate::state::terms::EndReason;

impl LifeRecord {
    /// A signal ended process `pid`, whose life is the last on record: it could not write its end.
    pub fn killed(&self, pid: u32, signal: Signal) {
        self.write(move |this| {
            let lines = lines(&this.dir);
            let begun = |line: &Recorded| matches!(line.entry, HistoryEntry::Started { .. });
            let Some(index) = lines.iter().rposition(begun) else {
                return;
            };
            let (life, now) = (&lines[index], Timestamp::now());
            let ended = lines[index..]
                .iter()
                .any(|line| line.pid == pid && matches!(line.entry, HistoryEntry::Ended { .. }));
            if life.pid != pid || life.boot_id != this.boot_id || ended {
                return;
            }
            let uptime = now.duration_since(life.at).as_millis();
            let entry = HistoryEntry::Ended {
                planned: false,
                code: 128_u8.saturating_add(signal as u8),
                reason: EndReason::Signal(signal),
                uptime_ms: u64::try_from(uptime).unwrap_or(0),
                cut: Vec::new(),
                trace: None,
            };
            let line = Recorded {
                pid,
                ..this.history.line(entry)
            };
            if let Err(error) = this.history.append(&line) {
                warn!("[gateway] cannot record that {signal} ended pid {pid}: {error}");
            }
        });
    }
}
