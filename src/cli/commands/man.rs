//! `gatewayctl man`.

use std::io;
use std::path::Path;

use crate::cli::answers::PagesAnswer;
use crate::cli::args::ManArgs;
use crate::cli::pages::pages;
use crate::cli::ui::Text;
use crate::cli::{CliError, Context, Exit};
use crate::state::atomic_file;

/// Writes the man pages, or prints that of gatewayctl.
///
/// # Errors
/// When the directory cannot be written.
pub fn man(ctx: &Context, args: &ManArgs) -> Result<Exit, CliError> {
    let pages = pages();
    let Some(dir) = &args.dir else {
        let name = "gatewayctl.8";
        let page = pages.into_iter().find(|(known, _)| known == name);
        let text = page.map(|(_, text)| text).unwrap_or_default();
        ctx.ui.text(&Text::new(name, text));
        return Ok(Exit::Done);
    };
    write(dir, &pages).map_err(|error| {
        Exit::Failed.error(format!(
            "cannot write man pages to {}: {error}",
            dir.display()
        ))
    })?;
    ctx.ui
        .say(format!("wrote {} pages to {}", pages.len(), dir.display()));
    ctx.ui.object(&PagesAnswer {
        ok: true,
        pages: pages.iter().map(|(name, _)| name.as_str()).collect(),
    });
    Ok(Exit::Done)
}

fn write(dir: &Path, pages: &[(String, String)]) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    // A new file in the place of the old one: in a directory of others that may be a link to
    // anything.
    pages.iter().try_for_each(|(name, text)| {
        atomic_file::write_for_this_boot(&dir.join(name), text.as_bytes(), 0o644)
    })
}
