//! The command lines of both programs, declared. `--help`, completions and man pages are made from
//! this.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::config::{Dur, Listen, Overrides};
use crate::control::protocol::{HANDOVER_VERSION, PROTOCOL_VERSION, REASON_MAX};

const GATEWAY_AFTER: &str = "\
Examples:
  gateway run -- node server.js --port {port}
      Put a Node server behind http://127.0.0.1:18789. {port} becomes a private port.
  gateway run --listen :8080 -- python3 app.py
      The same on port 8080 of every address; app.py reads its port from $PORT.
  gatewayctl restart
      Restart it, from another terminal. No client notices.";

const CTL_AFTER: &str = "\
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
      Follow what it and the programs behind it print.";

/// A front door that restarts the server behind it without losing a request
///
/// gateway listens on an address, starts your server on a private port behind it, and forwards HTTP
/// and WebSocket traffic. When you restart (gatewayctl restart, or SIGUSR1), a new copy of your
/// server is started and shown to work before it gets the traffic; the old copy finishes what it
/// had begun. Clients see no refused connection and no cut answer.
///
/// Without a subcommand, gateway runs. Without a command and without a configuration it answers
/// with its own status.
#[derive(Debug, Parser)]
#[command(name = "gateway", version = version(), args_conflicts_with_subcommands = true, after_help = GATEWAY_AFTER)]
pub struct GatewayCli {
    /// The flags of a bare `gateway`, which means `gateway run`.
    #[command(flatten)]
    pub run: RunArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<GatewayCommand>,
}

/// What `gateway --version` prints after the name: also which other gateways it can take over from.
fn version() -> String {
    format!(
        "{} (handover {HANDOVER_VERSION}, control {PROTOCOL_VERSION})",
        env!("CARGO_PKG_VERSION")
    )
}

/// What `gateway` does.
#[derive(Debug, Subcommand)]
pub enum GatewayCommand {
    /// Run the gateway in the foreground (the default)
    #[command(after_help = GATEWAY_AFTER)]
    Run(RunArgs),
    /// Say whether the configuration is valid, and start nothing
    ///
    /// Exits with 0 when it is valid and with 78 when it is not.
    Check(CheckArgs),
}

/// The flags of `gateway run`.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Listen here: an address, a port, or unix:/PATH; may be repeated [default: 127.0.0.1:18789]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<Listen>,
    /// Read this configuration file instead of the usual one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Keep state and control socket in this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// The name of this gateway, when several run on a machine [default: gateway, or gateway-PORT
    /// on another port]
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Never run two copies of the server at once: on a restart requests wait while it ends and
    /// starts again
    #[arg(long)]
    pub exclusive: bool,
    /// The port that the server always listens on, for one that cannot be told {port} or $PORT
    /// (implies --exclusive)
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// The server is ready when this path answers, as in /health [default: when it listens]
    #[arg(long, value_name = "PATH")]
    pub ready: Option<String>,
    /// The server and its arguments; {port} becomes its private port
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<String>,
}

/// The flags of `gateway check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Also start every sidecar on a private port, wait until it is ready, and stop it again
    #[arg(long)]
    pub start: bool,
    /// What would be run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// An error whose cause is that a command to run does not stand behind `--` says so.
fn with_dashes(mut error: clap::Error, before: &str) -> clap::Error {
    let word = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word))
            if error.kind() == ErrorKind::UnknownArgument && !word.starts_with('-') =>
        {
            word.clone()
        }
        _ => return error,
    };
    let tip = format!("the command to run stands behind `--`: {before} {word} …");
    error.insert(
        ContextKind::Suggested,
        ContextValue::StyledStrs(vec![tip.into()]),
    );
    error
}

impl CtlCli {
    /// Reads a command line. `inhibit` and `install` without `--` before the command are told how
    /// it is written.
    ///
    /// # Errors
    /// What clap says, `--help` and `--version` included: print it and use its exit code.
    pub fn read(
        line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let line: Vec<OsString> = line.into_iter().map(Into::into).collect();
        let takes = ["inhibit", "install"]
            .into_iter()
            .find(|name| line.iter().skip(1).any(|word| word == name));
        Self::try_parse_from(line).map_err(|error| match takes {
            Some(name) => with_dashes(error, &format!("gatewayctl {name} … --")),
            None => error,
        })
    }
}

impl GatewayCli {
    /// Reads a command line. A command without `--` before it, the commonest slip, is told how it
    /// is written.
    ///
    /// # Errors
    /// What clap says, `--help` and `--version` included: print it and use its exit code.
    pub fn read(
        line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        Self::try_parse_from(line).map_err(|error| with_dashes(error, "gateway run --"))
    }

    /// What the flags say, wherever they stand.
    pub fn overrides(&self) -> Overrides {
        match &self.command {
            None => self.run.overrides(),
            Some(GatewayCommand::Run(run)) => run.overrides(),
            Some(GatewayCommand::Check(check)) => check.run.overrides(),
        }
    }
}

impl RunArgs {
    /// What the flags say.
    pub fn overrides(&self) -> Overrides {
        let Self {
            listen,
            config,
            state_dir,
            instance,
            exclusive,
            port,
            ready,
            command,
        } = self.clone();
        Overrides {
            config,
            instance,
            state_dir,
            listen,
            exclusive,
            port,
            ready,
            command,
        }
    }
}

/// Install, restart and explain a gateway
///
/// gatewayctl speaks to a running gateway over its control socket, and to the service manager about
/// an installed one. Without --instance it acts on the only gateway there is; with several it lists
/// them and asks.
#[derive(Debug, Parser)]
#[command(name = "gatewayctl", version, after_help = CTL_AFTER, subcommand_required = true, arg_required_else_help = true)]
pub struct CtlCli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// Flags of every `gatewayctl` command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The gateway that is meant, by name
    #[arg(long, global = true, value_name = "NAME")]
    pub instance: Option<String>,
    /// Only your own gateways (user scope)
    #[arg(long, global = true, conflicts_with = "system")]
    pub user: bool,
    /// Only the machine's gateways (system scope)
    #[arg(long, global = true)]
    pub system: bool,
    /// The configuration file, where it is not the usual one
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The state folder that the gateway was started with
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// Print one JSON object on standard output; progress stays on standard error
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

/// What `gatewayctl` does.
#[derive(Debug, Subcommand)]
pub enum CtlCommand {
    /// Install a gateway as a service of the service manager
    ///
    /// Writes a configuration and a unit, proves that the command starts, and enables the service.
    /// Files that were not written by gatewayctl, or were edited since, are never overwritten
    /// without --overwrite.
    Install(InstallArgs),
    /// Remove an installed gateway: stop it, remove what install wrote
    Uninstall(UninstallArgs),
    /// Start an installed gateway
    Start(StartArgs),
    /// Stop a gateway; requests that it has begun to answer are finished
    Stop(StopArgs),
    /// Restart without losing a request, and say what clients saw
    ///
    /// The next copy of every sidecar is started and must show that it is ready before it gets
    /// traffic; the old one finishes what it had begun. When the next one does not become ready,
    /// the old one serves on and this ends with 1; a configuration that is not valid changes
    /// nothing and ends with 78. Returns when the next generation serves all new requests. An
    /// installed gateway that is stopped is started.
    Restart(RestartArgs),
    /// Read the configuration again and restart only what changed
    ///
    /// A configuration that is not valid changes nothing and ends with 78.
    Reload,
    /// End gateways that were left behind on the port, and no others
    ///
    /// A gateway is proven stale when nobody looks after it, no record says that it still has time,
    /// and it answers none of three questions. Everything else is kept, and named with the reason:
    /// other programs, other users' processes, everything of this gateway's service and of the
    /// service that this command runs in, and every ancestor of this command. Ends with 5 when
    /// somebody who was kept has the port.
    Clean(CleanArgs),
    /// Leave safe mode, the last good configuration, or the wait after starts in quick succession,
    /// now
    Recover,
    /// Put another version of the gateway in place and restart into it, without losing a request
    ///
    /// The new program must prove itself before anything is replaced: that it runs here, can take
    /// over from the running one, and understands its configuration. It is then put in place of the
    /// running program, of which a copy is kept beside as NAME.previous, and watched. When it does
    /// not take over, or ends or fails soon after, the previous one is put back.
    Update(UpdateArgs),
    /// Show what a gateway is doing
    ///
    /// Exits with 0 when it is ready, 1 when it failed, is degraded, throttled or in safe mode, 3
    /// when it is stopped or not installed, 4 when it is starting or draining. Of an installed one
    /// that does not run, the service manager tells why; `gatewayctl why` tells more.
    Status(StatusArgs),
    /// Say in one sentence why a gateway ended, was restarted, or does not serve; then the evidence
    ///
    /// Looks at the gateway itself, its service manager, its record and the journal, and changes
    /// nothing. Ends with 0 when there is an answer, and with 3 for a gateway that is not installed
    /// and never ran.
    Why,
    /// Show every life and every restart that is on record, the newest last
    History(HistoryArgs),
    /// List the gateways that run here or are installed
    List,
    /// Wait until a gateway is ready, or gone
    Wait(WaitArgs),
    /// Look for everything that is known to go wrong, and say what to do about it
    ///
    /// Looks at the unit and its drop-ins, the programs, the configuration, the addresses, the
    /// state directory, the running gateway and the machine. Each finding has a code that never
    /// changes; gatewayctl-doctor(7) describes them all. Ends with 0 when nothing that matters was
    /// found, with 1 when something was, and with 3 when the gateway is neither installed nor runs.
    Doctor(DoctorArgs),
    /// Run a command that restarts and stops wait for, within their time
    ///
    /// For work that is not a request but needs the programs behind the gateway, as a backup: a
    /// drain that begins while the command runs waits for its end, and status and log name it. Ends
    /// with the command's exit code. Neither --force nor a drain whose time is over waits; the
    /// command is told on standard error and goes on.
    Inhibit(InhibitArgs),
    /// Show what a gateway and its sidecars print
    Logs(LogsArgs),
    /// Check, show or begin a configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print completions for a shell
    ///
    /// As in: gatewayctl completions bash > /etc/bash_completion.d/gatewayctl
    Completions(CompletionsArgs),
    /// Write the man pages to a folder, or print gatewayctl(8)
    Man(ManArgs),
}

/// The flags of `install`.
#[derive(Clone, Debug, Default, Args)]
pub struct InstallArgs {
    /// Also start it, and wait until it is ready
    #[arg(long)]
    pub now: bool,
    /// Listen here: an address, a port, or unix:/PATH; may be repeated [default: 127.0.0.1:18789]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<Listen>,
    /// Never run two copies of the server at once
    #[arg(long)]
    pub exclusive: bool,
    /// The port that the server always listens on, for one that cannot be told {port} or $PORT
    /// (implies --exclusive)
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// The server is ready when this path answers, as in /health [default: when it listens]
    #[arg(long, value_name = "PATH")]
    pub ready: Option<String>,
    /// Let a socket unit hold the listeners, so that connections queue even before the first start
    #[arg(long)]
    pub socket: bool,
    /// The user that a system service runs as [default: who called sudo, else a dynamic user]
    #[arg(long, value_name = "USER", value_hint = ValueHint::Username)]
    pub run_as: Option<String>,
    /// Read environment variables from this file at each start
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub env_file: Option<PathBuf>,
    /// Set an environment variable for the server; may be repeated. One that is secret by its name
    /// or value goes to a file of its own that only the service manager may read, and stays set
    /// until it is set to nothing
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// How much the service is shut in
    #[arg(long, value_name = "LEVEL", default_value = "app")]
    pub sandbox: Sandbox,
    /// Show what would be written and done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show how the files would change, and do nothing
    #[arg(long)]
    pub diff: bool,
    /// The service manager; another one than this machine's only with --dry-run or --diff [default:
    /// this machine's]
    #[arg(long = "for", value_name = "MANAGER")]
    pub supervisor: Option<Supervisor>,
    /// Overwrite files that gatewayctl did not write or that were edited since (copies are kept),
    /// and another command
    #[arg(long)]
    pub overwrite: bool,
    /// Do not ask before the service is stopped for a moment, as --socket needs it when the service
    /// runs
    #[arg(long)]
    pub yes: bool,
    /// The server and its arguments; {port} becomes its private port
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<String>,
}

/// Who starts the services of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Supervisor {
    /// Linux
    Systemd,
    /// macOS
    Launchd,
}

/// How much a service is shut in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// What every ordinary server bears
    #[default]
    App,
    /// A dynamic user, a read-only system, no devices
    Strict,
    /// None
    Off,
}

/// The flags of `uninstall`.
#[derive(Clone, Debug, Default, Args)]
pub struct UninstallArgs {
    /// Show what would be removed, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The flags of `start`.
#[derive(Clone, Debug, Default, Args)]
pub struct StartArgs {}

/// The flags of `stop`.
#[derive(Clone, Debug, Default, Args)]
pub struct StopArgs {}

/// The flags of `restart`.
#[derive(Clone, Debug, Default, Args)]
pub struct RestartArgs {
    /// Cut old work instead of waiting for it; an installed gateway goes through its service
    /// manager, whatever gateway is in the way, and its work has a second
    #[arg(long, conflicts_with = "wait")]
    pub force: bool,
    /// How long old requests may go on this time, as in 30s, or "forever" [default: `drain` of the
    /// configuration]
    #[arg(long, value_name = "DURATION")]
    pub wait: Option<Wait>,
    /// Why, for the record; at most 200 characters
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// Return only when the old copies have ended
    #[arg(long)]
    pub drained: bool,
    /// In a fresh process, also where the gateway would restart within its own
    #[arg(long)]
    pub fresh: bool,
}

/// A length of time, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// At most this long.
    Limit(Duration),
    /// Without limit.
    Forever,
}

impl Wait {
    /// In milliseconds, 0 for without limit: so the shortest limit is one millisecond.
    pub fn to_wire(self) -> u64 {
        match self {
            Self::Forever => 0,
            Self::Limit(limit) => u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1),
        }
    }
}

impl std::str::FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "forever" => Ok(Self::Forever),
            _ => text
                .parse::<Dur>()
                .map(|dur| Self::Limit(dur.0))
                .map_err(|error| format!("{error}, or \"forever\"")),
        }
    }
}

fn reason(text: &str) -> Result<String, String> {
    match text.chars().count() {
        0..=REASON_MAX => Ok(text.to_owned()),
        length => Err(format!(
            "{length} characters; at most {REASON_MAX} are kept"
        )),
    }
}

/// The flags of `clean`.
#[derive(Clone, Debug, Default, Args)]
pub struct CleanArgs {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Look at this port instead of the gateway's own addresses
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Never touch this process; may be repeated
    #[arg(long, value_name = "PID")]
    pub protect: Vec<u32>,
    /// End the process of --pid, whatever it is
    #[arg(long, requires = "pid")]
    pub force: bool,
    /// The one process that --force is about; it must be on the port
    #[arg(long, value_name = "PID", requires = "force")]
    pub pid: Option<u32>,
}

/// The flags of `wait`.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// Until it serves and every sidecar is ready (the default)
    #[arg(long, group = "what")]
    pub ready: bool,
    /// Until its addresses are free, or kept by systemd for its service
    #[arg(long, group = "what")]
    pub port_free: bool,
    /// Until it has ended
    #[arg(long, group = "what")]
    pub stopped: bool,
    /// Give up after this long, with exit code 4
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub timeout: Dur,
}

/// The flags of `doctor`.
#[derive(Clone, Debug, Default, Args)]
pub struct DoctorArgs {
    /// Mend what is safe to mend; never ends a process, cuts a client or writes over a file that
    /// somebody changed
    #[arg(long)]
    pub fix: bool,
}

/// The flags of `status`.
#[derive(Clone, Debug, Default, Args)]
pub struct StatusArgs {
    /// Also what the service manager knows, drop-ins, and what the journal complains of
    #[arg(long)]
    pub deep: bool,
    /// Go on showing it: on a terminal in place, elsewhere a line for each change; Ctrl-C ends it
    #[arg(long, short)]
    pub watch: bool,
}

/// The flags of `history`.
#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    /// How many lines
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub lines: u32,
}

/// The flags of `update`.
#[derive(Clone, Debug, Args)]
pub struct UpdateArgs {
    /// The new gateway program
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Only say whether it could be done
    #[arg(long)]
    pub check: bool,
}

/// The flags of `inhibit`.
#[derive(Clone, Debug, Args)]
pub struct InhibitArgs {
    /// What the command does, in a few words: shown wherever something waits for it; at most 200
    /// characters
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub why: String,
    /// Let nothing wait for the command after this long
    #[arg(long, value_name = "DURATION", value_parser = some_time)]
    pub ttl: Option<Dur>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

fn some_time(text: &str) -> Result<Dur, String> {
    let time: Dur = text.parse()?;
    if time.0.as_millis() == 0 {
        Err("no time at all".to_owned())
    } else {
        Ok(time)
    }
}

/// The flags of `logs`.
#[derive(Clone, Debug, Default, Args)]
pub struct LogsArgs {
    /// Go on showing new lines
    #[arg(long, short)]
    pub follow: bool,
    /// Only what this sidecar prints
    #[arg(long, value_name = "NAME")]
    pub sidecar: Option<String>,
    /// How many lines to begin with
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    pub lines: u32,
}

/// What `config` does.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether the configuration is valid; 78 when it is not
    Check,
    /// Print the configuration as it is used: file, environment and defaults together
    Show,
    /// Write a commented configuration to start from, to the usual place or to --config; never over
    /// a file
    Init(InitArgs),
    /// Print the JSON schema of the configuration, for editors
    Schema,
}

/// The flags of `config init`.
#[derive(Clone, Debug, Default, Args)]
pub struct InitArgs {
    /// Print it instead
    #[arg(long)]
    pub stdout: bool,
}

/// The flags of `completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// The flags of `man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Where the pages are written
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_hold() {
        GatewayCli::command().debug_assert();
        CtlCli::command().debug_assert();
    }

    #[test]
    fn a_bare_gateway_runs() {
        for line in [
            &[
                "gateway",
                "--listen",
                "8080",
                "--exclusive",
                "--",
                "x",
                "--listen",
            ][..],
            &[
                "gateway",
                "run",
                "--listen",
                "8080",
                "--exclusive",
                "--",
                "x",
                "--listen",
            ],
        ] {
            let flags = GatewayCli::try_parse_from(line).unwrap().overrides();
            assert_eq!(
                (flags.listen[0].port(), flags.exclusive),
                (Some(8080), true)
            );
            assert_eq!(flags.command, ["x", "--listen"]);
        }
        let cli = GatewayCli::try_parse_from(["gateway", "check", "--start", "--config", "g.toml"])
            .unwrap();
        assert!(matches!(
            cli.command,
            Some(GatewayCommand::Check(CheckArgs { start: true, .. }))
        ));
    }

    #[test]
    fn a_command_without_the_dashes_is_told_how() {
        for line in [
            &["gateway", "run", "node", "server.js"][..],
            &["gateway", "node", "server.js"],
        ] {
            let error = GatewayCli::read(line).unwrap_err().to_string();
            assert!(error.contains("gateway run -- node"), "{error}");
        }
        let error = CtlCli::read(["gatewayctl", "inhibit", "--why", "backup", "./backup.sh"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("inhibit … -- ./backup.sh"), "{error}");
        let error = CtlCli::read(["gatewayctl", "status", "please"])
            .unwrap_err()
            .to_string();
        assert!(!error.contains(" -- "), "{error}");
    }

    #[test]
    fn flags_of_gatewayctl() {
        let cli = CtlCli::try_parse_from([
            "gatewayctl",
            "restart",
            "--wait",
            "forever",
            "--json",
            "--instance",
            "a",
        ])
        .unwrap();
        assert!(cli.global.json && cli.global.instance.as_deref() == Some("a"));
        assert!(matches!(
            cli.command,
            CtlCommand::Restart(RestartArgs {
                wait: Some(Wait::Forever),
                ..
            })
        ));
        for wrong in [
            &["gatewayctl", "restart", "--force", "--wait", "1s"][..],
            &["gatewayctl", "restart", "--wait", "soon"],
            &["gatewayctl", "wait", "--ready", "--stopped"],
            &["gatewayctl", "status", "--user", "--system"],
            &["gatewayctl", "inhibit", "--", "true"],
            &["gatewayctl", "inhibit", "--why", "backup"],
            &[
                "gatewayctl",
                "inhibit",
                "--why",
                "backup",
                "--ttl",
                "0s",
                "--",
                "true",
            ],
            &["gatewayctl"],
        ] {
            assert_eq!(
                CtlCli::try_parse_from(wrong).unwrap_err().exit_code(),
                2,
                "{wrong:?}"
            );
        }
        let long = "x".repeat(201);
        assert!(CtlCli::try_parse_from(["gatewayctl", "restart", "--reason", &long]).is_err());
    }
}
