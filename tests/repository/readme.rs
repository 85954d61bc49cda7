//! The README keeps what it promises as far as a program can tell: every command line in it is one
//! that the programs take.

use clap::Parser;
use clap::error::ErrorKind;
use gateway::programs::{CtlCli, GatewayCli};

const README: &str = include_str!("../../README.md");

/// The command lines of the indented blocks: those after a prompt, or all where a block has no
/// prompt.
fn blocks() -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Vec<&'static str> = Vec::new();
    for line in README.lines().chain([""]) {
        if let Some(text) = line.strip_prefix("    ") {
            block.push(text);
        } else if !line.is_empty() {
            found.extend(commands(&std::mem::take(&mut block)));
        }
    }
    found.extend(commands(&block));
    found
}

fn commands(block: &[&'static str]) -> Vec<String> {
    // A prompt for everybody, and that of root.
    let typed =
        |line: &'_ &'static str| line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "));
    let prompted = block.iter().any(|line| typed(line).is_some());
    let lines = block
        .iter()
        .filter_map(|line| if prompted { typed(line) } else { Some(*line) });
    lines.map(str::to_owned).collect()
}

/// What stands between backquotes in the text.
fn inline() -> Vec<String> {
    let text: Vec<&str> = README
        .lines()
        .filter(|line| !line.starts_with("    "))
        .collect();
    text.join("\n")
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|span| span.replace('\n', " "))
        .collect()
}

/// The words of a line that runs one of the programs, without what the shell takes for itself.
fn words(line: &str) -> Option<Vec<String>> {
    let line = line.split(" | ").next()?.split(" > ").next()?;
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    if words.first().is_some_and(|word| word == "sudo") {
        words.remove(0);
    }
    if line.starts_with("cargo run") {
        let program = if line.contains("--bin gatewayctl") {
            "gatewayctl"
        } else {
            "gateway"
        };
        let at = words.iter().position(|word| word == "--")?;
        words.splice(..=at, [program.to_owned()]);
    }
    matches!(words.first()?.as_str(), "gateway" | "gatewayctl").then_some(words)
}

#[test]
fn every_command_line_is_understood() {
    let lines: Vec<Vec<String>> = blocks()
        .iter()
        .chain(&inline())
        .filter_map(|line| words(line))
        .filter(|words| words.len() > 1)
        .collect();
    assert!(lines.len() > 20, "the README has command lines: {lines:?}");
    for line in lines {
        let error = match line[0].as_str() {
            "gateway" => GatewayCli::read(&line).err(),
            _ => CtlCli::try_parse_from(&line).err(),
        };
        if let Some(error) = error.filter(|error| {
            !matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            )
        }) {
            panic!("`{}` is not understood: {error}", line.join(" "));
        }
    }
}

#[test]
fn the_first_commands_can_be_pasted_into_any_shell() {
    let first: Vec<&str> = README
        .lines()
        .skip_while(|line| !line.starts_with("    "))
        .take_while(|line| line.starts_with("    "))
        .collect();
    assert!(
        first[0].trim().starts_with("cargo run -- run -- ")
            && first.last().unwrap().trim() == "tests/run",
        "{first:?}"
    );
    // An interactive zsh takes `#` for an argument.
    assert!(first.iter().all(|line| !line.contains('#')), "{first:?}");
}

#[test]
fn nothing_is_left_to_do() {
    assert!(
        !README.contains("TODO-"),
        "{:?}",
        README.lines().find(|line| line.contains("TODO-"))
    );
}
