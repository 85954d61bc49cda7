//! `gatewayctl why`: the cause of the last end or restart in one sentence, then the evidence.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cli::known_gateway::KnownGateway;
use crate::cli::styled_line::{StyledLine, Tone};
use crate::cli::{CliError, Context, Exit, target};
use crate::diagnose::why::{self, EndCause, EndEvidence, EvidenceLine};
use crate::text::redact::Redactor;

/// The answer with `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WhyReport {
    /// Always true; an error has its own object.
    pub ok: bool,
    /// The instance.
    pub instance: String,
    /// Its unit or job, where it is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The cause in one sentence.
    pub sentence: String,
    /// The cause for programs.
    pub cause: EndCause,
    /// When it ended or a restart was requested, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// When the next run began, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_at: Option<String>,
    /// Milliseconds in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_ms: Option<u64>,
    /// Whether it is running now.
    pub running: bool,
    /// What the server printed last that the cause is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_words: Vec<String>,
    /// The next commands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
    /// What the cause follows from.
    pub evidence: Vec<EvidenceLine>,
}

/// Shows the cause and the evidence.
///
/// # Errors
/// [`Exit::NotRunning`] for a gateway that is not installed and never ran; [`Exit::Usage`] when
/// several match.
pub async fn why(ctx: &Context) -> Result<Exit, CliError> {
    let subject = KnownGateway::find(ctx).await?;
    let known = EndEvidence {
        instance: subject.instance.clone(),
        status: subject.status.clone(),
        unseen: subject.unseen.clone(),
        ..EndEvidence::default()
    };
    let evidence = why::gather(known, subject.unit.as_ref(), subject.state.as_deref()).await;
    let Some(diagnosis) = why::decide(&evidence) else {
        return Err(subject.unknown());
    };
    let now = Timestamp::now();
    // The history is redacted already. Output of sidecars that the manager or the gateway logged may
    // not be.
    let redactor = Redactor::default();
    let sentence = redactor.text(&why::sentence(&evidence, &diagnosis, now));
    let lines: Vec<EvidenceLine> = why::evidence_lines(&evidence)
        .into_iter()
        .map(|line| EvidenceLine {
            text: redactor.text(&line.text),
            ..line
        })
        .collect();
    let last_words = why::last_words(&evidence, &diagnosis.cause);
    let last_words: Vec<String> = last_words.iter().map(|line| redactor.text(line)).collect();
    let flags = target::naming_flags(&ctx.global);
    let next = why::next_commands(&evidence, &diagnosis.cause);
    let next: Vec<String> = next.iter().map(|next| next.line(&flags)).collect();
    ctx.ui.say(ctx.ui.paint(&sentence, Tone::Strong));
    ctx.ui.say_all("  | ", &last_words);
    show(ctx, &lines, now);
    ctx.ui.say_all("  next: ", &next);
    let down = diagnosis
        .at
        .zip(diagnosis.restarted_at)
        .filter(|(at, again)| at < again);
    ctx.ui.object(&WhyReport {
        ok: true,
        instance: evidence.instance.clone(),
        unit: evidence.installed_as().map(str::to_owned),
        sentence,
        at: diagnosis.at.map(|at| at.to_string()),
        again_at: diagnosis.restarted_at.map(|at| at.to_string()),
        down_ms: down.map(|(at, again)| why::millis_between(at, again)),
        running: evidence.is_running(),
        cause: diagnosis.cause,
        last_words,
        next,
        evidence: lines,
    });
    Ok(Exit::Done)
}

fn show(ctx: &Context, lines: &[EvidenceLine], now: Timestamp) {
    for line in lines {
        let at = line.at.as_ref().and_then(|at| at.parse().ok());
        let at = at.map_or(String::new(), |at| why::clock(at, now));
        let source = ctx.ui.paint(&format!("{:<8}", line.source), Tone::Dim);
        let rest = format!(" {at:<8}  {}", line.text);
        ctx.ui.say(StyledLine::from("  ").and(source).and(rest));
    }
}
