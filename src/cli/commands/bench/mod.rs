//! `gatewayctl bench`.

mod report;
mod restart;

use crate::bench::server::{ServerPace, serve};
use crate::cli::args::BenchCommand;
use crate::cli::{CliError, Context, Exit};

/// Measures, or is the server that is measured with.
///
/// # Errors
/// What fails before anything is measured; a measured failure is an answer.
pub async fn bench(ctx: &Context, command: &BenchCommand) -> Result<Exit, CliError> {
    match command {
        BenchCommand::Restart(args) => restart::restart(ctx, args).await,
        BenchCommand::Serve { port } => {
            let served = serve(*port, ServerPace::default()).await;
            let failed = |error| Exit::Failed.error(format!("127.0.0.1:{port}: {error}"));
            served.map(|()| Exit::Done).map_err(failed)
        }
    }
}
