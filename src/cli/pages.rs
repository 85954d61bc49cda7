//! Man pages and completions, made from the definitions in [`super::args`].

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use serde_json::json;

use super::args::{CompletionsArgs, CtlCli, GatewayCli, ManArgs};
use super::schema::{self, Text};
use super::{CliError, Context, Exit};
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

/// Writes the man pages, or prints that of gatewayctl.
///
/// # Errors
/// When the folder cannot be written.
pub fn man(ctx: &Context, args: &ManArgs) -> Result<Exit, CliError> {
    let pages = pages();
    let Some(dir) = &args.dir else {
        let page = pages
            .iter()
            .find(|(name, _)| name == "gatewayctl.8")
            .map(|(_, text)| text.as_str())
            .unwrap_or_default();
        ctx.ui.text(&Text::new("gatewayctl.8", page));
        return Ok(Exit::Done);
    };
    write(dir, &pages).map_err(|error| {
        CliError::new(
            Exit::Failed,
            format!("cannot write man pages to {}: {error}", dir.display()),
        )
    })?;
    ctx.ui
        .say(&format!("wrote {} pages to {}", pages.len(), dir.display()));
    ctx.ui.object(
        &json!({"ok": true, "pages": pages.iter().map(|(name, _)| name).collect::<Vec<_>>()}),
    );
    Ok(Exit::Done)
}

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

fn write(dir: &Path, pages: &[(String, String)]) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    pages
        .iter()
        .try_for_each(|(name, text)| std::fs::write(dir.join(name), text))
}

/// Every page: its file name and its text.
pub fn pages() -> Vec<(String, String)> {
    let mut pages = Vec::new();
    for program in [GatewayCli::command(), CtlCli::command()] {
        let mut program = program.disable_help_subcommand(true);
        program.build();
        collect(&program, program.get_name(), &mut pages);
    }
    pages.push((doctor::page::NAME.to_owned(), doctor::page::page()));
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
