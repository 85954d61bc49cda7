//! `gatewayctl install`.

use std::io::{BufRead, IsTerminal, Write};

use crate::cli::args::InstallArgs;
use crate::cli::{CliError, Context, Exit};
use crate::cli::{services, target};
use crate::config::Env;
use crate::service::unit_text::RunAs;
use crate::service::{self, InstallOutcome, InstallReport, InstallRequest};

/// Installs a gateway as a service.
///
/// # Errors
/// What [`service::install`] refuses or fails to do.
pub async fn install(ctx: &Context, args: &InstallArgs) -> Result<Exit, CliError> {
    let env = Env::real();
    let request = request(ctx, args, &env)?;
    let report = service::install(&env, &request, &|line| ctx.ui.progress(line), &ask).await?;
    show(ctx, &request, &report);
    ctx.ui.object(&report);
    Ok(Exit::Done)
}

/// Asks on the terminal; none where there is no terminal.
fn ask(what: &str) -> Option<bool> {
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return None;
    }
    write!(stderr, "{what}. Go on? [y/N] ")
        .and_then(|()| stderr.flush())
        .ok()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).ok()?;
    Some(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

fn request(ctx: &Context, args: &InstallArgs, env: &Env<'_>) -> Result<InstallRequest, CliError> {
    let global = &ctx.global;
    services::refuse_path(ctx, env)?;
    Ok(InstallRequest {
        instance: target::wanted_name(global, env),
        scope: target::scope(global),
        now: args.now,
        listen: args.server.listen.clone(),
        exclusive: args.server.exclusive,
        port: args.server.port,
        cwd: args.server.cwd.clone(),
        ready: args.server.ready.clone(),
        start_timeout: args.server.start_timeout,
        reload: args.server.reload.clone(),
        stdin: args.server.stdin,
        socket: args.socket,
        run_as: args.run_as.clone().map(RunAs::User),
        env_file: args.server.env_file.clone(),
        writable: args.writable.clone(),
        set: args.set.clone(),
        sandbox: args.sandbox,
        unset: args.unset.clone(),
        supervisor: args.supervisor.unwrap_or_default(),
        yes: args.yes,
        dry_run: args.dry_run,
        diff: args.diff,
        overwrite: args.overwrite,
        command: args.server.command.clone(),
    })
}

fn show(ctx: &Context, request: &InstallRequest, report: &InstallReport) {
    let ui = &ctx.ui;
    for file in &report.files {
        if request.diff {
            ui.say_all("", file.text.trim_end().lines());
        } else {
            ui.say(format!("{}:", file.path.display()));
            ui.say_all("    ", file.text.lines());
        }
    }
    if request.diff {
        return;
    }
    if request.dry_run {
        ui.say("would:");
        ui.say_all("  ", &report.actions);
        ui.say_all("note: ", &report.notes);
        return;
    }
    let (unit, listen) = (&report.service.unit, report.listen.join(", "));
    ui.say(match (report.outcome, report.ready) {
        (InstallOutcome::AlreadyInstalled, true) => {
            format!("{unit} is already installed, and runs on {listen}")
        }
        (InstallOutcome::AlreadyInstalled, false) => format!("{unit} is already installed"),
        (outcome, true) if request.now => format!("{unit} is {outcome} and ready on {listen}"),
        (outcome, _) => format!("{unit} is {outcome}"),
    });
    ui.say_all("note: ", &report.notes);
    if !report.ready {
        let instance = &report.service.instance;
        ui.say(format!("start:  gatewayctl start --instance {instance}"));
    }
    ui.say(format!("log:    {}", report.journal));
}
