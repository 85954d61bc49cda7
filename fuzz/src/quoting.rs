//! What is written into units and environment files, read as systemd reads it.

use std::path::{Path, PathBuf};

use gateway::internals::{Listen, Secrets, UnitPlan};

use super::systemd::{EnvFile, env_file, first_word, specifiers, unit_file};

/// A value that stands nowhere by chance.
const SECRET: &str = "s3cr3t \"of\" $two\nlin\\es";

/// Versions of systemd that read environment files differently.
const VERSIONS: [u32; 2] = [252, 257];

/// Setting a variable changes that one, for every version of systemd, and nothing else; removing it
/// too; and no value is shown.
fn environment_file(text: &str) {
    let file = Secrets::parse(text);
    for version in VERSIONS {
        // What older versions take for a part of a comment becomes a line for all of them.
        let before = env_file(text, VERSIONS[1]);
        assert_eq!(env_file(&file.text(), version).variables, before.variables);
        let first = before.variables.keys().next().map_or("NEW", String::as_str);
        for name in ["API_TOKEN", first] {
            let mut changed = file.clone();
            changed.set(name, SECRET);
            assert!(changed.has(name) && !changed.is_empty());
            let mut wanted = before.variables.clone();
            wanted.insert(name.to_owned(), SECRET.to_owned());
            assert_eq!(
                env_file(&changed.text(), version).variables,
                wanted,
                "{name} set"
            );
            assert!(changed.variables().any(|pair| pair == (name, SECRET)));
            let shown = changed.shown(&file);
            for part in SECRET.lines() {
                assert!(text.contains(part) || !shown.contains(part), "{shown}");
            }
            changed.set(name, "");
            wanted.remove(name);
            assert!(!changed.has(name));
            assert_eq!(
                env_file(&changed.text(), version).variables,
                wanted,
                "{name} removed"
            );
        }
        file.shown(&file)
            .lines()
            .for_each(|line| shown(line, &before));
    }
    // Both versions agree on a file that only the gateway wrote.
    let mut own = Secrets::default();
    own.set("ONE", text);
    own.set("TWO", SECRET);
    let wanted = [("ONE", text), ("TWO", SECRET)];
    let wanted = wanted.into_iter().filter(|(_, value)| !value.is_empty());
    let wanted: Vec<(&str, &str)> = wanted.collect();
    assert_eq!(own.variables().collect::<Vec<_>>(), wanted);
    for version in VERSIONS {
        let read = env_file(&own.text(), version).variables;
        let read: Vec<(&str, &str)> = read
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(read, wanted);
    }
}

/// A line that is shown is a comment, the name of a variable, or nothing of the file.
fn shown(line: &str, file: &EnvFile) {
    let comment = |one: &str| line.starts_with('#') && one.trim_end() == line.trim_end();
    let name = line.split_once("=***").map(|(name, _)| name);
    assert!(
        ["", "***"].contains(&line)
            || file.comments.lines().any(comment)
            || name.is_some_and(|name| file.variables.contains_key(name)),
        "{line:?} is shown"
    );
}

/// The settings of the units of a plan.
fn settings(plan: &UnitPlan, log: &Path) -> Option<Vec<(String, String, String)>> {
    let units = [
        plan.service(),
        plan.socket(),
        plan.proof(log, std::time::Duration::from_secs(90)),
    ];
    let mut all = Vec::new();
    for unit in units {
        all.extend(unit_file(&unit.ok()?).expect("lines that systemd can read"));
    }
    Some(all)
}

fn plan(path: &Path) -> UnitPlan {
    UnitPlan {
        bin_dir: path.to_owned(),
        env_file: Some(path.to_owned()),
        secrets: Some(path.to_owned()),
        sockets: vec![Listen::Unix(path.to_owned())],
        ..UnitPlan::default()
    }
}

/// A path that units can carry reaches systemd as it is, adds no line and changes no other setting.
fn units(path: &str) {
    let Some(said) = settings(&plan(Path::new(path)), Path::new(path)) else {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '%' | '$' | '-');
        assert!(
            !path.starts_with('/') || !path.chars().all(fine),
            "{path} is refused"
        );
        return;
    };
    let plain = settings(&plan(Path::new("/x")), Path::new("/x")).unwrap();
    assert_eq!(said.len(), plain.len());
    for ((section, key, value), (plain_section, plain_key, plain_value)) in said.iter().zip(&plain)
    {
        assert_eq!((section, key), (plain_section, plain_key));
        match key.as_str() {
            "ExecStart" | "ExecReload" => {
                let line = value.strip_prefix(':').unwrap_or(value);
                assert_eq!(
                    line != value,
                    path.contains('$'),
                    "nothing is replaced: {value}"
                );
                let word = first_word(line).and_then(|word| specifiers(&word));
                let name = if key == "ExecStart" {
                    "gateway"
                } else {
                    "gatewayctl"
                };
                assert_eq!(word.map(PathBuf::from), Some(Path::new(path).join(name)));
            }
            "EnvironmentFile" | "ListenStream" => {
                assert_eq!(specifiers(value).as_deref(), Some(path));
            }
            "StandardOutput" => {
                let file = value.strip_prefix("file:").and_then(specifiers);
                assert_eq!(file.as_deref(), Some(path));
            }
            _ => assert_eq!(value, plain_value, "{key}"),
        }
    }
}

/// The input is an environment file, and each of its lines, from its first slash on, a path.
pub fn quoting(input: &[u8]) {
    let text = String::from_utf8_lossy(input).replace('\0', "");
    environment_file(&text);
    for line in text.split('\n').take(16) {
        units(line.find('/').map_or(line, |at| &line[at..]));
    }
}
