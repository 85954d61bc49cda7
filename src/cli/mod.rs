//! The commands, one file each, and what they share.

mod addresses;
mod announced_restart;
mod answering_gateway;
mod answers;
pub mod args;
mod as_invoker;
pub mod commands;
mod downtime_probe;
mod error;
mod findings_view;
mod interrupt;
mod known_gateway;
mod listeners_meanwhile;
mod log_tail;
mod pages;
mod patience;
mod preflight;
mod process_start;
mod restart_over_control;
mod restart_report;
mod restart_via_manager;
mod schema;
mod services;
mod stale_gateways;
mod styled_line;
mod synopsis;
pub mod target;
pub mod ui;
mod unapplied;

pub use error::{CliError, Exit};
pub use ui::{Context, Ui};

use answers::ErrorAnswer;
use args::{CtlCli, CtlCommand, Global};

use crate::config::{self, Env};
use crate::service;

/// Runs a gatewayctl command to its end, errors printed.
pub fn gatewayctl(cli: &CtlCli) -> Exit {
    let ctx = Context::new(cli.global.clone());
    for ignored in config::ignored_environment() {
        ctx.ui.progress(&ignored);
    }
    if let Err(error) = as_invoker::become_invoker(&ctx.global) {
        ctx.ui.error(&error);
        return error.exit;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match run(&ctx, &cli.command).await {
                Err(error) => Err(commands::list::with_choices(&ctx, error).await),
                done => done,
            }
        }),
        Err(error) => Err(Exit::Failed.error(format!("cannot start: {error}"))),
    };
    result.unwrap_or_else(|error| {
        ctx.ui.error(&error);
        error.exit
    })
}

/// Prints what is wrong with a command line, or the help that was asked for; with `--json` an error
/// is the one object, too.
pub fn unusable(error: &clap::Error) -> Exit {
    // The terminal may be gone.
    let _ = error.print();
    if !error.use_stderr() {
        return Exit::Done;
    }
    let mut flags = std::env::args_os().take_while(|word| word != "--");
    let global = Global {
        json: flags.any(|word| word == "--json"),
        ..Global::default()
    };
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let help = args::meant(error).map(|meant| format!("did you mean {meant}?"));
    let error = Exit::Usage
        .error(line)
        .with_help(help.unwrap_or_else(|| "gatewayctl --help".to_owned()));
    Ui::new(&global).object(&ErrorAnswer::new(&error, line));
    Exit::Usage
}

async fn run(ctx: &Context, command: &CtlCommand) -> Result<Exit, CliError> {
    service::resume(&Env::real(), &|line| ctx.ui.progress(line)).await;
    match command {
        CtlCommand::Install(args) => commands::install::install(ctx, args).await,
        CtlCommand::Uninstall(args) => commands::uninstall::uninstall(ctx, args).await,
        CtlCommand::Start => commands::start::start(ctx).await,
        CtlCommand::Stop => commands::stop::stop(ctx).await,
        CtlCommand::Restart(args) => commands::restart::restart(ctx, args).await,
        CtlCommand::Reload => commands::restart::reload(ctx).await,
        CtlCommand::Sidecars(args) => commands::sidecars::sidecars(ctx, args).await,
        CtlCommand::Status(args) if args.watch => commands::status::watch::watch(ctx, args).await,
        CtlCommand::Status(args) => commands::status::status(ctx, args).await,
        CtlCommand::Why => commands::why::why(ctx).await,
        CtlCommand::History(args) => commands::history::history(ctx, args).await,
        CtlCommand::List(args) if args.names => Ok(commands::list::names(ctx)),
        CtlCommand::List(_) => commands::list::list(ctx).await,
        CtlCommand::Clean(args) => commands::clean::clean(ctx, args).await,
        CtlCommand::Recover => commands::recover::recover(ctx).await,
        CtlCommand::Update(args) => commands::update::update(ctx, args).await,
        CtlCommand::Doctor(args) => commands::doctor::doctor(ctx, args).await,
        CtlCommand::Inhibit(args) => commands::inhibit::inhibit(ctx, args).await,
        CtlCommand::Events(args) => commands::events::events(ctx, args).await,
        CtlCommand::Wait(args) => commands::wait::wait(ctx, args).await,
        CtlCommand::Logs(args) => commands::logs::logs(ctx, args).await,
        CtlCommand::Config(command) => commands::config::config(ctx, command).await,
        CtlCommand::Bench(command) => commands::bench::bench(ctx, command).await,
        CtlCommand::Demo(args) => commands::demo::demo(ctx, args).await,
        CtlCommand::Presets => Ok(commands::presets::presets(ctx)),
        CtlCommand::Completions(args) => Ok(commands::completions::completions(ctx, args)),
        CtlCommand::Man(args) => commands::man::man(ctx, args),
    }
}
