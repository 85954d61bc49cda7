//! `gatewayctl doctor`: every known misconfiguration, each with its cure.
//!
//! [`gather()`] collects the facts once. Each check is a pure function of them; the table of
//! [`checks`] is also the manual ([`manual`]). [`fix`] performs what is safe. Then the caller gathers
//! and judges again, and [`update`] marks what is gone as fixed.

pub mod checks;
mod facts;
mod finding;
pub mod fix;
mod gather;
pub mod manual;
#[cfg(test)]
mod tests;
mod unit_facts;

pub use self::facts::{DoctorFacts, SilentGateway};
pub use self::finding::{Finding, FixState, Level, Remedy};
pub use self::gather::{DoctorTarget, ReadByHand, gather};

/// Every finding, the worst first.
pub fn judge(facts: &DoctorFacts) -> Vec<Finding> {
    let look = |check| {
        let check: &'static finding::Check = check;
        (check.judge)(facts).map(|problem| Finding {
            check,
            problem,
            fix: FixState::Open,
        })
    };
    let mut findings: Vec<Finding> = checks::all().filter_map(look).collect();
    findings.sort_by_key(|finding| finding.check.level);
    findings
}

/// Compares the findings before a fix with those after it: marks what is gone as fixed, and adds
/// what is new.
pub fn update(findings: &mut Vec<Finding>, now: Vec<Finding>) {
    for finding in findings.iter_mut() {
        let is_there = now.iter().any(|other| other.is_same(finding));
        let fixable = matches!(finding.problem.remedy, Remedy::Fix(..));
        finding.fix = match &finding.fix {
            // A finding without a fix of its own can disappear with the fix of another one.
            _ if !is_there => FixState::Fixed,
            FixState::Fixed => FixState::Failed("the problem came back".to_owned()),
            FixState::Open if fixable => FixState::Failed("the fix changed nothing".to_owned()),
            unchanged => unchanged.clone(),
        };
    }
    let new: Vec<Finding> = now
        .into_iter()
        .filter(|one| !findings.iter().any(|known| known.is_same(one)))
        .collect();
    findings.extend(new);
    findings.sort_by_key(|finding| finding.check.level);
}

/// Whether no error and no warning is left.
pub fn is_healthy(findings: &[Finding]) -> bool {
    findings
        .iter()
        .all(|finding| finding.is_fixed() || finding.check.level == Level::Note)
}
