//! `gatewayctl install`.

use std::io::{BufRead, IsTerminal, Write};

use crate::cli::args::InstallArgs;
use crate::cli::target;
use crate::cli::{CliError, Context, Exit};
use crate::config::Env;
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

/// Asks on the terminal; nobody where there is none.
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
    if global.config.is_some() || global.state_dir.is_some() {
        let error = Exit::Usage
            .error("an installed gateway has its files where the service manager expects them");
        return Err(error.with_help("put the configuration into /etc/gateway or ~/.config/gateway, and leave --config and --state-dir out"));
    }
    let set = args.set.iter().map(|pair| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Exit::Usage.error("--set takes a name and a value, as in --set COLOR=blue")),
    });
    Ok(InstallRequest {
        instance: target::wanted_name(global, env),
        scope: target::scope(global),
        now: args.now,
        listen: args.server.listen.clone(),
        exclusive: args.server.exclusive,
        port: args.server.port,
        ready: args.server.ready.clone(),
        socket: args.socket,
        run_as: args.run_as.clone(),
        env_file: args.env_file.clone(),
        set: set.collect::<Result<_, _>>()?,
        sandbox: args.sandbox,
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
            ui.say(file.text.trim_end());
        } else {
            ui.say(&format!("{}:", file.path.display()));
            file.text
                .lines()
                .for_each(|line| ui.say(&format!("    {line}")));
        }
    }
    if request.diff {
        return;
    }
    if request.dry_run {
        ui.say("would:");
        report
            .actions
            .iter()
            .for_each(|action| ui.say(&format!("  {action}")));
        report
            .notes
            .iter()
            .for_each(|note| ui.say(&format!("note: {note}")));
        return;
    }
    let listen = report.listen.join(", ");
    ui.say(&match (report.outcome, report.ready) {
        (InstallOutcome::AlreadyInstalled, true) => {
            format!(
                "{} is already installed, and runs on {listen}",
                report.service.unit
            )
        }
        (InstallOutcome::AlreadyInstalled, false) => {
            format!("{} is already installed", report.service.unit)
        }
        (outcome, true) if request.now => {
            format!("{} is {outcome} and ready on {listen}", report.service.unit)
        }
        (outcome, _) => format!("{} is {outcome}", report.service.unit),
    });
    report
        .notes
        .iter()
        .for_each(|note| ui.say(&format!("note: {note}")));
    if !report.ready {
        ui.say(&format!(
            "start:  gatewayctl start --instance {}",
            report.service.instance
        ));
    }
    ui.say(&format!("log:    {}", report.journal));
}
