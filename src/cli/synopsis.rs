//! The SYNOPSIS of a manual page: every option with the name of its argument. clap_mangen leaves
//! those names out, and mixes the options of a command with the global ones.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

/// The line for a command, in roff. The global options stand for themselves in the page of the
/// program, and by one word in those of its commands.
pub fn synopsis(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let is_program = !name.contains(' ');
    let mut text = format!("\\fB{}\\fR", name.replace('-', "\\-"));
    let shown = |arg: &&Arg| !arg.is_hide_set() && arg.get_id() != "help";
    let (places, options): (Vec<&Arg>, Vec<&Arg>) =
        (command.get_arguments().filter(shown)).partition(|arg| arg.is_positional());
    let (global, own): (Vec<&Arg>, Vec<&Arg>) =
        (options.into_iter()).partition(|arg| arg.is_global_set() && !is_program);
    for arg in own {
        add(&mut text, &option(arg), arg);
    }
    if !global.is_empty() {
        text.push_str(" [\\fIGLOBAL OPTIONS\\fR]");
    }
    for arg in places {
        let dashes = if arg.is_last_set() { "\\-\\- " } else { "" };
        add(&mut text, &format!("{dashes}{}", value(arg)), arg);
    }
    if command.has_subcommands() {
        text.push_str(if command.is_subcommand_required_set() {
            " \\fISUBCOMMAND\\fR"
        } else {
            " [\\fISUBCOMMAND\\fR]"
        });
    }
    text
}

/// Adds an argument, with brackets unless it must be there, and dots where there may be several.
fn add(text: &mut String, shown: &str, arg: &Arg) {
    let repeats = matches!(arg.get_action(), ArgAction::Append)
        || arg
            .get_num_args()
            .is_some_and(|count| count.max_values() > 1);
    let dots = if repeats { "..." } else { "" };
    // Writing to a String cannot fail.
    let _ = match arg.is_required_set() {
        true => write!(text, " {shown}{dots}"),
        false => write!(text, " [{shown}{dots}]"),
    };
}

fn option(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("\\fB\\-{short}\\fR"));
    let long = arg
        .get_long()
        .map(|long| format!("\\fB\\-\\-{}\\fR", long.replace('-', "\\-")));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let names = names.join("|");
    if arg.get_action().takes_values() {
        format!("{names} {}", value(arg))
    } else {
        names
    }
}

fn value(arg: &Arg) -> String {
    let named = arg.get_value_names().unwrap_or_default();
    let named: Vec<&str> = named.iter().map(|name| name.as_str()).collect();
    let name = match named.as_slice() {
        [] => arg.get_id().as_str().to_uppercase(),
        named => named.join(" "),
    };
    format!("\\fI{}\\fR", name.replace('-', "\\-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::CtlCli;
    use clap::CommandFactory;

    #[test]
    fn every_option_names_its_argument() {
        let mut program = CtlCli::command();
        program.build();
        let of = |name: &str| {
            let command = program.find_subcommand(name).unwrap();
            synopsis(command)
                .replace("\\fB", "")
                .replace("\\fI", "")
                .replace("\\fR", "")
                .replace("\\-", "-")
        };
        assert_eq!(
            of("inhibit"),
            "gatewayctl inhibit --why TEXT [--ttl DURATION] [GLOBAL OPTIONS] -- COMMAND..."
        );
        assert_eq!(
            of("clean"),
            "gatewayctl clean [--dry-run] [--port PORT] [--protect PID...] [--force] [--pid PID] [GLOBAL OPTIONS]"
        );
    }
}
