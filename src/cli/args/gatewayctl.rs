//! The command line of `gatewayctl`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use super::bench::BenchCommand;
use super::inspect::{
    CleanArgs, DoctorArgs, EventsArgs, HistoryArgs, ListArgs, LogsArgs, StatusArgs, WaitArgs,
};
use super::restart::{InhibitArgs, RestartArgs, SidecarRestartArgs, UpdateArgs};
use super::service::{InstallArgs, UninstallArgs};
use crate::config::Dur;

const EXIT_CODES_AND_EXAMPLES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not running or not installed, 4 still starting or
draining when the limit ended, 5 refused for safety, 77 permission, 78 configuration invalid.

Examples:
  gatewayctl install --now -- node server.js --port {port}
      Install and start it as a service; it comes back after crashes and reboots.
  gatewayctl restart
      Restart without losing a request, and say what clients saw.
  gatewayctl why
      Say why it ended, was restarted, or does not serve.
  gatewayctl logs -f
      Follow the output of the gateway and the programs behind it.";

/// Install, restart and explain a gateway
///
/// gatewayctl speaks to a running gateway over its control socket, and to the service manager about
/// an installed one. Without --instance it acts on the only gateway; with several it lists them and
/// exits 2. Where none runs, why, history, logs and clean are about the only one that has ended.
///
/// --state-dir and --config, like $GATEWAY_STATE_DIR and $GATEWAY_CONFIG, name a gateway by its files:
/// then no command means an installed one, and install, uninstall and start exit 2.
#[derive(Debug, Parser)]
#[command(name = "gatewayctl", version, after_help = EXIT_CODES_AND_EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct CtlCli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// Flags of every `gatewayctl` command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Gateway name
    #[arg(long, visible_alias = "name", global = true, value_name = "NAME")]
    pub instance: Option<String>,
    /// Only your own gateways (user scope)
    #[arg(long, global = true, conflicts_with = "system")]
    pub user: bool,
    /// Only the machine's gateways (system scope)
    #[arg(long, global = true)]
    pub system: bool,
    /// The configuration file, if it is not in the usual place
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The state directory that the gateway was started with
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// Print one JSON object on standard output; progress goes to standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Print only errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// When to use colours; NO_COLOR is respected
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On terminals, unless NO_COLOR is set
    #[default]
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

/// The subcommands of `gatewayctl`.
#[derive(Debug, Subcommand)]
pub enum CtlCommand {
    /// Install a gateway as a service of the service manager
    ///
    /// Writes a configuration and a unit, test-starts the command in a temporary unit, and enables
    /// the service. Files that gatewayctl did not write, or that were edited since, are never
    /// overwritten without --overwrite.
    Install(Box<InstallArgs>),
    /// Stop an installed gateway and remove what install wrote
    Uninstall(UninstallArgs),
    /// Start an installed gateway
    Start,
    /// Stop a gateway; it finishes the requests in flight first
    Stop,
    /// Restart without losing a request, and say what clients saw
    ///
    /// The next copy of every sidecar is started and health-checked before it gets traffic; the old
    /// copy finishes its requests. If the next copy does not become ready, the old one keeps serving
    /// and the exit code is 1, as it is when clients failed, or get no answer of the new generation; an
    /// invalid configuration changes nothing, and the exit code is 78.
    /// Returns when the next generation serves all new requests. An installed gateway that is
    /// stopped is started.
    Restart(RestartArgs),
    /// Read the configuration again and restart only what changed
    ///
    /// An invalid configuration changes nothing, and the exit code is 78.
    Reload,
    /// Show the sidecars of a gateway, or restart one of them
    ///
    /// A line for each program behind the gateway: its state, process and port; the generation for which
    /// it was started or restarted last; since when it is in that state; how often it was restarted because
    /// it had ended, and how often it ended in the present series, each time within half an hour of the time
    /// before; memory and processor time of its processes. Exits with 0 whatever they do: gatewayctl status
    /// says by its exit code whether all is well.
    Sidecars(SidecarsArgs),
    /// End gateways that were left behind on the port, and no others
    ///
    /// A gateway is stale if no service manager supervises it, no record gives it time to drain, and
    /// it answers none of three probes. Every other process is kept and named with the reason:
    /// other programs, processes of other users, everything in this gateway's service and in the
    /// service that this command runs in, and every ancestor of this command. Exits with 5 if a
    /// process that was kept has the port.
    Clean(CleanArgs),
    /// Retry now: leave safe mode, the last good configuration, or the wait after failed starts
    Recover,
    /// Replace the gateway program and restart into the new one without losing a request
    ///
    /// The new program is checked before anything is replaced: that it runs here, can take over
    /// from the running gateway, and accepts its configuration. It then replaces the running
    /// program, of which a copy is kept as NAME.previous, and is watched. If it does not take over,
    /// or exits or fails soon after, the previous program is restored.
    ///
    /// For a service, the unit says which program is replaced, and the new one is tried as the
    /// service's user. A gateway that another user started by hand is refused.
    Update(UpdateArgs),
    /// Show what a gateway is doing
    ///
    /// Exits with 0 if it is ready, 1 if it failed, is degraded, throttled or in safe mode, 3 if it
    /// is stopped or not installed, 4 if it is starting or draining. If an installed gateway does
    /// not run, the service manager's reason is shown; `gatewayctl why` tells more.
    Status(StatusArgs),
    /// Say in one sentence why a gateway ended, was restarted, or does not serve; then the evidence
    ///
    /// Reads the gateway's status, its service manager, its history and the journal, and changes
    /// nothing. Exits with 0 if there is an answer, and with 3 if the gateway is not installed and
    /// never ran.
    Why,
    /// Show every start, end and restart on record, the newest last
    History(HistoryArgs),
    /// List the gateways that run here or are installed
    ///
    /// For root, those of the ordinary users, too. Exits with 3 if there is none; with --json the list is
    /// empty then.
    List(ListArgs),
    /// Show what happens as it happens: state, sidecars, restarts, drains and, if asked for, the log
    ///
    /// Ctrl-C ends it. When the gateway restarts into another process, or stops and runs again, it is
    /// followed further, and that is said. With --json each event is one object on a line.
    Events(EventsArgs),
    /// Wait until a gateway is ready, stopped, or off its port
    Wait(WaitArgs),
    /// Find misconfigurations, and fix the safe ones
    ///
    /// Checks the unit and its drop-ins, the programs, the configuration, the addresses, the state
    /// directory, the running gateway and the machine. Each finding has a code that never changes;
    /// gatewayctl-doctor(7) describes them all. Exits with 0 if there are no errors or warnings,
    /// with 1 if there are, and with 3 if the gateway is neither installed nor running.
    Doctor(DoctorArgs),
    /// Keep the old copy alive while a command runs
    ///
    /// For work that is not a request but needs the programs behind the gateway, such as a backup:
    /// a drain that begins while the command runs waits until it ends, and status and log name it.
    /// Exits with the command's exit code. A drain waits no longer than its limit, and --force does
    /// not wait; then a message goes to standard error, and the command goes on.
    Inhibit(InhibitArgs),
    /// Show the output of a gateway and its sidecars
    ///
    /// That of a service is in the journal. That of a gateway which was started by hand is where it was
    /// sent: on its terminal, or in a file, which is shown, also when it has ended. With --json, the journal is one JSON object a
    /// line, a file one object with the last lines; where nothing keeps the output, that is an error.
    Logs(LogsArgs),
    /// Check, show or create a configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show three restarts under load, in half a minute; nothing is left afterwards
    ///
    /// Starts a gateway of its own, on a private port of 127.0.0.1 and with a temporary directory, and a
    /// small server behind it that takes a second to start. While clients ask without a pause, it restarts
    /// the server, the gateway itself, and the server once more as one that must not run twice. Each line
    /// shows half a second, each mark a request; the numbers are at the end. Exits with 0 if no request
    /// failed. Ctrl-C ends it, and leaves nothing either.
    Demo(DemoArgs),
    /// Measure restarts, with gateways of its own
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Show what well-known servers need, and how they restart by themselves
    ///
    /// For each server that is known: the flags of gateway run and gatewayctl install that it needs, its
    /// own restart for --reload, and whether two copies may run at once. gateway run suggests the flags
    /// that a command lacks, in its log.
    Presets,
    /// Print completions for a shell
    ///
    /// For example: gatewayctl completions bash > /etc/bash_completion.d/gatewayctl
    Completions(CompletionsArgs),
    /// Write the man pages to a directory, or print gatewayctl(8)
    Man(ManArgs),
}

#[derive(Clone, Debug, Default, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SidecarsArgs {
    #[command(subcommand)]
    pub command: Option<SidecarsCommand>,
}

/// The subcommands of `sidecars`.
#[derive(Clone, Debug, Subcommand)]
pub enum SidecarsCommand {
    /// Restart one sidecar without losing a request; the others, and the gateway itself, run on
    ///
    /// Its next copy is started and health-checked before it gets traffic; the old copy finishes its
    /// requests. One that must not run twice (overlap = false), or restarts by its own means (reload), does
    /// so as in a restart of the whole gateway. If the next copy does not become ready, the old one keeps
    /// serving and the exit code is 1, as it is when clients of this sidecar failed. It runs with the
    /// configuration in force, which gatewayctl reload renews, and with its env_file as that is now. While
    /// another restart is under way, it waits for its turn. While no sidecar is started (safe mode, or the
    /// wait after a crash), it is refused, and the exit code is 1; a name that is not there is wrong usage,
    /// with the exit code 2.
    Restart(SidecarRestartArgs),
}

/// The subcommands of `config`.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether the configuration is valid; exits with 78 if it is not
    ///
    /// For a gateway that was started by hand and runs, this is its file as it is now with its own flags
    /// and variables, as its next restart would read it. --config FILE checks that file alone.
    Check,
    /// Print the effective configuration: file, environment and defaults together
    ///
    /// For a gateway that was started by hand and runs, with its own flags and variables. --config FILE
    /// shows that file alone.
    Show,
    /// Write a commented configuration to start from, to the usual place or to --config; never
    /// overwrites a file
    Init(InitArgs),
    /// Print the JSON schema of the configuration, for editors
    Schema,
}

#[derive(Clone, Debug, Default, Args)]
pub struct InitArgs {
    /// Print it instead
    #[arg(long)]
    pub stdout: bool,
}

#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// How long it takes, at least 3 s
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = demo_time)]
    pub time: Dur,
    /// Be the server
    #[arg(long, hide = true, value_name = "PORT")]
    pub serve: Option<u16>,
}

/// A restart takes a second, and there are three.
fn demo_time(text: &str) -> Result<Dur, String> {
    let time: Dur = text.parse()?;
    match time.0.as_secs() {
        0..3 => Err("at least 3s".to_owned()),
        _ => Ok(time),
    }
}

#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// The directory to write the pages to
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}
