//! `gatewayctl completions`.

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::cli::args::{CompletionsArgs, CtlCli, GatewayCli};
use crate::cli::ui::Text;
use crate::cli::{Context, Exit};

/// What prints the names that `--instance` may have, one a line. A shell that has no gatewayctl offers
/// none.
const NAMES: &str = "gatewayctl list --names 2>/dev/null";

/// The options that take such a name.
const NAMED: [&str; 2] = ["instance", "name"];

/// Prints the completions of both programs for a shell.
pub fn completions(ctx: &Context, args: &CompletionsArgs) -> Exit {
    let text = [
        script(args.shell, &mut CtlCli::command(), "gatewayctl"),
        script(args.shell, &mut GatewayCli::command(), "gateway"),
    ]
    .concat();
    ctx.ui.text(&Text::new(args.shell.to_string(), text));
    Exit::Done
}

fn script(shell: Shell, command: &mut Command, name: &str) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, command, name, &mut text);
    with_names(shell, &String::from_utf8_lossy(&text))
}

/// The script with the names of the gateways that are there behind `--instance`: what is generated knows
/// fixed words only. Other shells stay as they are.
fn with_names(shell: Shell, script: &str) -> String {
    match shell {
        Shell::Bash => NAMED.iter().fold(script.to_owned(), |script, option| {
            let files = format!("--{option})\n                    COMPREPLY=($(compgen -f \"${{cur}}\"))");
            let names = format!(
                "--{option})\n                    COMPREPLY=($(compgen -W \"$({NAMES})\" -- \"${{cur}}\"))"
            );
            script.replace(&files, &names)
        }),
        Shell::Zsh => {
            let named = NAMED.iter().fold(script.to_owned(), |script, option| {
                lines(&script, |line| {
                    let is_option = line.starts_with(&format!("'--{option}=["));
                    match line.strip_suffix(":NAME:_default' \\").filter(|_| is_option) {
                        Some(before) => format!("{before}:NAME:_gateway_names' \\"),
                        None => line.to_owned(),
                    }
                })
            });
            // The first line says for which command the file is.
            let (first, rest) = named.split_once('\n').unwrap_or((&named, ""));
            let function = format!(
                "_gateway_names() {{\n    local -a names\n    names=(${{(f)\"$({NAMES})\"}})\n    compadd -a names\n}}"
            );
            format!("{first}\n\n{function}\n{rest}")
        }
        Shell::Fish => lines(script, |line| {
            let option = |option: &&str| line.contains(&format!(" -l {option} "));
            match NAMED.iter().any(option) {
                true => format!("{line} -f -a \"({NAMES})\""),
                false => line.to_owned(),
            }
        }),
        _ => script.to_owned(),
    }
}

fn lines(text: &str, change: impl Fn(&str) -> String) -> String {
    text.lines()
        .fold(String::new(), |all, line| all + &change(line) + "\n")
}
