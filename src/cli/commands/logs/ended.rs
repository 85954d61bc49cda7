//! The log of a gateway that was started by hand and has ended: the file that it printed to, or where its
//! output went.

use std::path::{Path, PathBuf};

use crate::cli::target::ended::EndedGateway;
use crate::cli::{CliError, Exit};
use crate::state::paths::is_foreign;
use crate::text::shell;

/// The file that has its log.
///
/// # Errors
/// [`Exit::NotRunning`] with where its output went, where nothing kept it.
pub fn file(ended: &EndedGateway) -> Result<PathBuf, CliError> {
    let output = ended.owner().and_then(|owner| owner.output);
    // Another user's record can name any file: it is named, but not opened.
    match output {
        Some(file) if file.is_file() && !is_foreign(&ended.state) => Ok(file),
        output => Err(not_kept(ended, output.as_deref())),
    }
}

/// What is said before it is shown.
pub fn told(ended: &EndedGateway, file: &Path) -> String {
    let (name, file) = (&ended.instance, shell::word(file));
    format!("{name} has ended; this is the end of {file}")
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
