//! `gatewayctl doctor`: every known misconfiguration, each with its cure.
//!
//! Facts are gathered once ([`facts`]); each check is a pure function of them ([`checks`]); the
//! table of checks is the manual, too ([`page`]). `--fix` does what is safe ([`mend`]), then looks
//! again: only what is gone counts as mended.

mod checks;
mod facts;
mod finding;
mod gather;
mod mend;
pub mod page;
mod show;
#[cfg(test)]
mod tests;

use self::facts::Facts;
use self::finding::{Check, Level, Remedy, Seen};
pub use self::show::Answer;
use crate::cli::args::DoctorArgs;
use crate::cli::{CliError, Context, Exit};

/// So often is mended and looked again: one cure can show the next finding, as when a unit is read
/// anew.
const ROUNDS: usize = 3;

/// A check and what it found.
#[derive(Clone)]
struct Finding {
    check: &'static Check,
    seen: Seen,
    /// Whether `--fix` mended it.
    mended: bool,
    /// Why `--fix` did not.
    failed: Option<String>,
}

/// Looks, mends with `--fix`, and shows.
///
/// # Errors
/// [`Exit::NotRunning`] when it is not installed and does not run; [`Exit::Usage`] when several may
/// be meant.
pub async fn doctor(ctx: &Context, args: &DoctorArgs) -> Result<Exit, CliError> {
    let mut facts = gather::facts(ctx).await?;
    let mut findings = judge(&facts);
    if args.fix {
        for _ in 0..ROUNDS {
            if !mend_all(ctx, &facts, &mut findings).await {
                break;
            }
            facts = gather::facts(ctx).await?;
            compare(&mut findings, judge(&facts));
        }
    }
    show::show(ctx, &facts, &findings, args.fix);
    Ok(exit(&findings))
}

/// Every finding, the worst first.
fn judge(facts: &Facts) -> Vec<Finding> {
    let look = |check: &'static Check| {
        (check.judge)(facts).map(|seen| Finding {
            check,
            seen,
            mended: false,
            failed: None,
        })
    };
    let mut findings: Vec<Finding> = checks::all().filter_map(look).collect();
    findings.sort_by_key(|finding| finding.check.level);
    findings
}

/// Mends what can be mended and was not tried yet. Whether anything was tried.
async fn mend_all(ctx: &Context, facts: &Facts, findings: &mut [Finding]) -> bool {
    let mut tried = false;
    for finding in findings
        .iter_mut()
        .filter(|finding| !finding.mended && finding.failed.is_none())
    {
        let Remedy::Mend(mend, text) = &finding.seen.remedy else {
            continue;
        };
        ctx.ui.progress(&format!("{}: {text}", finding.check.code));
        tried = true;
        if let Err(why) = mend::mend(ctx, facts, mend).await {
            finding.failed = Some(why);
        }
    }
    tried
}

/// Looks whether what was tried is gone, and adds what has come to light.
fn compare(findings: &mut Vec<Finding>, now: Vec<Finding>) {
    for finding in findings.iter_mut() {
        let is_mend = matches!(finding.seen.remedy, Remedy::Mend(..));
        let still = now.iter().any(|other| {
            other.check.code == finding.check.code && other.seen.place == finding.seen.place
        });
        match (is_mend, still) {
            (true, true) if !finding.mended => {
                finding
                    .failed
                    .get_or_insert_with(|| "it was tried, and nothing changed".to_owned());
            }
            (_, true) if finding.mended => {
                (finding.mended, finding.failed) = (false, Some("it came back".to_owned()))
            }
            // What no cure of ours was for can go with another one's.
            (_, false) => (finding.mended, finding.failed) = (true, None),
            _ => {}
        }
    }
    let known = |one: &Finding| {
        findings
            .iter()
            .any(|known| known.check.code == one.check.code && known.seen.place == one.seen.place)
    };
    let new: Vec<Finding> = now.into_iter().filter(|one| !known(one)).collect();
    findings.extend(new);
    findings.sort_by_key(|finding| finding.check.level);
}

/// 0 when nothing that matters is left.
fn exit(findings: &[Finding]) -> Exit {
    let matters = |finding: &&Finding| !finding.mended && finding.check.level != Level::Note;
    if findings.iter().any(|finding| matters(&finding)) {
        Exit::Failed
    } else {
        Exit::Done
    }
}
