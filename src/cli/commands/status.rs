//! `gatewayctl status`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::args::StatusArgs;
use crate::cli::commands::restart::status_of;
use crate::cli::status_deep::{self, Deep, Drift};
use crate::cli::target::Target;
use crate::cli::ui::{Tone, count, span};
use crate::cli::{CliError, Context, Exit, Ui, installed, status_watch};
use crate::config::Env;
use crate::control::protocol::{DrainStatus, Stage, Status};
use crate::text::log::escape;

/// The width of the first column.
pub const LABEL: usize = 11;

/// The answer: what the gateway says of itself, and what is known of its files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Shown {
    /// What it says.
    #[serde(flatten)]
    pub status: Status,
    /// The files that are not as install wrote them.
    pub drift: Vec<Drift>,
    /// What only `--deep` looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deep: Option<Deep>,
}

/// A line of `--watch` with `--json`: what changed, and the whole status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// When it was seen, RFC 3339.
    pub at: String,
    /// The stage in words; "not running" when nobody answers.
    pub stage: String,
    /// Why nobody answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Shown>,
}

impl Change {
    /// What is the case now.
    pub fn of(answer: Result<&Shown, String>, now: Timestamp) -> Self {
        let stage = status_watch::stage(answer.as_ref().copied());
        let at = now.strftime("%FT%TZ").to_string();
        match answer {
            Ok(shown) => Self {
                at,
                stage,
                error: None,
                status: Some(shown.clone()),
            },
            Err(error) => Self {
                at,
                stage,
                error: Some(error),
                status: None,
            },
        }
    }

    /// What a change is a change of: not the times that run, nor the counts that always change.
    pub fn key(&self) -> Value {
        let Some(Shown { status, drift, .. }) = &self.status else {
            return json!(self.error);
        };
        let sidecars: Vec<Value> = status
            .sidecars
            .iter()
            .map(|one| json!([one.name, one.state, one.pid, one.restarts, one.cause]))
            .collect();
        let drainers: Vec<Value> = status
            .drainers
            .iter()
            .map(|one| json!([one.generation, one.pid]))
            .collect();
        let leases: Vec<u64> = status.leases.iter().map(|one| one.lease).collect();
        let recovery = status
            .recovery
            .as_ref()
            .map(|recovery| (&recovery.rung, &recovery.reason));
        json!([
            self.stage,
            status.pid,
            status.generation,
            sidecars,
            drainers,
            leases,
            recovery,
            status.last_restart,
            status.listeners,
            drift
        ])
    }

    /// For people.
    pub fn sentence(&self) -> String {
        let Some(Shown { status, .. }) = &self.status else {
            return format!(
                "{}  {}: {}",
                self.at,
                self.stage,
                self.error.as_deref().unwrap_or_default()
            );
        };
        let detail = if status.detail.is_empty() {
            String::new()
        } else {
            format!(": {}", escape(&status.detail))
        };
        let sidecars: Vec<String> = status
            .sidecars
            .iter()
            .map(|one| format!("{} {} (pid {})", one.name, one.state, one.pid))
            .collect();
        let sidecars = if sidecars.is_empty() {
            String::new()
        } else {
            format!(", {}", sidecars.join(", "))
        };
        format!(
            "{}  {}: {}, generation {}, pid {}{sidecars}{detail}",
            self.at, status.instance, self.stage, status.generation, status.pid
        )
    }
}

/// Adds what is known of its files, and with `deep` of its unit.
pub async fn shown(status: Status, deep: bool) -> Shown {
    let env = Env::real();
    let unit = status_deep::unit_of(&env, &status);
    let drift = unit
        .as_ref()
        .map(|unit| status_deep::drift(&env, unit, deep))
        .unwrap_or_default();
    let deep = if deep {
        Some(Deep::look(&env, unit.as_ref(), &status).await)
    } else {
        None
    };
    Shown {
        status,
        drift,
        deep,
    }
}

/// Shows what a gateway is doing.
///
/// # Errors
/// [`Exit::NotRunning`] when it neither runs nor is installed.
pub async fn status(ctx: &Context, args: &StatusArgs) -> Result<Exit, CliError> {
    if args.watch {
        return status_watch::watch(ctx, args).await;
    }
    let target = match Target::find(&ctx.global, &Env::real()) {
        Ok(target) => target,
        Err(error) if matches!(error.exit, Exit::NotRunning | Exit::Permission) => {
            return installed::status(ctx, error).await;
        }
        Err(error) => return Err(error),
    };
    let mut client = target.connect().await?;
    let status = status_of(&target, &mut client).await?;
    let shown = shown(status, args.deep).await;
    ctx.ui.object(&shown);
    for line in lines(&ctx.ui, &shown, Timestamp::now()) {
        ctx.ui.say(&line);
    }
    Ok(exit(shown.status.stage))
}

/// The exit code of a stage.
fn exit(stage: Stage) -> Exit {
    match stage {
        Stage::Ready => Exit::Done,
        Stage::Degraded | Stage::Failed | Stage::Throttled | Stage::SafeMode => Exit::Failed,
        Stage::Starting
        | Stage::Restarting
        | Stage::Draining
        | Stage::Stopping
        | Stage::StandingBy => Exit::StillBusy,
    }
}

fn tone(stage: Stage) -> Tone {
    match exit(stage) {
        Exit::Done => Tone::Good,
        Exit::StillBusy => Tone::Busy,
        _ => Tone::Bad,
    }
}

/// The status for people: a headline, then a line for each thing.
pub fn lines(ui: &Ui, shown: &Shown, now: Timestamp) -> Vec<String> {
    let status = &shown.status;
    let stage = ui.paint(&status.stage.in_words(), tone(status.stage));
    let name = ui.paint(&escape(&status.instance), Tone::Strong);
    let mut lines = vec![format!(
        "{name}: {stage}, generation {}, pid {}, up {}",
        status.generation,
        status.pid,
        span(status.uptime_ms)
    )];
    let mut line = |label: &str, text: &str| {
        let label = ui.paint(&format!("{label:<LABEL$}"), Tone::Dim);
        lines.push(format!("  {label} {}", escape(text)));
    };
    // The line of the recovery says the same below.
    if status.stage != Stage::Ready
        && !status.detail.is_empty()
        && !status
            .recovery
            .as_ref()
            .is_some_and(|recovery| status.detail.contains(&recovery.reason))
    {
        line("detail", &status.detail);
    }
    line("listening", &status.listeners.join(", "));
    let mut load = format!(
        "{}, {}, {}",
        count(status.connections, "connection"),
        count(status.requests, "request"),
        count(status.tunnels, "tunnel")
    );
    if status.held > 0 {
        load.push_str(&format!(", {} waiting for a sidecar", status.held));
    }
    line("serving", &load);
    let width = status
        .sidecars
        .iter()
        .map(|sidecar| sidecar.name.len())
        .max()
        .unwrap_or(0);
    for sidecar in &status.sidecars {
        let pid = if sidecar.pid == 0 {
            "no process".to_owned()
        } else {
            format!("pid {}", sidecar.pid)
        };
        let mut text = format!(
            "{:<width$}  {}, {pid}, port {}",
            sidecar.name, sidecar.state, sidecar.port
        );
        if sidecar.restarts > 0 {
            text.push_str(&format!(
                ", {}",
                count(sidecar.restarts, "unplanned restart")
            ));
        }
        line("sidecar", &format!("{text}: {}", sidecar.command));
        if let Some(cause) = &sidecar.cause {
            line("", cause);
        }
    }
    for drainer in &status.drainers {
        line("draining", &draining(drainer));
        drainer
            .blockers
            .iter()
            .for_each(|blocker| line("", blocker));
    }
    for lease in &status.leases {
        let left = lease.left_ms.map_or("without limit".to_owned(), |left| {
            format!("{} left", span(left))
        });
        line(
            "lease",
            &format!(
                "pid {}, held for {}, {left}: {}",
                lease.pid,
                span(lease.held_ms),
                lease.why
            ),
        );
    }
    if let Some(recovery) = &status.recovery {
        let next = recovery.retry_ms.map_or(String::new(), |left| {
            format!("; tried again in {}", span(left))
        });
        line(
            "recovery",
            &format!(
                "{}: {}{next}",
                recovery.rung.replace('_', " "),
                recovery.reason
            ),
        );
        match recovery.rung.as_str() {
            "last_good" => line(
                "",
                "gatewayctl config check says what is wrong, gatewayctl reload applies what was mended",
            ),
            _ => line("", "gatewayctl recover tries again now"),
        }
    }
    if let Some(last) = &status.last_restart {
        let reason = if last.reason.is_empty() {
            String::new()
        } else {
            format!(" ({})", last.reason)
        };
        let (ended, cause) = match last.outcome.strip_prefix("failed: ") {
            Some(cause) => ("failed after".to_owned(), cause),
            None => (format!("{} in", last.outcome), ""),
        };
        line(
            "last",
            &format!(
                "{} {}, {ended} {}{reason}",
                last.kind,
                when(&last.at, now),
                span(last.took_ms)
            ),
        );
        cause.lines().for_each(|text| line("", text));
    }
    line("restarts", &status.strategy.to_string());
    line("supervisor", &status.supervisor.to_string());
    for (index, drift) in shown.drift.iter().enumerate() {
        let text = match drift.what.as_str() {
            "edited" => "was changed since gatewayctl wrote it",
            "foreign" => "was not written by gatewayctl",
            what => what,
        };
        line(
            if index == 0 { "files" } else { "" },
            &format!("{}: {text}", drift.file),
        );
    }
    for (label, text) in shown.deep.iter().flat_map(Deep::lines) {
        line(label, &text);
    }
    line(
        "config",
        status
            .config
            .as_deref()
            .unwrap_or("none: defaults and flags"),
    );
    line("state", &status.state_dir);
    if status.version != env!("CARGO_PKG_VERSION") {
        line(
            "version",
            &format!(
                "{}, while gatewayctl is {}",
                status.version,
                env!("CARGO_PKG_VERSION")
            ),
        );
    }
    lines
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

/// What an older generation still does.
pub fn draining(drainer: &DrainStatus) -> String {
    let left = match drainer.left_ms {
        Some(left) => format!("the rest is cut in {}", span(left)),
        None => "without limit".to_owned(),
    };
    let pid = if drainer.pid == 0 {
        String::new()
    } else {
        format!(" (pid {})", drainer.pid)
    };
    let leases = if drainer.leases > 0 {
        format!(", {}", count(drainer.leases, "lease"))
    } else {
        String::new()
    };
    if drainer.pid != 0 && drainer.requests + drainer.tunnels + drainer.leases == 0 {
        // Another process tells its successor how much it has left, and nobody after that.
        return format!(
            "generation {}{pid}: finishes its work; {left}",
            drainer.generation
        );
    }
    let (requests, tunnels) = (
        count(drainer.requests, "request"),
        count(drainer.tunnels, "tunnel"),
    );
    format!(
        "generation {}{pid}: {requests}, {tunnels}{leases}; {left}",
        drainer.generation
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Color, Global};
    use crate::cli::fake_gateway::{self, Double};
    use crate::control::protocol::{LastRestart, LeaseStatus, RecoveryStatus, SidecarStatus};

    #[test]
    fn aligned_and_short() {
        let ui = Ui::new(&Global {
            color: Color::Never,
            ..Global::default()
        });
        let mut status = fake_gateway::status();
        status.stage = Stage::Draining;
        status.listeners = vec!["127.0.0.1:18789".into()];
        status.sidecars = vec![SidecarStatus {
            name: "main".into(),
            state: "ready".into(),
            cause: None,
            pid: 200,
            port: 41233,
            restarts: 0,
            command: "node server.js --port 41233".into(),
        }];
        status.drainers = vec![DrainStatus {
            generation: 3,
            requests: 1,
            tunnels: 2,
            leases: 1,
            pid: 99,
            left_ms: Some(290_000),
            blockers: vec!["GET /big".into()],
        }];
        let reason = "4 starts within 30 min".to_owned();
        status.recovery = Some(RecoveryStatus {
            rung: "safe_mode".into(),
            reason,
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
            kind: "restart".into(),
            reason: "deploy\u{1b}[2J".into(),
            outcome: "failed: main exited with code 1\n  | no such module".into(),
            at: "2026-01-02T03:04:05Z".into(),
            took_ms: 412,
        });
        assert_eq!(
            lines(
                &ui,
                &Shown {
                    status,
                    drift: vec![],
                    deep: None
                },
                "2026-01-02T03:04:17Z".parse().unwrap()
            )
            .join("\n"),
            "gateway: draining, generation 4, pid 1234, up 3 h 12 min\n\
             \x20 detail      ready\n\
             \x20 listening   127.0.0.1:18789\n\
             \x20 serving     3 connections, 1 request, 0 tunnels\n\
             \x20 sidecar     main  ready, pid 200, port 41233: node server.js --port 41233\n\
             \x20 draining    generation 3 (pid 99): 1 request, 2 tunnels, 1 lease; the rest is cut in 4 min 50 s\n\
             \x20             GET /big\n\
             \x20 lease       pid 7, held for 3.0 s, without limit: backup\n\
             \x20 recovery    safe mode: 4 starts within 30 min; tried again in 1 min 0 s\n\
             \x20             gatewayctl recover tries again now\n\
             \x20 last        restart 12.0 s ago, failed after 412 ms (deploy\\x1b[2J)\n\
             \x20             main exited with code 1\n\
             \x20               | no such module\n\
             \x20 restarts    in-process: started from a terminal\n\
             \x20 supervisor  none (foreground)\n\
             \x20 config      none: defaults and flags\n\
             \x20 state       /tmp/state"
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

    #[tokio::test]
    async fn status_over_the_socket() {
        let double = Double::start(Ok(fake_gateway::outcome()));
        let global = Global {
            state_dir: Some(double.state.clone()),
            quiet: true,
            ..Global::default()
        };
        let ctx = Context {
            ui: Ui::new(&global),
            global,
        };
        assert_eq!(status(&ctx, &StatusArgs::default()).await, Ok(Exit::Done));
    }
}
