//! The log of a gateway that was started by hand and has ended: the file that it printed to, or where its
//! output went.

use std::path::Path;

use super::{entries, show};
use crate::cli::args::LogsArgs;
use crate::cli::ended::EndedGateway;
use crate::cli::{CliError, Context, Exit};
use crate::state::paths::is_foreign;
use crate::text::shell;

/// Shows the end of its log.
///
/// # Errors
/// [`Exit::NotRunning`] with where its output went, where nothing kept it.
pub async fn logs(ctx: &Context, ended: &EndedGateway, args: &LogsArgs) -> Result<Exit, CliError> {
    let name = &ended.instance;
    let owner = ended.owner();
    let output = owner.as_ref().and_then(|owner| owner.output.as_deref());
    // Another user's record can name any file: it is named, but not opened.
    let file = output.filter(|path| path.is_file() && !is_foreign(&ended.state));
    let Some(file) = file else {
        return Err(not_kept(ended, output));
    };
    if ctx.ui.is_json() {
        ctx.ui
            .object(&entries(name, 0, Some(file), Some(file), args)?);
        return Ok(Exit::Done);
    }
    let file_word = shell::word(file);
    ctx.ui
        .progress(&format!("{name} has ended; this is the end of {file_word}"));
    show(ctx, file, args).await
}

fn not_kept(ended: &EndedGateway, output: Option<&Path>) -> CliError {
    let name = &ended.instance;
    let went = match output {
        Some(path) if path.starts_with("/dev/null") => "its output was thrown away".to_owned(),
        Some(path) if path.starts_with("/dev/") => {
            format!("its output went to {}, which keeps nothing", path.display())
        }
        Some(path) if path.is_file() => {
            format!(
                "its output went to {}, says a record of another user",
                path.display()
            )
        }
        Some(path) => format!("its output went to {}, which is gone", path.display()),
        None => "its output went to the terminal or program that started it".to_owned(),
    };
    let message = format!("{name} has ended, and {went}");
    let state = shell::word(&ended.state);
    let help = format!(
        "gatewayctl why --state-dir {state}   (how it ended)\ngateway run … -- COMMAND >gateway.log 2>&1   (keeps its log in a file)"
    );
    Exit::NotRunning.error(message).with_help(help)
}
