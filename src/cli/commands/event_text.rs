//! The events of a gateway in words, one line each.

use crate::control::protocol::{
    DrainingEvent, GatewayEvent, LogLevel, RestartEvent, ShutdownReason, SidecarEvent,
};
use crate::text::human::span;
use crate::text::words::Words;

/// For people; none of what a line more would not help.
pub fn sentence(event: &GatewayEvent) -> Option<String> {
    Some(match event {
        GatewayEvent::State(state) => {
            format!("{}: {}", state.stage.in_words(), state.detail)
        }
        GatewayEvent::Sidecar(sidecar) => of_sidecar(sidecar),
        GatewayEvent::Restart(restart) => of_restart(restart),
        GatewayEvent::Draining(draining) => of_drain(draining)?,
        GatewayEvent::Log(line) => {
            let mark = match line.level {
                LogLevel::Error => "error: ",
                LogLevel::Warning => "warning: ",
                LogLevel::Info => "",
            };
            let who = line.sidecar.as_deref().unwrap_or("gateway");
            let lost = match line.lost {
                0 => String::new(),
                lost => format!("({lost} lines left out) "),
            };
            format!("{lost}[{who}] {mark}{}", line.text)
        }
        GatewayEvent::Shutdown(shutdown) => match shutdown.reason {
            ShutdownReason::Restart => {
                let after = shutdown.restart_expected_ms.unwrap_or_default();
                match after {
                    0 => "the connection ends: another process serves".to_owned(),
                    _ => format!(
                        "the connection ends with this process; the next one is expected {} after that",
                        span(after)
                    ),
                }
            }
            ShutdownReason::Stop => "the gateway stops".to_owned(),
        },
    })
}

fn of_sidecar(sidecar: &SidecarEvent) -> String {
    let SidecarEvent { name, state, .. } = sidecar;
    if sidecar.gone {
        return format!("sidecar {name} is not configured any more");
    }
    let pid = match sidecar.pid {
        0 => String::new(),
        pid => format!(" (pid {pid})"),
    };
    let cause = sidecar.cause.as_ref();
    let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
    let failing = if sidecar.failing { ", failing" } else { "" };
    format!("sidecar {name} {state}{pid}{failing}{cause}")
}

fn of_restart(restart: &RestartEvent) -> String {
    match restart {
        RestartEvent::Asked(asked) => {
            format!("{} {} asked: {}", asked.kind, asked.request, asked.reason)
        }
        RestartEvent::Step(step) => format!("{} {}: {}", step.request, step.stage, step.text),
        RestartEvent::Ended(end) => format!(
            "{} {} {} after {}",
            end.kind,
            end.request,
            end.outcome,
            span(end.took_ms)
        ),
    }
}

/// None of a drain that ended nothing.
fn of_drain(draining: &DrainingEvent) -> Option<String> {
    Some(match draining {
        DrainingEvent::Began(drain) => {
            let left = drain.left_ms.map(span);
            let left = left.map_or(String::new(), |left| format!(", for {left} at most"));
            let waits = match &drain.blockers[..] {
                [] => String::new(),
                blockers => format!(": {}", blockers.join(", ")),
            };
            format!(
                "generation {} finishes its work{left}{waits}",
                drain.generation
            )
        }
        DrainingEvent::Cut(work) => {
            let part = |what: &str, all: &[String]| {
                (!all.is_empty()).then(|| format!("{what} {}", all.join(", ")))
            };
            let parts = [part("cut", &work.cut), part("ended", &work.ended)];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            if parts.is_empty() {
                return None;
            }
            format!("at {}: {}", work.sidecar, parts.join("; "))
        }
        DrainingEvent::Ended(drained) => format!("generation {} is gone", drained.generation),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{
        CutEvent, DrainedEvent, LogEvent, ShutdownEvent, SidecarStateName,
    };

    #[test]
    fn events_in_words() {
        let sidecar = SidecarEvent {
            name: "web".into(),
            state: SidecarStateName::Backoff,
            cause: Some("it exited with 1".into()),
            generation: 2,
            pid: 0,
            restarts: 5,
            failing: true,
            gone: false,
        };
        let gone = SidecarEvent {
            gone: true,
            ..sidecar.clone()
        };
        let log = LogEvent {
            level: LogLevel::Warning,
            sidecar: None,
            text: "slow".into(),
            lost: 3,
        };
        let cut = |cut: &[&str]| {
            GatewayEvent::Draining(DrainingEvent::Cut(CutEvent {
                sidecar: "web".into(),
                request: None,
                cut: cut.iter().map(ToString::to_string).collect(),
                ended: Vec::new(),
            }))
        };
        let stop = ShutdownEvent {
            reason: ShutdownReason::Stop,
            restart_expected_ms: None,
        };
        for (event, text) in [
            (
                GatewayEvent::Sidecar(sidecar),
                Some("sidecar web backoff, failing: it exited with 1"),
            ),
            (
                GatewayEvent::Sidecar(gone),
                Some("sidecar web is not configured any more"),
            ),
            (
                GatewayEvent::Log(log),
                Some("(3 lines left out) [gateway] warning: slow"),
            ),
            (cut(&["GET / for 3 s"]), Some("at web: cut GET / for 3 s")),
            (cut(&[]), None),
            (GatewayEvent::Shutdown(stop), Some("the gateway stops")),
            (
                GatewayEvent::Draining(DrainingEvent::Ended(DrainedEvent { generation: 7 })),
                Some("generation 7 is gone"),
            ),
        ] {
            assert_eq!(sentence(&event).as_deref(), text);
        }
    }
}
