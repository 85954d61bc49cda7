//! Man pages and completions, made from the definitions in [`super::args`].

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::args::{CtlCli, GatewayCli};
use super::commands::presets;
use super::schema;
use super::synopsis::synopsis;
use crate::diagnose::doctor;

/// The manual's section for programs that administer a machine.
const SECTION: &str = "8";

/// The place in gateway-control(7) of what is made from the types of the events.
const EVENTS: &str = ".\\\" EVENTS\n";

/// The sections of a page that are written by hand.
fn by_hand(page: &str) -> &'static str {
    match page {
        "gateway" => include_str!("pages/gateway.roff"),
        "gatewayctl-clean" => include_str!("pages/gatewayctl-clean.roff"),
        "gatewayctl-install" => include_str!("pages/gatewayctl-install.roff"),
        "gatewayctl-restart" => include_str!("pages/gatewayctl-restart.roff"),
        "gatewayctl-update" => include_str!("pages/gatewayctl-update.roff"),
        "gatewayctl-inhibit" => include_str!("pages/gatewayctl-inhibit.roff"),
        "gatewayctl-recover" => include_str!("pages/gatewayctl-recover.roff"),
        _ => "",
    }
}

/// Every page: its file name and its text.
pub fn pages() -> Vec<(String, String)> {
    let mut pages = Vec::new();
    for program in [GatewayCli::command(), CtlCli::command()] {
        let mut program = program.disable_help_subcommand(true);
        program.build();
        collect(&program, program.get_name(), &mut pages);
    }
    pages.push((doctor::manual::NAME.to_owned(), doctor::manual::page()));
    let control = include_str!("pages/gateway-control.roff");
    let control = control.replace(EVENTS, &schema::events());
    pages.push(("gateway-control.7".to_owned(), control));
    pages.push(("gatewayctl-json.7".to_owned(), schema::page()));
    pages.push(("gatewayctl-json.schema.json".to_owned(), schema::schemas()));
    pages
}

fn collect(command: &Command, name: &str, pages: &mut Vec<(String, String)>) {
    let mut text = Vec::new();
    let named = command.clone().name(name.to_owned());
    let page = Man::new(named.version(env!("CARGO_PKG_VERSION")));
    let page = page.section(SECTION).manual("gateway");
    if page.render(&mut text).is_ok() {
        pages.push((
            format!("{name}.{SECTION}"),
            finish(&String::from_utf8_lossy(&text), name, &synopsis(command)),
        ));
    }
    for inner in command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set())
    {
        collect(inner, &format!("{name}-{}", inner.get_name()), pages);
    }
}

/// The heading of the line that [`synopsis`] makes.
const SYNOPSIS: &str = ".SH SYNOPSIS\n";

/// What a page says besides its flags: sections that `--help` has no room for, and headings for
/// what follows the flags there.
fn finish(text: &str, name: &str, synopsis: &str) -> String {
    let (head, rest) = text.split_once(SYNOPSIS).unwrap_or((text, ""));
    let (_, rest) = rest.split_once('\n').unwrap_or_default();
    let text = format!("{head}{SYNOPSIS}{synopsis}\n{rest}")
        .replace(".SH EXTRA\nExamples:", ".SH EXAMPLES")
        .replace(".SH EXTRA\nExit codes:", ".SH EXIT STATUS\n")
        .replace("\nExamples:\n", "\n.SH EXAMPLES\n");
    let more = match name {
        "gatewayctl-presets" => presets::manual(),
        _ => by_hand(name).to_owned(),
    };
    text.replacen(".SH VERSION\n", &format!("{more}.SH VERSION\n"), 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use clap_complete::Shell;
    use serde_json::Value;

    use super::*;
    use crate::control::protocol::{
        DrainCause, EventName, FailureCode, MethodName, RecoveryRung, ReleaseCause,
        SidecarStateName, Stage, Topic,
    };
    use crate::stale::{EndProof, KeepCode};
    use crate::state::history::PreviousEnd;
    use crate::state::terms::{
        ProgressStage, RequestKindName, RequestOutcome, RungName, StrategyName,
    };
    use crate::supervisor::SupervisorKind;
    use crate::text::words::Words;

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
            assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
        }
    }

    #[test]
    fn every_key_is_in_the_manual_of_the_configuration() {
        let page = manual("gateway.toml.5").replace("\\-", "-");
        let schema = crate::config::schema();
        let definitions = schema["$defs"].as_object().unwrap().values();
        let keys: Vec<&String> = definitions
            .filter_map(|definition| definition["properties"].as_object())
            .flat_map(|properties| properties.keys())
            .collect();
        assert!(keys.len() > 25, "{keys:?}");
        for key in keys {
            assert!(page.contains(&format!("\\fB{key}\\fR")), "{key}");
        }
    }

    #[test]
    fn every_limit_is_in_the_manual_with_its_default_and_metrics_that_are_there() {
        let page = manual("gateway.toml.5").replace("\\-", "-");
        let defaults = crate::config::to_toml(&crate::config::Config::default()).unwrap();
        let defaults: toml::Table = defaults.parse().unwrap();
        let default = |keys: &str| {
            let mut keys = keys.split('.');
            let first = defaults.get(keys.next()?);
            let found = keys.try_fold(first?, |table, key| table.get(key));
            found.map(ToString::to_string)
        };
        let metrics = include_str!("../proxy/metrics.rs");
        let section = |name: &str| {
            let (_, section) = page.split_once(&format!(".SH {name}\n")).unwrap();
            section
                .split("\n.SH ")
                .next()
                .unwrap()
                .split(".TP\n")
                .skip(1)
        };
        let mut told = Vec::new();
        for entry in section("LIMITS") {
            let first = entry.lines().next().unwrap_or_default();
            let (key, value) = first
                .strip_prefix("\\fB")
                .unwrap()
                .split_once("\\fR = ")
                .unwrap();
            assert_eq!(default(key).as_deref(), Some(value), "{key}");
            for fact in ["The client", "The log: ", "The metric: "] {
                assert!(
                    entry.lines().any(|line| line.starts_with(fact)),
                    "{key}: {fact}"
                );
            }
            let word = |c: char| !c.is_ascii_lowercase() && c != '_';
            for metric in entry
                .split(word)
                .filter(|word| word.starts_with("gateway_"))
            {
                let name = metric.trim_start_matches("gateway_");
                let name = format!("\"{}\"", name.trim_end_matches("_total"));
                assert!(metrics.contains(&name), "{metric}");
            }
            told.push(key.to_owned());
        }
        let mut limits = 0;
        for entry in section("[limits]") {
            let key = entry
                .strip_prefix("\\fB")
                .unwrap()
                .split("\\fR")
                .next()
                .unwrap();
            let key = format!("limits.{key}");
            let (_, value) = entry.rsplit_once("Default: ").unwrap();
            let value = value.trim_end().trim_end_matches('.');
            assert_eq!(default(&key).as_deref(), Some(value), "{key} in [limits]");
            assert!(told.contains(&key), "{key} is not in LIMITS: {told:?}");
            limits += 1;
        }
        assert_eq!(limits, defaults["limits"].as_table().unwrap().len());
    }

    #[test]
    fn completions_for_every_shell() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut CtlCli::command(), "gatewayctl", &mut text);
            assert!(String::from_utf8(text).unwrap().contains("restart"));
        }
    }

    fn manual(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(name);
        std::fs::read_to_string(path).unwrap()
    }

    /// The part of a page behind each of `anchors` in turn, which have `|` between them.
    fn behind<'a>(page: &'a str, anchors: &str) -> &'a str {
        anchors.split('|').fold(page, |rest, anchor| {
            rest.split_once(anchor)
                .unwrap_or_else(|| panic!("no {anchor:?} of {anchors:?}"))
                .1
        })
    }

    /// A list of values in a hand-written page: between dashes, with commas.
    fn listed(page: &str, anchors: &str) -> BTreeSet<String> {
        let list = behind(page, anchors).split_once("\\- ").unwrap().1;
        let list = list.split_once(" \\-").unwrap().0.replace("\\-", "-");
        list.split(',').map(|word| word.trim().to_owned()).collect()
    }

    fn all<W: Words>() -> BTreeSet<String> {
        W::ALL.iter().map(|one| one.word().to_owned()).collect()
    }

    fn all_but<W: Words>(but: &[W]) -> BTreeSet<String> {
        let but: BTreeSet<String> = but.iter().map(|one| one.word().to_owned()).collect();
        &all::<W>() - &but
    }

    /// Every word of the values that a schema allows.
    fn allowed(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match (key.as_str(), value) {
                        ("const", Value::String(word)) => found.extend([word.clone()]),
                        ("enum", Value::Array(words)) => {
                            found.extend(words.iter().filter_map(Value::as_str).map(str::to_owned));
                        }
                        _ => allowed(value, found),
                    }
                }
            }
            Value::Array(parts) => parts.iter().for_each(|part| allowed(part, found)),
            _ => {}
        }
    }

    #[test]
    fn every_value_in_json_is_in_its_manual() {
        let schema = serde_json::from_str(&manual("gatewayctl-json.schema.json")).unwrap();
        let mut words = BTreeSet::new();
        allowed(&schema, &mut words);
        assert!(words.len() > 100, "{words:?}");
        let page = manual("gatewayctl-json.7").replace("\\-", "-");
        for word in words {
            assert!(
                page.contains(&format!("\\(dq{word}\\(dq"))
                    || page.contains(&format!("(\"{word}\")")),
                "{word}"
            );
        }
        for words in [
            all::<SupervisorKind>(),
            all::<StrategyName>(),
            all::<RequestOutcome>(),
        ] {
            let missing: Vec<&String> = words.iter().filter(|word| !page.contains(*word)).collect();
            assert!(missing.is_empty(), "{missing:?}");
        }
    }

    #[test]
    fn the_values_of_the_control_protocol_are_those_of_its_manual() {
        let page = manual("gateway-control.7");
        let answered = all_but(&[
            RequestOutcome::Moved,
            RequestOutcome::Rejected,
            RequestOutcome::Failed,
        ]);
        let previous = schemars::schema_for!(PreviousEnd).to_value();
        let mut ends = BTreeSet::new();
        allowed(&previous, &mut ends);
        for (anchors, words) in [
            (".SS status|.I stage\n", all::<Stage>()),
            (".SS status|.I supervisor\n", all::<SupervisorKind>()),
            (".SS status|.I strategy\n", all_but(&[StrategyName::None])),
            (".SS status|.I state\n", all::<SidecarStateName>()),
            (".SS status|( rung\n", all::<RecoveryRung>()),
            (".SS restart|.I outcome\n", answered),
            (".SS inhibit|.I drain\n|.I cause\n", all::<DrainCause>()),
            (
                ".SS inhibit|.I released\n|.I cause\n",
                all::<ReleaseCause>(),
            ),
            (".SS subscribe|.IR topics", all::<Topic>()),
            (".SH PROGRESS|.I stage\n", all::<ProgressStage>()),
            ("history.jsonl|.I ended\n", ends),
            (
                "history.jsonl|.I request\n|.I kind\n",
                all::<RequestKindName>(),
            ),
            (
                "history.jsonl|.I request\n|.I strategy\n",
                all::<StrategyName>(),
            ),
            (
                "history.jsonl|.I request\n|.I outcome\n",
                all::<RequestOutcome>(),
            ),
            ("history.jsonl|.I rung\n|( rung\n", all::<RungName>()),
        ] {
            assert_eq!(listed(&page, anchors), words, "{anchors:?}");
        }
        let errors = behind(&page, ".SH ERRORS").split_once(".SH").unwrap().0;
        let codes: Vec<&str> = errors
            .lines()
            .filter_map(|line| line.strip_prefix(".I "))
            .collect();
        for code in all::<FailureCode>() {
            assert!(codes.contains(&code.as_str()), "{code} in {codes:?}");
        }
        for method in all::<MethodName>() {
            assert!(page.contains(&format!(".SS {method}\n")), "{method}");
        }
        let events = behind(&page, ".SS inhibit");
        for event in all_but(&[EventName::Progress]) {
            let by_hand = events.contains(&format!(".I {event}\n"));
            let made = events.contains(&format!(".SS {event}\n"));
            assert!(by_hand || made, "{event}");
        }
    }

    #[test]
    fn every_reason_of_clean_is_in_its_manual() {
        let page = manual("gatewayctl-clean.8").replace("\\-", "-");
        let bold: BTreeSet<&str> = page
            .lines()
            .filter(|line| line.starts_with(".B"))
            .flat_map(|line| line.split([' ', '"', ',']))
            .collect();
        for word in all::<KeepCode>().union(&all::<EndProof>()) {
            assert!(bold.contains(word.as_str()), "{word}");
        }
    }
}
