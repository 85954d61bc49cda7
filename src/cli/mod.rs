//! The commands, one file each, and what they share.

pub mod args;
mod asked;
mod by_manager;
mod change;
pub mod clean;
pub mod config;
pub mod doctor;
#[cfg(test)]
mod double;
pub mod exit;
pub mod halt;
pub mod inhibit;
pub mod install;
mod installed;
pub mod list;
pub mod logs;
pub mod pages;
mod preflight;
pub mod probe;
pub mod recover;
pub mod restart;
pub mod start;
pub mod status;
pub mod stop;
pub mod target;
pub mod ui;
pub mod uninstall;
pub mod update;
pub mod wait;
mod watch;

pub use exit::Exit;
pub use ui::{CliError, Ui};

use args::{CtlCli, CtlCommand, Global};

/// What every command gets.
#[derive(Clone, Debug)]
pub struct Context {
    /// Flags of every command.
    pub global: Global,
    /// Where it prints.
    pub ui: Ui,
}

/// Runs a gatewayctl command to its end, errors printed.
pub fn gatewayctl(cli: &CtlCli) -> Exit {
    let ctx = Context { global: cli.global.clone(), ui: Ui::new(&cli.global) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(&ctx, &cli.command)),
        Err(error) => Err(CliError::new(Exit::Failed, format!("cannot start: {error}"))),
    };
    result.unwrap_or_else(|error| {
        ctx.ui.error(&error);
        error.exit
    })
}

async fn run(ctx: &Context, command: &CtlCommand) -> Result<Exit, CliError> {
    match command {
        CtlCommand::Install(args) => install::install(ctx, args).await,
        CtlCommand::Uninstall(args) => uninstall::uninstall(ctx, args).await,
        CtlCommand::Start(_) => start::start(ctx).await,
        CtlCommand::Stop(_) => stop::stop(ctx).await,
        CtlCommand::Restart(args) => restart::restart(ctx, args).await,
        CtlCommand::Reload => restart::reload(ctx).await,
        CtlCommand::Status => status::status(ctx).await,
        CtlCommand::List => list::list(ctx).await,
        CtlCommand::Clean(args) => clean::clean(ctx, args).await,
        CtlCommand::Recover => recover::recover(ctx).await,
        CtlCommand::Update(args) => update::update(ctx, args).await,
        CtlCommand::Doctor(args) => doctor::doctor(ctx, args).await,
        CtlCommand::Inhibit(args) => inhibit::inhibit(ctx, args).await,
        CtlCommand::Wait(args) => wait::wait(ctx, args).await,
        CtlCommand::Logs(args) => logs::logs(ctx, args).await,
        CtlCommand::Config(command) => config::config(ctx, command),
        CtlCommand::Completions(args) => Ok(pages::completions(ctx, args)),
        CtlCommand::Man(args) => pages::man(ctx, args),
    }
}
