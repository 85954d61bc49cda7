//! What is meant by words that other tools have, and `gatewayctl` has not.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Names that other tools have for a command, each with what to type instead.
const OF_OTHERS: [(&[&str], &[&str]); 11] = [
    (&["ps", "ls", "gateways", "instances"], &["gatewayctl list"]),
    (
        &[
            "remove",
            "rm",
            "delete",
            "del",
            "purge",
            "disable",
            "unstartup",
        ],
        &[
            "for an installed gateway: gatewayctl uninstall",
            "for one that was started by hand: gatewayctl stop",
        ],
    ),
    (&["kill", "down", "end", "quit"], &["gatewayctl stop"]),
    (
        &["monit", "monitor", "top", "watch", "dashboard"],
        &["gatewayctl status --watch"],
    ),
    (
        &["show", "info", "describe", "inspect", "health"],
        &["gatewayctl status"],
    ),
    (
        &["run", "serve", "exec"],
        &["gateway run -- COMMAND…   (gateway, not gatewayctl)"],
    ),
    (
        &[
            "up", "launch", "create", "new", "add", "enable", "startup", "save",
        ],
        &[
            "in this terminal: gateway run -- COMMAND…",
            "as a service: gatewayctl install --now -- COMMAND…",
            "an installed gateway that is stopped: gatewayctl start",
        ],
    ),
    (
        &["check", "validate", "test", "configtest", "lint"],
        &["gatewayctl config check"],
    ),
    (&["init", "generate"], &["gatewayctl config init"]),
    (&["tail", "journal", "output"], &["gatewayctl logs -f"]),
    (&["events", "audit"], &["gatewayctl history"]),
];

/// What to type instead of a command that there is not.
pub(super) fn of_command(word: &str) -> Option<&'static [&'static str]> {
    let mut all = OF_OTHERS.iter();
    let (_, tips) = all.find(|(names, _)| names.contains(&word))?;
    Some(*tips)
}

/// What to type instead of an option that there is not, and its value, if one is given.
fn of_option(command: &str, option: &str, value: Option<&str>) -> Option<Vec<String>> {
    match (command, option) {
        ("logs", "--since" | "--until") => {
            let time = value.unwrap_or("TIME");
            Some(vec![
                "the last lines, as many as you like: gatewayctl logs -n 1000".to_owned(),
                format!(
                    "those of a service, by time: journalctl -u UNIT {option} {time}   (gatewayctl list shows the unit)"
                ),
            ])
        }
        _ => None,
    }
}

/// Puts these tips into an error, in the place of what clap suggests by the spelling.
fn suggest(error: &mut clap::Error, tips: impl IntoIterator<Item = String>) {
    for kind in [
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedArg,
        ContextKind::SuggestedValue,
    ] {
        error.remove(kind);
    }
    let tips = tips.into_iter().map(Into::into).collect();
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
}

/// Adds what is meant to an error about a word that other tools have; `line` is what was typed, and
/// `command` the command in it.
pub(super) fn add(error: &mut clap::Error, line: &[String], command: Option<&str>) {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.clone()),
        _ => None,
    };
    if let Some(word) = text(ContextKind::InvalidSubcommand) {
        if let (None, Some(tips)) = (command, of_command(&word)) {
            suggest(error, tips.iter().map(|tip| (*tip).to_owned()));
        }
        return;
    }
    let (Some(word), Some(command)) = (text(ContextKind::InvalidArg), command) else {
        return;
    };
    if error.kind() != ErrorKind::UnknownArgument {
        return;
    }
    let joined = format!("{word}=");
    let joined = line.iter().find_map(|typed| typed.strip_prefix(&joined));
    let next = line.iter().skip_while(|typed| **typed != word).nth(1);
    if let Some(tips) = of_option(command, &word, joined.or(next.map(String::as_str))) {
        return suggest(error, tips);
    }
    let is_file = word.contains(['/', '.']) && !word.starts_with('-');
    let dashes = line.iter().position(|typed| typed == "--");
    let behind = dashes.is_some_and(|dashes| line[dashes..].contains(&word));
    match command {
        "config" if is_file => {
            let subcommand = line.iter().skip_while(|typed| *typed != "config").nth(1);
            let subcommand = subcommand.map_or("check", String::as_str);
            suggest(
                error,
                [format!("gatewayctl config {subcommand} --config {word}")],
            );
        }
        "start" | "restart" | "reload" | "stop" if behind => suggest(
            error,
            [
                format!("{command} takes no command: it is about a gateway that there is"),
                format!("in this terminal: gateway run -- {word} …"),
                format!("as a service: gatewayctl install --now -- {word} …"),
            ],
        ),
        _ => {}
    }
}
