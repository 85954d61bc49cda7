//! The flags of `gatewayctl bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use crate::bench::case::BenchCase;

#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure what restarts cost: downtime, time, memory, descriptors, processor time
    ///
    /// Starts the `gateway` beside this program, with a home, a state directory and a port of its own, and
    /// restarts it by a signal, again and again. Meanwhile /healthz and /readyz are asked every 25 ms; no
    /// good answer within 100 ms is downtime. A restart ends when the gateway says that it is ready and
    /// answers both. Nothing is left afterwards. Exits with 1 if a restart failed; then the last lines of the
    /// gateway and the slowest steps of its trace are shown.
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
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Lives before them that are not counted
    #[arg(long, value_name = "N", default_value_t = 0)]
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
    /// Also write the JSON object to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Exit with 0 whatever failed
    #[arg(long)]
    pub allow_failures: bool,
}
