//! `gatewayctl bench restart`.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::report;
use crate::bench::case::BenchCase;
use crate::bench::gateway_process::GatewayProcess;
use crate::bench::iteration::BenchLimits;
use crate::bench::payload::{CaseResult, RestartBenchAnswer};
use crate::bench::sample::{BenchPlan, measure};
use crate::cli::args::BenchRestartArgs;
use crate::cli::interrupt::{Interrupts, interrupted};
use crate::cli::{CliError, Context, Exit};
use crate::os::program_run::{self, PROOF};
use crate::state::atomic_file;

/// Restarts gateways of its own and measures.
///
/// # Errors
/// What fails before anything is measured; [`Exit::Failed`] when the answer cannot be written.
pub async fn restart(ctx: &Context, args: &BenchRestartArgs) -> Result<Exit, CliError> {
    let cases = cases(&args.case)?;
    let failed = |error: std::io::Error| Exit::Failed.error(format!("cannot begin: {error}"));
    let own = std::env::current_exe().map_err(failed)?;
    let gateway = own.with_file_name("gateway");
    let version = version(&gateway).await?;
    let plan = BenchPlan {
        gateway: &gateway,
        own: &own,
        restarts: args.restarts as usize,
        limits: BenchLimits {
            timeout: Duration::from_millis(args.timeout_ms.into()),
            post_ready_delay: Duration::from_millis(args.post_ready_delay_ms.into()),
        },
    };
    let mut interrupts = Interrupts::hear()?;
    let mut running = None;
    let results = tokio::select! {
        results = all(ctx, args, &plan, &cases, &mut running) => Some(results),
        () = interrupts.heard() => None,
    };
    let Some(results) = results else {
        if let Some(gateway) = running.take() {
            gateway.stop().await;
        }
        return Err(interrupted("the gateway under measure"));
    };
    let results = results?;
    let answer = RestartBenchAnswer {
        ok: results
            .iter()
            .all(|case| case.summary.first_failure_code.is_none()),
        entry: gateway.to_string_lossy().into_owned(),
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

async fn all(
    ctx: &Context,
    args: &BenchRestartArgs,
    plan: &BenchPlan<'_>,
    cases: &[BenchCase],
    running: &mut Option<GatewayProcess>,
) -> Result<Vec<CaseResult>, CliError> {
    let mut results = Vec::new();
    for case in cases {
        let mut samples = Vec::new();
        for run in 0..args.warmup + args.runs {
            let name = match run.checked_sub(args.warmup) {
                None => format!("{} warm-up {}/{}", case.id(), run + 1, args.warmup),
                Some(run) => format!("{} run {}/{}", case.id(), run + 1, args.runs),
            };
            ctx.ui.progress(&format!("{name} …"));
            let told = |iteration: &_| {
                let line = report::iteration(iteration, plan.restarts);
                ctx.ui.progress(&format!("{name}: {line}"));
            };
            let sample = measure(plan, *case, running, told).await;
            let sample = sample.map_err(|error| {
                Exit::Failed.error(format!("{name}: the gateway cannot be started: {error}"))
            })?;
            if run >= args.warmup {
                samples.push(sample);
            }
        }
        results.push(CaseResult::new(*case, samples));
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
