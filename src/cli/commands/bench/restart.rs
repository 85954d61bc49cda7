//! `gatewayctl bench restart`.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::report;
use crate::bench::case::BenchCase;
use crate::bench::iteration::BenchLimits;
use crate::bench::measured::MeasuredServer;
use crate::bench::payload::{CaseResult, RestartBenchAnswer};
use crate::bench::sample::{BenchPlan, measure};
use crate::bench::subject::Subject;
use crate::bench::target::BenchTarget;
use crate::cli::args::BenchRestartArgs;
use crate::cli::interrupt::{Interrupts, interrupted};
use crate::cli::{CliError, Context, Exit};
use crate::config::Listen;
use crate::os::port;
use crate::os::program_run::{self, PROOF};
use crate::state::atomic_file;

/// The load on a server that is no gateway, unless another is asked for: enough to see a gap of 5 ms.
const TARGET_RATE: u32 = 200;

/// Restarts gateways of its own, or another server, and measures.
///
/// # Errors
/// What fails before anything is measured; [`Exit::Failed`] when the answer cannot be written.
pub async fn restart(ctx: &Context, args: &BenchRestartArgs) -> Result<Exit, CliError> {
    let target = target(args)?;
    let cases = cases(&args.case)?;
    let failed = |error: std::io::Error| Exit::Failed.error(format!("cannot begin: {error}"));
    let own = std::env::current_exe().map_err(failed)?;
    let gateway = own.with_file_name("gateway");
    let (entry, version, subjects) = match &target {
        Some(target) => {
            let entry = target.command.clone();
            (entry, None, vec![Subject::Target(target)])
        }
        None => {
            let version = version(&gateway).await?;
            let (gateway, own) = (gateway.as_path(), own.as_path());
            let subjects = cases
                .into_iter()
                .map(|case| Subject::Gateway { case, gateway, own });
            (
                gateway.to_string_lossy().into_owned(),
                Some(version),
                subjects.collect(),
            )
        }
    };
    let mut interrupts = Interrupts::hear()?;
    let mut running = None;
    let results = tokio::select! {
        results = all(ctx, args, &subjects, &mut running) => Some(results),
        () = interrupts.heard() => None,
    };
    let Some(results) = results else {
        if let Some(gateway) = running.take() {
            gateway.stop().await;
        }
        return Err(interrupted("the server under measure"));
    };
    let results = results?;
    let answer = RestartBenchAnswer {
        ok: results
            .iter()
            .all(|case| case.summary.first_failure_code.is_none()),
        entry,
        version,
        generated_at: Timestamp::now().to_string(),
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        results,
    };
    answer
        .results
        .iter()
        .for_each(|case| report::case(&ctx.ui, case));
    ctx.ui.object(&answer);
    if let Some(file) = &args.output {
        write(file, &answer)?;
        ctx.ui.progress(&format!("wrote {}", file.display()));
    }
    Ok(match answer.ok || args.allow_failures {
        true => Exit::Done,
        false => Exit::Failed,
    })
}

/// The cases that are asked for, each once.
fn cases(asked: &[BenchCase]) -> Result<Vec<BenchCase>, CliError> {
    let mut cases = Vec::new();
    for case in asked {
        if cases.contains(case) {
            let error = Exit::Usage.error(format!("--case {} is given twice", case.id()));
            return Err(error.with_help("--runs N measures a case more than once"));
        }
        cases.push(*case);
    }
    if cases.is_empty() {
        cases.push(BenchCase::Plain);
    }
    Ok(cases)
}

/// What the gateway says that it is: whether it runs at all is known before anything is measured.
async fn version(gateway: &Path) -> Result<String, CliError> {
    let mut command = std::process::Command::new(gateway);
    command.arg("--version");
    let why = match program_run::run(command, PROOF).await {
        Ok(output) => match output.good() {
            Some(version) => return Ok(version.trim().to_owned()),
            None => output.ended(),
        },
        Err(error) => program_run::explain(&error),
    };
    let error = Exit::Failed.error(format!("cannot run {}: {why}", gateway.display()));
    Err(error.with_help("gateway and gatewayctl stand in one directory: install them again"))
}

/// The server that is measured in the place of a gateway.
fn target(args: &BenchRestartArgs) -> Result<Option<BenchTarget>, CliError> {
    let (Some(command), Some(port), Some(trigger), Some(ready)) =
        (&args.target, args.port, &args.trigger, &args.ready)
    else {
        return Ok(None);
    };
    let listen = Listen::Tcp(([127, 0, 0, 1], port).into());
    match port::can_be_had(&listen) {
        Ok(true) => Ok(Some(BenchTarget {
            command: command.clone(),
            port,
            trigger: trigger.clone(),
            ready: ready.clone(),
        })),
        // What is measured would be another server.
        Ok(false) => {
            let error = Exit::Refused.error(format!("another program listens on {listen}"));
            Err(error.with_help(format!(
                "gatewayctl clean --port {port} --dry-run   (says which)"
            )))
        }
        Err(error) => Err(Exit::Failed.error(format!("{listen} cannot be had: {error}"))),
    }
}

fn plan<'a>(args: &BenchRestartArgs, subject: Subject<'a>) -> BenchPlan<'a> {
    let per_second = args.rate.unwrap_or(match subject.speaks() {
        true => 0,
        false => TARGET_RATE,
    });
    BenchPlan {
        subject,
        restarts: args.restarts as usize,
        limits: BenchLimits {
            timeout: Duration::from_millis(args.timeout_ms.into()),
            post_ready_delay: Duration::from_millis(args.post_ready_delay_ms.into()),
        },
        per_second,
        kept: args.kept,
    }
}

async fn all(
    ctx: &Context,
    args: &BenchRestartArgs,
    subjects: &[Subject<'_>],
    running: &mut Option<MeasuredServer>,
) -> Result<Vec<CaseResult>, CliError> {
    let mut results = Vec::new();
    for subject in subjects {
        let plan = plan(args, *subject);
        let mut samples = Vec::new();
        for run in 0..args.warmup + args.runs {
            let name = match run.checked_sub(args.warmup) {
                None => format!("{} warm-up {}/{}", subject.id(), run + 1, args.warmup),
                Some(run) => format!("{} run {}/{}", subject.id(), run + 1, args.runs),
            };
            ctx.ui.progress(&format!("{name} …"));
            let told = |iteration: &_| {
                let line = report::iteration(iteration, plan.restarts);
                ctx.ui.progress(&format!("{name}: {line}"));
            };
            let sample = measure(&plan, running, told).await;
            let sample = sample.map_err(|error| {
                Exit::Failed.error(format!("{name}: it cannot be started: {error}"))
            })?;
            if run >= args.warmup {
                samples.push(sample);
            }
        }
        results.push(CaseResult::new(subject, samples));
    }
    Ok(results)
}

fn write(file: &Path, answer: &RestartBenchAnswer) -> Result<(), CliError> {
    let written = serde_json::to_vec_pretty(answer).map_err(std::io::Error::from);
    let written = written.and_then(|mut text| {
        text.push(b'\n');
        atomic_file::write(file, &text, 0o644)
    });
    let failed = |error| Exit::Failed.error(format!("cannot write {}: {error}", file.display()));
    written.map_err(failed)
}
