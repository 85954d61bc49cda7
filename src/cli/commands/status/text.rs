//! The status as people read it.

use jiff::Timestamp;

use super::answer::{StatusAnswer, exit};
use super::deep::{Deep, Drift, DriftKind};
use crate::cli::restart_report::draining;
use crate::cli::styled_line::{StyledLine, Tone};
use crate::cli::unapplied::way;
use crate::cli::{Exit, Ui};
use crate::control::protocol::{RecoveryRung, SidecarStateName, Stage, Status};
use crate::service::UnappliedFile;
use crate::state::terms::{RequestEnd, RequestOutcome};
use crate::text::human::{count, mebibytes, padded, span};
use crate::text::words::Words;

/// The status for people: a headline, then a line for each thing.
pub fn lines(ui: &Ui, shown: &StatusAnswer, now: Timestamp) -> Vec<StyledLine> {
    let status = &shown.status;
    let stage = ui.paint(&status.stage.in_words(), tone(status.stage));
    let name = ui.paint(&status.instance, Tone::Strong);
    let headline = name.and(": ").and(stage).and(format!(
        ", generation {}, pid {}, up {}",
        status.generation,
        status.pid,
        span(status.uptime_ms)
    ));
    let mut text = StatusText {
        ui,
        lines: vec![headline],
    };
    text.detail(status);
    text.load(status);
    text.sidecars(status);
    text.drains(status);
    text.recovery(status);
    text.last_restart(status, now);
    text.line("restarts", &status.strategy.to_string());
    text.line("supervisor", &status.supervisor.to_string());
    text.drift(&shown.drift);
    text.unapplied(&shown.unapplied);
    for (label, value) in shown.deep.iter().flat_map(Deep::lines) {
        text.line(label, &value);
    }
    text.paths_and_version(status);
    text.lines
}

struct StatusText<'a> {
    ui: &'a Ui,
    lines: Vec<StyledLine>,
}

impl StatusText<'_> {
    fn line(&mut self, label: &str, text: &str) {
        self.lines.push(self.ui.labelled(label, text));
    }

    fn detail(&mut self, status: &Status) {
        // The line of the recovery says the same below.
        let in_recovery =
            matches!(&status.recovery, Some(one) if status.detail.contains(&one.reason));
        if status.stage != Stage::Ready && !status.detail.is_empty() && !in_recovery {
            self.line("detail", &status.detail);
        }
    }

    fn load(&mut self, status: &Status) {
        self.line("listening", &status.listeners.join(", "));
        let mut load = format!(
            "{}, {}, {}",
            count(status.connections, "connection"),
            count(status.requests, "request"),
            count(status.tunnels, "tunnel")
        );
        if status.held > 0 {
            load.push_str(&format!(", {} waiting for a sidecar", status.held));
        }
        self.line("serving", &load);
    }

    fn sidecars(&mut self, status: &Status) {
        let widths = status.sidecars.iter().map(|sidecar| sidecar.name.len());
        let width = widths.max().unwrap_or(0);
        for sidecar in &status.sidecars {
            let pid = match sidecar.pid {
                0 => "no process".to_owned(),
                pid => format!("pid {pid}"),
            };
            let restarts = match sidecar.restarts {
                0 => String::new(),
                number => format!(", {}", count(number, "unplanned restart")),
            };
            let memory = sidecar.memory_bytes.map(mebibytes);
            let memory = memory.map_or(String::new(), |memory| format!(", {memory}"));
            let cpu = sidecar.cpu_ms.map(span);
            let cpu = cpu.map_or(String::new(), |cpu| format!(", cpu {cpu}"));
            let text = format!(
                "{}  {}, {pid}, port {}{memory}{cpu}{restarts}: {}",
                padded(&sidecar.name, width),
                sidecar.state,
                sidecar.port,
                sidecar.command
            );
            self.line("sidecar", &text);
            if let Some(cause) = &sidecar.cause {
                self.line("", cause);
                let is_down = sidecar.state != SidecarStateName::Ready;
                for words in sidecar.last_words.iter().filter(|_| is_down) {
                    self.line("", &format!("| {words}"));
                }
            } else if let Some(death) = &sidecar.last_death {
                self.line("", &format!("before, it {death}"));
            }
            if !sidecar.exposed.is_empty() {
                let places = sidecar.exposed.join(" and ");
                let text = format!("listens on {places}: it is reached past the front door");
                self.line("", &text);
            }
        }
    }

    fn drains(&mut self, status: &Status) {
        for drainer in &status.drainers {
            self.line("draining", &draining(drainer));
            for blocker in &drainer.blockers {
                self.line("", blocker);
            }
        }
        for lease in &status.leases {
            let left = lease.left_ms.map_or("without limit".to_owned(), |left| {
                format!("{} left", span(left))
            });
            let (pid, held, why) = (lease.pid, span(lease.held_ms), &lease.why);
            self.line(
                "lease",
                &format!("pid {pid}, held for {held}, {left}: {why}"),
            );
        }
    }

    fn recovery(&mut self, status: &Status) {
        let Some(recovery) = &status.recovery else {
            return;
        };
        let next = recovery.retry_ms.map_or(String::new(), |left| {
            format!("; tried again in {}", span(left))
        });
        let rung = recovery.rung.in_words();
        self.line("recovery", &format!("{rung}: {}{next}", recovery.reason));
        let advice = match recovery.rung {
            RecoveryRung::LastGood => {
                "gatewayctl config check says what is wrong, gatewayctl reload applies the fixed file"
            }
            RecoveryRung::Throttled | RecoveryRung::SafeMode => {
                "gatewayctl recover tries again now"
            }
        };
        self.line("", advice);
    }

    fn last_restart(&mut self, status: &Status, now: Timestamp) {
        let Some(last) = &status.last_restart else {
            return;
        };
        let reason = match last.reason.as_str() {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        let (ended, cause) = match &last.outcome {
            RequestEnd {
                outcome: RequestOutcome::Failed,
                cause: Some(cause),
            } => ("failed after".to_owned(), cause.as_str()),
            end => (format!("{end} in"), ""),
        };
        let (what, when, took) = (last.what(), when(&last.at, now), span(last.took_ms));
        self.line("last", &format!("{what} {when}, {ended} {took}{reason}"));
        for text in cause.lines() {
            self.line("", text);
        }
        if !last.cut.is_empty() {
            self.line("", &format!("cut: {}", last.cut.join(", ")));
        }
        if let Some(failed) = (last.clients.as_ref()).and_then(|seen| seen.failures_in_words()) {
            self.line("", &format!("meanwhile {failed}"));
        }
        for passage in last.passages.iter().filter(|passage| passage.is_bad()) {
            self.line("", &passage.sentence());
        }
        if !last.ended.is_empty() {
            self.line("", &format!("ended: {}", last.ended.join(", ")));
        }
    }

    fn drift(&mut self, drift: &[Drift]) {
        let line = |drift: &Drift| {
            let what = match drift.what {
                DriftKind::Edited => "was changed since gatewayctl wrote it",
                DriftKind::Foreign => "was not written by gatewayctl",
                DriftKind::DropIn => "drop-in",
            };
            format!("{}: {what}", drift.file)
        };
        let lines: Vec<String> = drift.iter().map(line).collect();
        self.lines.extend(self.ui.labelled_list("files", &lines));
    }

    fn unapplied(&mut self, files: &[UnappliedFile]) {
        let lines: Vec<String> = files.iter().map(UnappliedFile::to_string).collect();
        self.lines
            .extend(self.ui.labelled_list("not applied", &lines));
        if !files.is_empty() {
            self.line("", way(files));
        }
    }

    fn paths_and_version(&mut self, status: &Status) {
        let config = status.config.as_deref();
        self.line("config", config.unwrap_or("none: defaults and flags"));
        self.line("state", &status.state_dir);
        let (theirs, ours) = (&status.version, env!("CARGO_PKG_VERSION"));
        if theirs != ours {
            self.line("version", &format!("{theirs}, while gatewayctl is {ours}"));
        }
    }
}

/// "12 s ago"; the time itself where it cannot be read.
fn when(at: &str, now: Timestamp) -> String {
    let Ok(then) = at.parse::<Timestamp>() else {
        return format!("at {at}");
    };
    format!(
        "{} ago",
        span(u64::try_from(now.duration_since(then).as_millis()).unwrap_or(0))
    )
}

fn tone(stage: Stage) -> Tone {
    match exit(stage) {
        Exit::Done => Tone::Good,
        Exit::StillBusy => Tone::Busy,
        _ => Tone::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Context;
    use crate::control::fake_gateway;
    use crate::control::protocol::{
        DrainStatus, LastRestart, LeaseStatus, RecoveryStatus, SidecarStateName, SidecarStatus,
    };
    use crate::service::FileRole;
    use crate::state::terms::RequestKindName;

    #[test]
    fn aligned_and_short() {
        let mut status = fake_gateway::status();
        status.stage = Stage::Draining;
        status.listeners = vec!["127.0.0.1:18789".into()];
        status.sidecars = vec![SidecarStatus {
            name: "main".into(),
            state: SidecarStateName::Ready,
            cause: None,
            pid: 200,
            port: 41233,
            exposed: vec!["0.0.0.0:41233".into()],
            generation: 1,
            since: None,
            deaths: 0,
            cpu_ms: None,
            restarts: 0,
            last_death: None,
            last_death_at: None,
            last_words: vec![],
            failing: false,
            refused_copies: 0,
            memory_bytes: Some(84 * 1024 * 1024),
            command: "node server.js --port 41233".into(),
        }];
        status.drainers = vec![DrainStatus {
            generation: 3,
            requests: 1,
            tunnels: 2,
            leases: 1,
            memory_bytes: Some(1),
            pid: 99,
            left_ms: Some(290_000),
            blockers: vec!["GET /big".into()],
        }];
        status.recovery = Some(RecoveryStatus {
            rung: RecoveryRung::SafeMode,
            reason: "4 starts within 30 min".into(),
            retry_ms: Some(60_000),
        });
        status.leases = vec![LeaseStatus {
            lease: 1,
            why: "backup".into(),
            pid: 7,
            held_ms: 3000,
            left_ms: None,
        }];
        status.last_restart = Some(LastRestart {
            request: "r1".into(),
            kind: RequestKindName::Restart,
            sidecar: None,
            reason: "deploy\u{1b}[2J".into(),
            outcome: "failed: main exited with code 1\n  | no such module"
                .parse()
                .unwrap(),
            at: "2026-01-02T03:04:05Z".into(),
            took_ms: 412,
            cut: vec!["GET / for 3 s".into()],
            ended: vec![],
            clients: None,
            passages: vec![],
        });
        let shown = StatusAnswer {
            status,
            drift: vec![],
            unapplied: vec![UnappliedFile {
                file: "/srv/app.env".into(),
                role: FileRole::Variables,
                gone: false,
            }],
            deep: None,
        };
        let now = "2026-01-02T03:04:17Z".parse().unwrap();
        assert_eq!(
            lines(&Context::plain().ui, &shown, now),
            "gateway: draining, generation 4, pid 1234, up 3 h 12 min\n\
             \x20 detail      ready\n\
             \x20 listening   127.0.0.1:18789\n\
             \x20 serving     3 connections, 1 request, 0 tunnels\n\
             \x20 sidecar     main  ready, pid 200, port 41233, 84 MiB: node server.js --port 41233\n\
             \x20             listens on 0.0.0.0:41233: it is reached past the front door\n\
             \x20 draining    generation 3 (pid 99): 1 request, 2 tunnels, 1 lease, 1 MiB; the rest is cut in 4 min 50 s\n\
             \x20             GET /big\n\
             \x20 lease       pid 7, held for 3.0 s, without limit: backup\n\
             \x20 recovery    safe mode: 4 starts within 30 min; tried again in 1 min 0 s\n\
             \x20             gatewayctl recover tries again now\n\
             \x20 last        restart 12.0 s ago, failed after 412 ms (deploy\\x1b[2J)\n\
             \x20             main exited with code 1\n\
             \x20               | no such module\n\
             \x20             cut: GET / for 3 s\n\
             \x20 restarts    in-process: started from a terminal\n\
             \x20 supervisor  none (foreground)\n\
             \x20 not applied /srv/app.env (variables) changed\n\
             \x20             gatewayctl restart, as root for a service of the machine, has systemd start it anew\n\
             \x20 config      none: defaults and flags\n\
             \x20 state       /tmp/state"
                .lines()
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn exit_codes_of_stages() {
        use Stage::{Degraded, Draining, Failed, Ready, SafeMode, StandingBy, Starting, Throttled};
        let stages = [
            Ready, Degraded, Failed, Throttled, SafeMode, Starting, Draining, StandingBy,
        ];
        assert_eq!(
            stages.map(|stage| exit(stage).code()),
            [0, 1, 1, 1, 1, 4, 4, 4]
        );
    }
}
