//! Man pages and completions, made from the definitions in [`super::args`].

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::args::{CtlCli, GatewayCli};
use super::schema;
use crate::diagnose::doctor;

/// The manual's section for programs that administer a machine.
const SECTION: &str = "8";

/// Sections that are written by hand, by page.
const MORE: [(&str, &str); 7] = [
    ("gateway", include_str!("pages/gateway.roff")),
    (
        "gatewayctl-clean",
        include_str!("pages/gatewayctl-clean.roff"),
    ),
    (
        "gatewayctl-install",
        include_str!("pages/gatewayctl-install.roff"),
    ),
    (
        "gatewayctl-restart",
        include_str!("pages/gatewayctl-restart.roff"),
    ),
    (
        "gatewayctl-update",
        include_str!("pages/gatewayctl-update.roff"),
    ),
    (
        "gatewayctl-inhibit",
        include_str!("pages/gatewayctl-inhibit.roff"),
    ),
    (
        "gatewayctl-recover",
        include_str!("pages/gatewayctl-recover.roff"),
    ),
];

/// Every page: its file name and its text.
pub fn pages() -> Vec<(String, String)> {
    let mut pages = Vec::new();
    for program in [GatewayCli::command(), CtlCli::command()] {
        let mut program = program.disable_help_subcommand(true);
        program.build();
        collect(&program, program.get_name(), &mut pages);
    }
    pages.push((doctor::manual::NAME.to_owned(), doctor::manual::page()));
    pages.push(("gatewayctl-json.7".to_owned(), schema::page()));
    pages.push(("gatewayctl-json.schema.json".to_owned(), schema::schemas()));
    pages
}

fn collect(command: &Command, name: &str, pages: &mut Vec<(String, String)>) {
    let mut text = Vec::new();
    let page = Man::new(
        command
            .clone()
            .name(name.to_owned())
            .version(env!("CARGO_PKG_VERSION")),
    )
    .section(SECTION)
    .manual("gateway");
    if page.render(&mut text).is_ok() {
        pages.push((
            format!("{name}.{SECTION}"),
            finish(&String::from_utf8_lossy(&text), name),
        ));
    }
    for inner in command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set())
    {
        collect(inner, &format!("{name}-{}", inner.get_name()), pages);
    }
}

/// What a page says besides its flags: sections that `--help` has no room for, and headings for
/// what follows the flags there.
fn finish(text: &str, name: &str) -> String {
    let text = text
        .replace(".SH EXTRA\nExamples:", ".SH EXAMPLES")
        .replace(".SH EXTRA\nExit codes:", ".SH EXIT STATUS\n");
    let text = text.replace("\nExamples:\n", "\n.SH EXAMPLES\n");
    let more = MORE
        .iter()
        .find(|(known, _)| *known == name)
        .map_or("", |(_, more)| more);
    text.replacen(".SH VERSION\n", &format!("{more}.SH VERSION\n"), 1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_pages_in_man_are_those_of_the_definitions() {
        let man = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
        for (name, text) in pages() {
            let kept = std::fs::read_to_string(man.join(&name)).unwrap_or_default();
            assert!(
                kept == text,
                "man/{name} is out of date: cargo run --bin gatewayctl -- man man"
            );
        }
    }

    #[test]
    fn every_command_has_its_page() {
        let names: Vec<String> = pages().into_iter().map(|(name, _)| name).collect();
        for name in [
            "gateway.8",
            "gateway-run.8",
            "gatewayctl.8",
            "gatewayctl-restart.8",
            "gatewayctl-config-check.8",
        ] {
            assert!(
                names.iter().any(|known| known == name),
                "{name} in {names:?}"
            );
        }
    }

    #[test]
    fn every_key_is_in_the_manual_of_the_configuration() {
        let page = std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("man/gateway.toml.5"),
        )
        .unwrap()
        .replace("\\-", "-");
        let schema = crate::config::schema();
        let mut keys = Vec::new();
        let definitions = schema["$defs"].as_object().unwrap().values();
        for definition in definitions.filter_map(|definition| definition["properties"].as_object())
        {
            keys.extend(definition.keys().cloned());
        }
        assert!(keys.len() > 25, "{keys:?}");
        keys.sort();
        keys.dedup();
        let missing: Vec<&String> = keys
            .iter()
            .filter(|key| !page.contains(&format!("\\fB{key}\\fR")))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn completions_for_every_shell() {
        for shell in [
            clap_complete::Shell::Bash,
            clap_complete::Shell::Zsh,
            clap_complete::Shell::Fish,
        ] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut CtlCli::command(), "gatewayctl", &mut text);
            assert!(String::from_utf8(text).unwrap().contains("restart"));
        }
    }
}
