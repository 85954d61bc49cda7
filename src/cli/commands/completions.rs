//! `gatewayctl completions`.

use clap::CommandFactory;

use crate::cli::args::{CompletionsArgs, CtlCli, GatewayCli};
use crate::cli::ui::Text;
use crate::cli::{Context, Exit};

/// Prints the completions of both programs for a shell.
pub fn completions(ctx: &Context, args: &CompletionsArgs) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut CtlCli::command(), "gatewayctl", &mut text);
    clap_complete::generate(args.shell, &mut GatewayCli::command(), "gateway", &mut text);
    ctx.ui.text(&Text::new(
        args.shell.to_string(),
        String::from_utf8_lossy(&text),
    ));
    Exit::Done
}
