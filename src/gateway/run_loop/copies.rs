//! `restart.max_copies`: while old copies of a server finish their work, only so many live at once.

use tracing::warn;

use super::Gateway;
use crate::config::Config;
use crate::gateway::lifecycle::RequestKind;
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::progress::CutWork;

impl Gateway {
    /// A next generation of this configuration is about to be started, for this request: ends the oldest
    /// copies beyond the limit. Those of older processes are older than those of this one.
    pub(super) fn make_room(&mut self, config: &Config, kind: &RequestKind, request: Option<&str>) {
        let Some(current) = self.generations.current().cloned() else {
            return;
        };
        let names = current.copied_by(config, kind);
        if names.is_empty() {
            return;
        }
        let sidecar = names.join(", ");
        let most = config.restart.max_copies;
        // What an older process still serves is not known sidecar by sidecar: the restart of one ends none of
        // it, because that may be the work of the others.
        let processes = match kind {
            RequestKind::Sidecar(_) => 0,
            RequestKind::Restart | RequestKind::Reload => self.predecessor.predecessors.going_on(),
        };
        let older = processes + self.generations.going_on(&names);
        // The one that serves and the next one count, too.
        for _ in most..older + 2 {
            let Some((what, left)) = self.end_oldest_copy(&names, processes > 0) else {
                return;
            };
            let Some(left) = left else { continue };
            let left = match &left[..] {
                [] => String::new(),
                left => format!(", with {}", left.join(", ")),
            };
            warn!(
                "[gateway] {what} ends before its time{left}: it is the oldest copy of {sidecar}, a restart starts the next, and {most} may live at once ([restart] max_copies)"
            );
            self.events.send(LoopEvent::Cut(CutWork {
                request: request.map(str::to_owned),
                sidecar: sidecar.clone(),
                cut: vec![format!(
                    "{what}, the oldest copy (max_copies = {most}){left}"
                )],
                ended: Vec::new(),
                forced: true,
            }));
        }
    }

    /// Ends the oldest one that has copies of these sidecars, older `processes` first, and tells what it is
    /// and what it still has; none for one without work, of which nobody need hear.
    fn end_oldest_copy(
        &mut self,
        names: &[&str],
        processes: bool,
    ) -> Option<(String, Option<Vec<String>>)> {
        let pid = processes.then(|| self.predecessor.predecessors.cut_oldest());
        if let Some(pid) = pid.flatten() {
            return Some((format!("pid {pid}"), Some(Vec::new())));
        }
        let drain = self.generations.oldest(names)?;
        let left = (!drain.is_idle()).then(|| drain.status().blockers);
        drain.end_early();
        let left = left.filter(|left| !left.is_empty());
        Some((format!("generation {}", drain.generation), left))
    }
}
