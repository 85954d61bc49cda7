//! What is printed: findings by level, each with its place, its evidence and its cure.

use schemars::JsonSchema;
use serde::Serialize;

use super::facts::Facts;
use super::finding::{Level, Remedy};
use super::{Finding, checks};
use crate::cli::Context;
use crate::cli::ui::Tone;
use crate::text::human::count;
use crate::text::log::escape;
use crate::text::redact::Redactor;

/// Evidence is shown up to so many lines; `--json` has all of it.
const DETAIL_MOST: usize = 8;

/// The width of the labels.
const LABEL: usize = 5;

/// The answer with `--json`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answer<'a> {
    /// Whether nothing that matters is left.
    ok: bool,
    /// The instance.
    instance: &'a str,
    /// How many checks were made.
    checks: usize,
    /// What was found, the worst first.
    findings: Vec<Item<'a>>,
    /// What could not be looked at, and why.
    unseen: &'a [String],
}

/// A finding.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item<'a> {
    /// Its name, which never changes; gatewayctl-doctor(7) describes it.
    code: &'a str,
    /// error, warning or note.
    level: &'a str,
    /// What is wrong here, in one line.
    message: String,
    /// Evidence, a line each.
    detail: Vec<String>,
    /// The file, unit, process or address.
    place: String,
    /// Why it matters.
    why: &'a str,
    /// What to do about it.
    remedy: Cure<'a>,
    /// Whether it is gone after `--fix`.
    mended: bool,
    /// Why `--fix` did not mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_mended: Option<&'a str>,
}

/// What to do about a finding.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Cure<'a> {
    /// mend (`--fix` does it), command or advice.
    kind: &'a str,
    /// The command, or the advice.
    text: String,
}

/// Prints the findings.
pub fn show(ctx: &Context, facts: &Facts, findings: &[Finding], fixed: bool) {
    let redactor = redactor(facts);
    let number = checks::all().count();
    let items = findings
        .iter()
        .map(|finding| item(finding, &redactor))
        .collect();
    let ok = super::exit(findings) == crate::cli::Exit::Done;
    ctx.ui.object(&Answer {
        ok,
        instance: &facts.instance,
        checks: number,
        findings: items,
        unseen: &facts.unseen,
    });
    for level in [Level::Error, Level::Warning, Level::Note] {
        findings
            .iter()
            .filter(|finding| finding.check.level == level)
            .for_each(|finding| lines(ctx, finding, &redactor, fixed));
    }
    for what in &facts.unseen {
        ctx.ui.say(&format!(
            "{} {}",
            ctx.ui.paint("not looked at:", Tone::Dim),
            escape(what)
        ));
    }
    if !facts.unseen.is_empty() {
        ctx.ui.say(&format!(
            "  {} sudo gatewayctl doctor{}",
            ctx.ui.paint(&format!("{:<LABEL$}", "next:"), Tone::Strong),
            facts.flags
        ));
    }
    ctx.ui.say(&summary(findings, number));
}

/// Knows every secret of the configuration.
fn redactor(facts: &Facts) -> Redactor {
    let config = facts.config.get();
    let redactor = Redactor::new(&config.gateway.redact);
    for spec in config.sidecar.values() {
        redactor.learn_command(&spec.command);
        spec.env
            .iter()
            .for_each(|(key, value)| redactor.learn_env(key, value));
    }
    let variables = facts
        .unit
        .iter()
        .filter_map(|unit| unit.says.as_ref())
        .flat_map(|says| &says.environment);
    variables
        .filter_map(|pair| pair.split_once('='))
        .for_each(|(key, value)| redactor.learn_env(key, value));
    redactor
}

fn item<'a>(finding: &'a Finding, redactor: &Redactor) -> Item<'a> {
    Item {
        code: finding.check.code,
        level: finding.check.level.word(),
        message: redactor.text(&finding.seen.message),
        detail: finding
            .seen
            .detail
            .iter()
            .map(|line| redactor.text(line))
            .collect(),
        place: redactor.text(&finding.seen.place),
        why: finding.check.why,
        remedy: Cure {
            kind: finding.seen.remedy.kind(),
            text: redactor.text(finding.seen.remedy.text()),
        },
        mended: finding.mended,
        not_mended: finding.failed.as_deref(),
    }
}

fn lines(ctx: &Context, finding: &Finding, redactor: &Redactor, fixed: bool) {
    let tone = match finding.check.level {
        _ if finding.mended => Tone::Good,
        Level::Error => Tone::Bad,
        Level::Warning => Tone::Busy,
        Level::Note => Tone::Dim,
    };
    let shown = |text: &str| escape(&redactor.text(text)).into_owned();
    let line = |label: &str, text: &str| {
        ctx.ui.say(&format!(
            "  {} {text}",
            ctx.ui.paint(&format!("{label:<LABEL$}"), Tone::Dim)
        ))
    };
    let level = ctx.ui.paint(finding.check.level.word(), tone);
    ctx.ui.say(&format!(
        "{level} {}: {}",
        ctx.ui.paint(finding.check.code, Tone::Strong),
        finding.check.what
    ));
    line(
        "at",
        &format!(
            "{}: {}",
            shown(&finding.seen.place),
            shown(&finding.seen.message)
        ),
    );
    for text in finding.seen.detail.iter().take(DETAIL_MOST) {
        line("", &shown(text));
    }
    if finding.seen.detail.len() > DETAIL_MOST {
        line(
            "",
            &format!("+{} more", finding.seen.detail.len() - DETAIL_MOST),
        );
    }
    line("why", finding.check.why);
    let remedy = shown(finding.seen.remedy.text());
    match (&finding.seen.remedy, finding.mended) {
        (_, true) => line(
            "done",
            &ctx.ui.paint(
                if matches!(finding.seen.remedy, Remedy::Mend(..)) {
                    &remedy
                } else {
                    "mended"
                },
                Tone::Good,
            ),
        ),
        (Remedy::Mend(..), false) if !fixed => {
            line("fix", &format!("gatewayctl doctor --fix   ({remedy})"))
        }
        _ => line("fix", &remedy),
    }
    if let Some(why) = &finding.failed {
        line("", &format!("not mended: {}", shown(why)));
    }
}

fn summary(findings: &[Finding], checks: usize) -> String {
    let left = |level: Level| {
        findings
            .iter()
            .filter(|finding| !finding.mended && finding.check.level == level)
            .count() as u64
    };
    let mended = findings.iter().filter(|finding| finding.mended).count() as u64;
    let mut parts: Vec<String> = [Level::Error, Level::Warning, Level::Note]
        .into_iter()
        .filter(|level| left(*level) > 0)
        .map(|level| count(left(level), level.word()))
        .collect();
    if parts.is_empty() {
        parts.push("no findings".to_owned());
    }
    if mended > 0 {
        parts.push(format!("{mended} mended"));
    }
    format!("{}: {}", parts.join(", "), count(checks as u64, "check"))
}
