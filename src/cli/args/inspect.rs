//! The flags of the commands that look at a gateway: `status`, `wait`, `logs` and the like.

use clap::Args;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;

use crate::config::Dur;
use crate::control::protocol::Topic;
use crate::text::words::Words;

#[derive(Clone, Debug, Default, Args)]
pub struct CleanArgs {
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Look at this port instead of the gateway's own addresses
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Never touch this process; may be repeated
    #[arg(long, value_name = "PID")]
    pub protect: Vec<u32>,
    /// End the process given with --pid, whatever program it runs
    #[arg(long, requires = "pid")]
    pub force: bool,
    /// The process that --force ends; it must be on the port
    #[arg(long, value_name = "PID", requires = "force")]
    pub pid: Option<u32>,
}

#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// Until it serves its configuration with every sidecar ready, and not the last good one (the default)
    #[arg(long, group = "what")]
    pub ready: bool,
    /// Until its addresses are free, or held by the service manager for it
    #[arg(long, group = "what")]
    pub port_free: bool,
    /// Until it has exited
    #[arg(long, group = "what")]
    pub stopped: bool,
    /// Give up after this long, with exit code 4; with 3 if no gateway runs that could become ready
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub timeout: Dur,
}

#[derive(Clone, Debug, Default, Args)]
pub struct ListArgs {
    /// Print only the names that --instance takes, one a line; asks no gateway
    #[arg(long, conflicts_with = "json")]
    pub names: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub struct DoctorArgs {
    /// Fix what is safe to fix; ends nothing but what a reload replaces, and overwrites no edited file
    #[arg(long)]
    pub fix: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub struct StatusArgs {
    /// Also show what the service manager knows, drop-ins, and the complaints in the journal
    #[arg(long)]
    pub deep: bool,
    /// Keep showing it: in place on a terminal, else a line for each change; Ctrl-C ends it
    #[arg(long, short)]
    pub watch: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub struct EventsArgs {
    /// Only this topic; may be repeated [default: all but the log]
    #[arg(long, short, value_name = "TOPIC", value_parser = topics())]
    pub topic: Vec<Topic>,
}

fn topics() -> impl TypedValueParser<Value = Topic> {
    let words: Vec<&str> = Topic::ALL.iter().map(|topic| topic.word()).collect();
    PossibleValuesParser::new(words).try_map(|word| word.parse::<Topic>())
}

#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    /// How many lines
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub lines: u32,
}

#[derive(Clone, Debug, Default, Args)]
pub struct LogsArgs {
    /// Keep showing new lines
    #[arg(long, short)]
    pub follow: bool,
    /// Only the output of this sidecar
    #[arg(long, value_name = "NAME")]
    pub sidecar: Option<String>,
    /// How many lines to start with
    #[arg(
        long,
        short = 'n',
        alias = "tail",
        value_name = "N",
        default_value_t = 100
    )]
    pub lines: u32,
    /// Show the lines in which the log hides a secret, such as a one-time login token, as they were
    /// printed
    ///
    /// The running gateway keeps the first and the last of them in memory, and tells only root and its
    /// own user.
    #[arg(long, conflicts_with_all = ["follow", "lines"])]
    pub show_secrets: bool,
}
