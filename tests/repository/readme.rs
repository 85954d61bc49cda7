//! The README and its sister pages keep what they promise as far as a program can tell: the programs
//! take every command line, and every file that is named exists.

use std::path::Path;

use clap::Parser;
use clap::error::ErrorKind;
use gateway::programs::{CtlCli, GatewayCli};

const README: &str = include_str!("../../README.md");

const PAGES: [(&str, &str); 6] = [
    ("README.md", README),
    ("CONTRIBUTING.md", include_str!("../../CONTRIBUTING.md")),
    ("SECURITY.md", include_str!("../../SECURITY.md")),
    ("CHANGELOG.md", include_str!("../../CHANGELOG.md")),
    (
        "packaging/README.md",
        include_str!("../../packaging/README.md"),
    ),
    (
        "docs/recipes/openclaw.md",
        include_str!("../../docs/recipes/openclaw.md"),
    ),
];

/// Directorys of this repository that the pages speak of.
const DIRECTORIES: [&str; 8] = [
    "benches",
    "docs",
    "launchd",
    "man",
    "packaging",
    "src",
    "tests",
    "units",
];

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

/// What stands between backquotes in the text of a page.
fn inline(page: &str) -> Vec<String> {
    let text: Vec<&str> = page
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
        .chain(&inline(README))
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
fn every_file_that_a_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for (name, page) in PAGES {
        let links = page
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
            .filter(|link| !link.contains("://"))
            .map(str::to_owned);
        let paths = inline(page).into_iter().filter(|text| {
            let dir = text.split('/').next().unwrap_or_default();
            DIRECTORIES.contains(&dir) && !text.contains(' ')
        });
        for path in links.chain(paths) {
            let path = path.trim_end_matches("/**");
            assert!(root.join(path).exists(), "{name} names {path}");
            seen += 1;
        }
    }
    assert!(seen > 20, "the pages name files: {seen}");
}

#[test]
fn nothing_is_left_to_do() {
    assert!(
        !README.contains("TODO-"),
        "{:?}",
        README.lines().find(|line| line.contains("TODO-"))
    );
}
