//! The commands, one file each, and what they share.

pub mod args;
mod asked;
mod by_manager;
mod change;
pub mod clean;
pub mod config;
mod deep;
pub mod doctor;
#[cfg(test)]
mod double;
pub mod exit;
pub mod halt;
pub mod history;
pub mod inhibit;
pub mod install;
mod installed;
pub mod list;
mod live;
pub mod logs;
pub mod pages;
mod preflight;
pub mod probe;
pub mod recover;
pub mod restart;
pub mod shapes;
pub mod start;
pub mod status;
pub mod stop;
pub mod subject;
pub mod target;
pub mod ui;
pub mod uninstall;
pub mod update;
pub mod wait;
mod watch;
pub mod why;

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
    let ctx = Context {
        global: cli.global.clone(),
        ui: Ui::new(&cli.global),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(&ctx, &cli.command)),
        Err(error) => Err(CliError::new(
            Exit::Failed,
            format!("cannot start: {error}"),
        )),
    };
    result.unwrap_or_else(|error| {
        ctx.ui.error(&error);
        error.exit
    })
}

/// Prints what is wrong with a command line, or the help that was asked for; with `--json` an error
/// is the one object, too.
pub fn unusable(error: &clap::Error) -> Exit {
    // Nobody is left to tell when the terminal is gone, too.
    let _ = error.print();
    let json = std::env::args_os()
        .take_while(|word| word != "--")
        .any(|word| word == "--json");
    if error.use_stderr() && json {
        let global = Global {
            json: true,
            ..Global::default()
        };
        Ui::new(&global).object(&shapes::usage(&error.render().to_string()));
    }
    if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Done
    }
}

async fn run(ctx: &Context, command: &CtlCommand) -> Result<Exit, CliError> {
    match command {
        CtlCommand::Install(args) => install::install(ctx, args).await,
        CtlCommand::Uninstall(args) => uninstall::uninstall(ctx, args).await,
        CtlCommand::Start(_) => start::start(ctx).await,
        CtlCommand::Stop(_) => stop::stop(ctx).await,
        CtlCommand::Restart(args) => restart::restart(ctx, args).await,
        CtlCommand::Reload => restart::reload(ctx).await,
        CtlCommand::Status(args) => status::status(ctx, args).await,
        CtlCommand::Why => why::why(ctx).await,
        CtlCommand::History(args) => history::history(ctx, args).await,
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
