//! Rounds of faults under load, until the time is up.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::clients::Clients;
use super::judge::{self, Settled};
use super::scene::Scene;
use super::schedule::{self, Act, Sudden};
use crate::support::load::{Load, Running};
use crate::support::report::Part;
use crate::support::servers;
use crate::support::site::{FRONT, prepared};
use crate::support::wait;

/// How long a slow download takes: several are under way in every round.
const DOWNLOAD_TAKES: Duration = Duration::from_secs(2);

/// What all rounds together gave.
#[derive(Debug, Default)]
pub struct Verdict {
    pub seed: u64,
    pub rounds: u64,
    pub length: Duration,
    /// How often each fault was done.
    pub faults: BTreeMap<String, u64>,
    pub answered: u64,
    /// Lost with a process that was killed.
    pub cut: u64,
    pub slowest: Duration,
    /// The gateway at the end of each round.
    pub settled: Vec<Settled>,
    /// Each is a fault of the gateway.
    pub wrong: Vec<String>,
}

/// Which rounds are run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    /// The number of the first round.
    pub first: u64,
    /// After the first round, no other begins later than this.
    pub length: Duration,
}

/// Runs the rounds of a plan; none where no systemd can be booted. A round that goes wrong is the
/// last one.
pub fn run(plan: Plan, say: impl Fn(&str)) -> Option<Verdict> {
    let systemd = prepared("chaos")?;
    let mut scene = Scene::set(&systemd);
    let (clients, load) = systemd.in_netns(|| (Clients::start(), others().start()));
    load.flows(Part::New, 1);
    let mut verdict = Verdict {
        seed: plan.seed,
        ..Verdict::default()
    };
    let began = Instant::now();
    for number in plan.first.. {
        say(&format!("round {number}"));
        round(&mut scene, number, &clients, &mut verdict, &say);
        verdict.wrong.extend(garbage(&load));
        if !verdict.wrong.is_empty() {
            say(&scene.site.journal());
        }
        if began.elapsed() >= plan.length || !verdict.wrong.is_empty() {
            break;
        }
    }
    verdict.length = began.elapsed();
    verdict.wrong.extend(judge::flat(&verdict.settled).err());
    drop(load);
    clients.stop();
    Some(verdict)
}

/// Kept connections, downloads and WebSockets: what a kill cuts of them is no fault, but no byte of
/// them may be wrong.
fn others() -> Load {
    Load {
        path: "/pid".into(),
        new_per_second: 5.0,
        kept: 6,
        ends_announced: true,
        downloads: 2,
        download: Some(servers::node_download(1_000_000, DOWNLOAD_TAKES)),
        websockets: 2,
        patience: Duration::from_secs(60),
        ..Load::on(FRONT)
    }
}

fn garbage(load: &Running) -> Option<String> {
    let report = load.so_far();
    let wrong = ["refused", "garbage", "wrong", "timeout"].map(|kind| report.failures_of(kind));
    (wrong.iter().sum::<u64>() > 0).then(|| format!("the other clients: {report}"))
}

fn round(
    scene: &mut Scene<'_>,
    number: u64,
    clients: &Clients,
    verdict: &mut Verdict,
    say: impl Fn(&str),
) {
    let began = Instant::now();
    scene.begin_round();
    for step in schedule::round(verdict.seed, number) {
        if let Some(early) = step.at.checked_sub(began.elapsed()) {
            wait::pause(early);
        }
        say(&format!("  {step}"));
        if !matches!(step.act, Act::End(_)) {
            *verdict.faults.entry(name(step.act)).or_default() += 1;
        }
        scene.perform(step.act);
    }
    let commands = scene.commands_ended();
    for (words, output) in &commands {
        say(&format!("  `{words}`: {}", output.status));
    }
    match judge::settle(scene) {
        Ok(settled) => verdict.settled.push(settled),
        Err(wrong) => verdict.wrong.push(wrong),
    }
    let seen = clients.take();
    let unexplained = judge::unexplained(&seen, &scene.cuts);
    verdict.cut += (seen.lost.len() - unexplained.len()) as u64;
    for loss in unexplained {
        verdict.wrong.push(format!(
            "a client lost its answer without a cause, asked {:.2} s and known {:.2} s after the round began: {}",
            (loss.asked - began).as_secs_f64(),
            (loss.known - began).as_secs_f64(),
            loss.how
        ));
    }
    if verdict.wrong.is_empty() {
        verdict.wrong.extend(judge::record(scene, &commands));
    }
    verdict.answered += seen.answered;
    verdict.slowest = verdict.slowest.max(seen.slowest);
    verdict.rounds += 1;
}

/// The fault without its size.
fn name(act: Act) -> String {
    match act {
        Act::Do(Sudden::Clock { .. }) => "clock jump".to_owned(),
        Act::Begin(lasting) | Act::End(lasting) => format!("{lasting:?}"),
        Act::Do(_) => act.to_string(),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count: u64 = self.faults.values().sum();
        writeln!(
            f,
            "seed {}: {} rounds, {count} faults in {} s",
            self.seed,
            self.rounds,
            self.length.as_secs()
        )?;
        for (fault, count) in &self.faults {
            writeln!(f, "  {count:5}  {fault}")?;
        }
        writeln!(
            f,
            "{} answers, the slowest after {:.1} s; {} cut by kill -9 or --force; 0 refused",
            self.answered,
            self.slowest.as_secs_f64(),
            self.cut
        )?;
        let span = |values: Vec<u64>| {
            let (least, most) = (values.iter().min(), values.iter().max());
            format!("{} to {}", least.unwrap_or(&0), most.unwrap_or(&0))
        };
        let memory = self.settled.iter().map(|one| one.memory_kib).collect();
        let descriptors = self.settled.iter().map(|one| one.descriptors as u64);
        writeln!(f, "memory at rest {} KiB", span(memory))?;
        writeln!(f, "descriptors at rest {}", span(descriptors.collect()))?;
        for wrong in &self.wrong {
            writeln!(f, "WRONG: {wrong}")?;
        }
        Ok(())
    }
}
