//! The flags of `gatewayctl bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use crate::bench::case::BenchCase;
use crate::bench::target::{Trigger, path};

/// More of them take days.
const LIVES_MAX: i64 = 10_000;

/// One thread sends no more in time.
const RATE_MAX: i64 = 10_000;

/// Each takes a descriptor.
const KEPT_MAX: i64 = 500;

#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure what restarts cost: downtime, time, memory, descriptors, processor time
    ///
    /// Starts the `gateway` beside this program, with a home, a state directory and a port of its own, and
    /// restarts it by a signal, again and again. Meanwhile /healthz and /readyz are asked every 25 ms; no
    /// good answer within 100 ms is downtime. A restart ends when the gateway says that it is ready and
    /// answers both. Nothing is left afterwards. Exits with 1 if a restart failed; then the last lines of the
    /// gateway and the slowest steps of its trace are shown.
    ///
    /// With --target any other server is measured by the same ruler. It is back when its trigger is done and
    /// every probe of --ready was good for a second.
    ///
    /// A load (--rate) never waits for the server: requests leave at a constant rate, on new and on kept
    /// connections, and each counts from the moment when it was due. What is refused, reset, cut, truncated,
    /// without an answer, or answered with another status than 200 is counted apart.
    Restart(BenchRestartArgs),
    /// Be a small server
    #[command(hide = true)]
    Serve {
        /// Where to listen, on 127.0.0.1
        port: u16,
    },
}

#[derive(Clone, Debug, Args)]
pub struct BenchRestartArgs {
    /// What is behind the gateway; may be repeated [default: plain]
    #[arg(long, value_name = "CASE", value_enum)]
    pub case: Vec<BenchCase>,
    /// Lives of a gateway that are measured, for each case
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=LIVES_MAX))]
    pub runs: u32,
    /// Lives before them that are not counted
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=LIVES_MAX))]
    pub warmup: u32,
    /// Restarts in each life
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub restarts: u32,
    /// How long the start, and each restart, may take
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub timeout_ms: u32,
    /// Between ready and the last count of memory and descriptors
    #[arg(long, value_name = "MS", default_value_t = 250)]
    pub post_ready_delay_ms: u32,
    /// Requests a second under load, on new connections each, and as many on kept ones; 0 for none [default:
    /// 0, with --target 200]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=RATE_MAX))]
    pub rate: Option<u32>,
    /// How many connections the load keeps
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(..=KEPT_MAX))]
    pub kept: u32,
    /// Measure this server: a line for sh that becomes it, with its port in $BENCH_PORT
    #[arg(long, value_name = "COMMAND", conflicts_with = "case", requires_all = ["port", "trigger", "ready"])]
    pub target: Option<String>,
    /// Where the target listens, on 127.0.0.1
    #[arg(long, value_name = "PORT", requires = "target", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// How the target is restarted: signal:NAME, or a line for sh, with $BENCH_PID and $BENCH_PORT; what it
    /// leaves in the background ends with it
    #[arg(long, value_name = "HOW", requires = "target")]
    pub trigger: Option<Trigger>,
    /// What is asked of the target, by probes and load
    #[arg(long, value_name = "PATH", requires = "target", value_parser = path)]
    pub ready: Option<String>,
    /// Also write the JSON object to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Exit with 0 whatever failed
    #[arg(long)]
    pub allow_failures: bool,
}
