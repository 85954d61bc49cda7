//! `gatewayctl why`: the cause of the last end or restart in one sentence, then the evidence.
//!
//! [`gather`] looks at everything, [`cause`] decides without looking at anything else, [`words`]
//! says it.

mod cause;
mod evidence;
mod gather;
pub(crate) mod journal;
mod life;
mod words;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::cause::Cause;
pub use self::words::Proof;
use crate::cli::subject::Subject;
use crate::cli::ui::Tone;
use crate::cli::{CliError, Context, Exit};
use crate::text::log::escape;
use crate::text::redact::Redactor;

/// The answer with `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Why {
    /// Always true; an error has its own object.
    pub ok: bool,
    /// The instance.
    pub instance: String,
    /// Its unit, where it is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The cause in one sentence.
    pub sentence: String,
    /// The same for programs.
    pub cause: Cause,
    /// When it ended or was asked, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// When the next life began, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_at: Option<String>,
    /// Milliseconds in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_ms: Option<u64>,
    /// Whether a life is under way.
    pub running: bool,
    /// What it follows from.
    pub evidence: Vec<Proof>,
}

/// Says why.
///
/// # Errors
/// [`Exit::NotRunning`] of a gateway that is not installed and never ran; [`Exit::Usage`] when
/// several can be meant.
pub async fn why(ctx: &Context) -> Result<Exit, CliError> {
    let subject = Subject::find(ctx).await?;
    let evidence = gather::evidence(&subject).await;
    let Some(answer) = cause::decide(&evidence) else {
        return Err(subject.unknown());
    };
    let now = Timestamp::now();
    // The record is redacted already; what a sidecar made the manager or the gateway print may not
    // be.
    let redactor = Redactor::default();
    let sentence = redactor.text(&words::sentence(&evidence, &answer, now));
    let proofs: Vec<Proof> = words::proofs(&evidence)
        .into_iter()
        .map(|proof| Proof {
            text: redactor.text(&proof.text),
            ..proof
        })
        .collect();
    ctx.ui.say(&ctx.ui.paint(&escape(&sentence), Tone::Strong));
    for proof in &proofs {
        let at = proof
            .at
            .as_ref()
            .and_then(|at| at.parse().ok())
            .map_or(String::new(), |at| words::clock(at, now));
        ctx.ui.say(&format!(
            "  {} {at:<8}  {}",
            ctx.ui.paint(&format!("{:<8}", proof.source), Tone::Dim),
            escape(&proof.text)
        ));
    }
    ctx.ui.object(&Why {
        ok: true,
        instance: evidence.instance.clone(),
        unit: evidence.unit.as_ref().map(|unit| unit.name.clone()),
        sentence,
        at: answer.at.map(|at| at.to_string()),
        again_at: answer.again.map(|at| at.to_string()),
        down_ms: answer
            .at
            .zip(answer.again)
            .filter(|(at, again)| at < again)
            .map(|(at, again)| words::between(at, again)),
        running: evidence.is_up(),
        cause: answer.cause,
        evidence: proofs,
    });
    Ok(Exit::Done)
}
