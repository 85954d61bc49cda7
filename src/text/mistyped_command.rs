//! A command that somebody typed as for a shell, where there is none: several words in one pair of quotes,
//! or an assignment before the program.

use super::redact::Redactor;
use super::shell;

/// What a shell would do something with.
const OF_SHELLS: &str = "|&;<>$`*?()\"'\\~#";

/// Why a command line is none, and how it is typed.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistyped {
    pub why: String,
    /// The flags and the command, as they follow `gateway run` and `gatewayctl install`.
    pub command: String,
    /// The words of the command, as in a configuration.
    pub words: Vec<String>,
}

/// What was most likely meant by a command whose program was not found.
pub fn mistyped(argv: &[String]) -> Option<Mistyped> {
    let (program, rest) = argv.split_first()?;
    let is_several = program.trim().contains(char::is_whitespace);
    let (words, why): (Vec<String>, _) = if is_several {
        let words = program.split_whitespace().map(str::to_owned);
        let why = "the quotes around it make several words the name of one program";
        (words.chain(rest.iter().cloned()).collect(), why)
    } else {
        let why = "an assignment before a program is something that only a shell knows";
        (argv.to_vec(), why)
    };
    // They are printed, and nothing here knows what the configuration calls a secret.
    let redactor = Redactor::default();
    let words = redactor.arguments(&words);
    let is_set = |word: &&String| assignment(word).is_some();
    let (set, command) = words.split_at(words.iter().take_while(is_set).count());
    if !is_several && set.is_empty() {
        return None;
    }
    let mut why = why.to_owned();
    if set.iter().any(|word| word.starts_with("PORT=")) {
        why += ", and PORT is what the gateway sets";
    }
    let flags = set.iter().filter(|word| !word.starts_with("PORT="));
    let flags: String = flags
        .map(|word| format!("-e {} ", shell::word(word)))
        .collect();
    let words = match is_several && program.contains(|c| OF_SHELLS.contains(c)) {
        true => vec!["sh".to_owned(), "-c".to_owned(), redactor.text(program)],
        false if command.is_empty() => vec!["COMMAND".to_owned()],
        false => command.to_vec(),
    };
    let shown = words.iter().map(shown).collect::<Vec<_>>().join(" ");
    let command = format!("{flags}-- {shown}");
    Some(Mistyped {
        why,
        command,
        words,
    })
}

/// A word of a command in which somebody expects the private port, and which nothing fills: "{PORT}", or a
/// variable of a shell where no shell reads the command. Why, with what to write.
pub fn unfilled_port(argv: &[String]) -> Option<String> {
    let words = argv.iter().skip(1);
    // A word with blanks is a script: a shell reads it, if anybody does.
    let mut words = words.filter(|word| !word.contains(char::is_whitespace));
    words.find_map(|word| {
        let lower = word.to_ascii_lowercase();
        let (found, why) = [
            ("${port}", "no shell reads this command"),
            ("$port", "no shell reads this command"),
            ("{port}", "only {port} in small letters becomes the port"),
            ("%port%", "nothing replaces it"),
        ]
        .into_iter()
        .find(|(form, _)| lower.contains(form))?;
        let at = lower.find(found)?;
        let form = word.get(at..at + found.len())?;
        let ends =
            !lower[at + found.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        (ends && form != "{port}")
            .then(|| format!("{form} reaches the server as it is, because {why}: write {{port}}"))
    })
}

/// The name and the value of an assignment.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let mut chars = name.chars();
    let begins = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let fits = begins && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
    fits.then_some((name, value))
}

/// A word of a command; every shell leaves `{port}` as it is, as the manual writes it.
fn shown(word: &String) -> String {
    let quoted = shell::word(word);
    match shell::word(word.replace("{port}", "")).starts_with('\'') && word != "{port}" {
        true => quoted,
        false => word.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_nothing_fills_is_found() {
        let unfilled = |line: &str| {
            let argv: Vec<String> = line.split('|').map(str::to_owned).collect();
            unfilled_port(&argv)
        };
        for (line, form) in [
            ("node|s.js|--port|{PORT}", "{PORT} reaches"),
            ("node|s.js|--port=$PORT", "$PORT reaches"),
            ("node|s.js|http://127.0.0.1:${PORT}/", "${PORT} reaches"),
            ("node|s.js|%PORT%", "%PORT% reaches"),
        ] {
            let why = unfilled(line).unwrap_or_default();
            assert!(
                why.starts_with(form) && why.ends_with("write {port}"),
                "{line}: {why}"
            );
        }
        for line in [
            "node|s.js|--port|{port}",
            "sh|-c|exec node s.js $PORT",
            "node|s.js|$PORTAL",
            "$PORT|x",
        ] {
            assert_eq!(unfilled(line), None, "{line}");
        }
    }

    #[test]
    fn what_was_typed_for_a_shell_is_told_as_it_is_typed_without_one() {
        for (argv, expected) in [
            (&["node server.js"][..], Some("-- node server.js")),
            (
                &["node server.js --port {port}"],
                Some("-- node server.js --port {port}"),
            ),
            (&["npm run", "start"], Some("-- npm run start")),
            (&["PORT=3", "node", "x y"], Some("-- node 'x y'")),
            (
                &["A=1", "B=x y", "node", "x"],
                Some("-e A=1 -e 'B=x y' -- node x"),
            ),
            (&["A=1 node x"], Some("-e A=1 -- node x")),
            (&["A=1"], Some("-e A=1 -- COMMAND")),
            (&["cd /srv && node x"], Some("-- sh -c 'cd /srv && node x'")),
            (
                &["MY_TOKEN=canary", "x", "--password", "canary"],
                Some("-e 'MY_TOKEN=***' -- x --password '***'"),
            ),
            (&["node", "x y"], None),
            (&["./a=b"], None),
            (&["nod"], None),
            (&[], None),
        ] {
            let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
            let command = mistyped(&argv).map(|mistyped| mistyped.command);
            assert_eq!(command.as_deref(), expected, "{argv:?}");
        }
        let port = mistyped(&["PORT=3".to_owned(), "x".to_owned()]).unwrap();
        assert!(
            port.why.ends_with("PORT is what the gateway sets"),
            "{}",
            port.why
        );
    }
}
