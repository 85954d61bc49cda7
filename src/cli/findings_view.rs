//! How findings are printed: by level, each with its place, its evidence and its remedy.

use schemars::JsonSchema;
use serde::Serialize;

use super::Context;
use super::styled_line::{StyledLine, Tone};
use super::ui::Ui;
use crate::diagnose::doctor::{self, DoctorFacts, Finding, FixState, Level, Remedy, checks};
use crate::service::Rights;
use crate::text::human::count;
use crate::text::redact::Redactor;
use crate::text::words::{Words, words};

/// How many lines of evidence are shown; `--json` has all of them.
const DETAIL_MOST: usize = 8;

/// The width of the labels.
const LABEL: usize = 5;

/// The answer with `--json`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DoctorReport<'a> {
    /// Whether no error and no warning is left.
    ok: bool,
    /// The instance.
    instance: &'a str,
    /// How many checks were made.
    checks: usize,
    /// What was found, the worst first.
    findings: Vec<ReportedFinding<'a>>,
    /// What could not be looked at, and why.
    unseen: &'a [String],
}

/// A finding.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportedFinding<'a> {
    /// Its name, which never changes; gatewayctl-doctor(7) describes it.
    code: &'a str,
    /// How much it matters.
    level: Level,
    /// What is wrong here, in one line.
    message: String,
    /// Evidence, one item a line.
    detail: Vec<String>,
    /// The file, unit, process or address.
    place: String,
    /// Why it matters.
    why: &'a str,
    /// What to do about it.
    remedy: ReportedRemedy,
    /// Whether `--fix` fixed it.
    mended: bool,
    /// Why `--fix` did not fix it.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_mended: Option<&'a str>,
}

/// What to do about a finding.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReportedRemedy {
    /// What the text is.
    kind: RemedyKind,
    /// The command, or the advice.
    text: String,
}

words! {
    /// What to do, and who does it.
    enum RemedyKind {
        /// `--fix` does it; the text is the equivalent command.
        Fix = "mend",
        /// A command to run.
        Command = "command",
        /// No single command does it.
        Advice = "advice",
    }
}

impl RemedyKind {
    fn of(remedy: &Remedy) -> Self {
        match remedy {
            Remedy::Fix(..) => Self::Fix,
            Remedy::Command(_) => Self::Command,
            Remedy::Advice(_) => Self::Advice,
        }
    }
}

/// Prints the findings; `fixed` says that `--fix` was given.
pub fn show(ctx: &Context, facts: &DoctorFacts, findings: &[Finding], fixed: bool) {
    let (ui, redactor) = (&ctx.ui, facts.redactor());
    let checks = checks::all().count();
    let reported = findings.iter().map(|finding| reported(finding, &redactor));
    ui.object(&DoctorReport {
        ok: doctor::is_healthy(findings),
        instance: &facts.instance,
        checks,
        findings: reported.collect(),
        unseen: &facts.unseen,
    });
    for level in Level::ALL {
        for finding in findings
            .iter()
            .filter(|finding| finding.check.level == *level)
        {
            lines(ctx, finding, &redactor, fixed);
        }
    }
    let label = ui.paint("not looked at:", Tone::Dim);
    for what in &facts.unseen {
        ui.say(label.clone().and(format!(" {what}")));
    }
    if !facts.unseen.is_empty() {
        // Root has seen all that can be seen.
        if facts.rights == Rights::User {
            let next = (facts.rights).as_root(&format!("gatewayctl doctor{}", facts.flags));
            ui.say(marked(ui, "next:", Tone::Strong, next));
        }
    }
    ui.say(summary(findings, checks));
}

fn reported<'a>(finding: &'a Finding, redactor: &Redactor) -> ReportedFinding<'a> {
    let problem = &finding.problem;
    ReportedFinding {
        code: finding.check.code,
        level: finding.check.level,
        message: redactor.text(&problem.message),
        detail: problem
            .detail
            .iter()
            .map(|line| redactor.text(line))
            .collect(),
        place: redactor.text(&problem.place),
        why: finding.check.why,
        remedy: ReportedRemedy {
            kind: RemedyKind::of(&problem.remedy),
            text: redactor.text(problem.remedy.text()),
        },
        mended: finding.is_fixed(),
        not_mended: match &finding.fix {
            FixState::Failed(why) => Some(why),
            FixState::Open | FixState::Fixed => None,
        },
    }
}

fn lines(ctx: &Context, finding: &Finding, redactor: &Redactor, fixed: bool) {
    let tone = match finding.check.level {
        _ if finding.is_fixed() => Tone::Good,
        Level::Error => Tone::Bad,
        Level::Warning => Tone::Busy,
        Level::Note => Tone::Dim,
    };
    let ui = &ctx.ui;
    let shown = |text: &str| redactor.text(text);
    let line = |label: &str, text: &str| ui.say(marked(ui, label, Tone::Dim, text));
    let (check, problem) = (finding.check, &finding.problem);
    let (level, code) = (
        ui.paint(check.level.word(), tone),
        ui.paint(check.code, Tone::Strong),
    );
    let title = format!(": {}", check.title);
    ui.say(level.and(" ").and(code).and(title));
    let place = shown(&problem.place);
    line("at", &format!("{place}: {}", shown(&problem.message)));
    for text in problem.detail.iter().take(DETAIL_MOST) {
        line("", &shown(text));
    }
    if problem.detail.len() > DETAIL_MOST {
        line("", &format!("+{} more", problem.detail.len() - DETAIL_MOST));
    }
    line("why", check.why);
    let remedy = shown(problem.remedy.text());
    let done = |text: &str| ui.say(marked(ui, "done", Tone::Dim, ui.paint(text, Tone::Good)));
    match (&problem.remedy, &finding.fix) {
        (Remedy::Fix(..), FixState::Fixed) => done(&remedy),
        (_, FixState::Fixed) => done("fixed"),
        (Remedy::Fix(..), _) if !fixed => {
            line("fix", &format!("gatewayctl doctor --fix   ({remedy})"))
        }
        _ => line("fix", &remedy),
    }
    if let FixState::Failed(why) = &finding.fix {
        line("", &format!("not fixed: {}", shown(why)));
    }
}

/// An indented line with a label in front.
fn marked(ui: &Ui, label: &str, tone: Tone, text: impl Into<StyledLine>) -> StyledLine {
    let label = ui.paint(&format!("{label:<LABEL$}"), tone);
    StyledLine::from("  ").and(label).and(" ").and(text)
}

fn summary(findings: &[Finding], checks: usize) -> String {
    let (fixed, open): (Vec<_>, Vec<_>) = findings.iter().partition(|one| one.is_fixed());
    let mut parts = Vec::new();
    for level in Level::ALL {
        let number = open.iter().filter(|one| one.check.level == *level).count() as u64;
        if number > 0 {
            parts.push(count(number, level.word()));
        }
    }
    if parts.is_empty() {
        parts.push("no findings".to_owned());
    }
    if !fixed.is_empty() {
        parts.push(format!("{} fixed", fixed.len()));
    }
    format!("{}: {}", parts.join(", "), count(checks as u64, "check"))
}
