//! Two rules of the house that a program can look at: files that fit one idea, and one name for one
//! type.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{Tree, code_of, of_this_crate};

/// A file that is longer says why in its head, after these words.
const MOST_LINES: usize = 500;
const REASON: &str = "One file because ";

/// The comment that a file begins with, without its marks and line breaks.
fn head(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// The files that are too long and do not say why.
fn too_long(texts: &BTreeMap<String, String>) -> Vec<&String> {
    let long = texts
        .iter()
        .filter(|(_, text)| text.lines().count() > MOST_LINES);
    long.filter(|(_, text)| !head(text).contains(REASON))
        .map(|(name, _)| name)
        .collect()
}

/// The names in the glossary of `lib.rs`: what its rows begin with.
fn glossary(lib: &str) -> BTreeSet<String> {
    let section = lib
        .lines()
        .skip_while(|line| *line != "//! # Glossary")
        .skip(1);
    let rows = section.take_while(|line| line.starts_with("//!") && !line.starts_with("//! # "));
    let names = rows.filter_map(|row| row.split('`').nth(1));
    names.map(str::to_owned).collect()
}

/// The names that types of several modules have, with those modules.
fn shared(tree: &Tree) -> BTreeMap<String, Vec<String>> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, module) in &tree.0 {
        for name in &module.types {
            places
                .entry(name.clone())
                .or_default()
                .push(path.join("::"));
        }
    }
    places.retain(|_, modules| modules.len() > 1);
    places
}

#[test]
fn a_long_file_says_why() {
    let texts = of_this_crate();
    let long = too_long(&texts);
    assert!(
        long.is_empty(),
        "longer than {MOST_LINES} lines, and no `{REASON}…` in the head: {long:#?}"
    );
}

#[test]
fn a_type_has_a_name_of_its_own_or_a_line_in_the_glossary() {
    let texts = of_this_crate();
    let glossary = glossary(&texts["lib.rs"]);
    let mut names = shared(&Tree::new(&texts));
    names.retain(|name, _| !glossary.contains(name));
    assert!(names.is_empty(), "{names:#?}");
}

/// `service/rights.rs` knows whether the reader is root, who needs no sudo.
#[test]
fn no_message_tells_everybody_to_use_sudo() {
    const BY_ROOT: [&str; 9] = [
        "-u",
        "chgrp",
        "chmod",
        "chown",
        "gatewayctl",
        "loginctl",
        "sysctl",
        "systemctl",
        "useradd",
    ];
    let mut texts = of_this_crate();
    texts.remove("service/rights.rs");
    let tells = |text: &String| {
        BY_ROOT
            .iter()
            .any(|word| text.contains(&format!("sudo {word} ")))
    };
    let told: Vec<_> = (texts.iter().filter(|(_, text)| tells(text)))
        .map(|(name, _)| name)
        .collect();
    assert!(told.is_empty(), "{told:#?}");
}

/// Files that open others by path as they are, with the reason. All others read by
/// `config/regular_file.rs` or `state/untrusted_file.rs`: what opens a pipe waits for its other side, and
/// for 45 s for who has a lease on a file.
const OPENS: [(&str, &str); 25] = [
    ("cli/commands/config.rs", "makes a file that is not there"),
    ("cli/commands/inhibit.rs", "/proc"),
    ("config/regular_file.rs", "the guarded open"),
    ("diagnose/doctor/gather/machine.rs", "/proc"),
    ("diagnose/doctor/gather/process.rs", "/proc"),
    ("diagnose/doctor/gather/state_dir.rs", "/proc"),
    ("gateway/handover/failpoint.rs", "test builds only"),
    ("gateway/tokens.rs", "/dev/urandom"),
    ("os/credentials.rs", "/proc"),
    ("os/oom.rs", "/proc and /sys"),
    ("os/platform/linux.rs", "O_PATH, and /proc"),
    ("os/port/linux.rs", "/proc"),
    ("os/port/table.rs", "/proc"),
    ("os/process/linux.rs", "/proc and /sys"),
    (
        "proxy/access_log/destination.rs",
        "the operator's log, opened without waiting",
    ),
    ("proxy/listener.rs", "/proc"),
    (
        "service/install/test_start.rs",
        "makes a file that is not there",
    ),
    ("service/neighbours.rs", "/etc/passwd"),
    ("sidecar/process.rs", "/proc"),
    ("stale/leftover.rs", "/proc"),
    ("state/atomic_file.rs", "directories"),
    ("state/remove_tree.rs", "directories"),
    ("state/trace.rs", "/proc"),
    ("supervisor/evidence.rs", "/proc"),
    ("systemd/bus.rs", "/proc"),
];

/// The calls that open a file by path and may wait.
const OPENING: [[&str; 4]; 5] = [
    ["File", "::", "open", "("],
    ["fs", "::", "read", "("],
    ["fs", "::", "read_to_string", "("],
    ["OpenOptions", "::", "new", "("],
    ["fs", "::", "copy", "("],
];

fn opens(text: &str) -> bool {
    let tokens = code_of(text);
    let is_opening = |four: &[String]| OPENING.iter().any(|call| call == four);
    tokens.windows(4).any(is_opening)
}

#[test]
fn files_of_others_are_opened_without_waiting() {
    let mut texts = of_this_crate();
    texts.retain(|name, text| !name.contains("tests") && opens(text));
    let known: BTreeSet<&str> = OPENS.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = texts.keys().map(String::as_str).collect();
    assert_eq!(found, known);
}

#[test]
fn the_rules_are_seen_to_be_broken() {
    assert!(opens("fn f() { std::fs::read(path); }"));
    assert!(!opens(
        "#[cfg(test)]\nmod tests { fn f() { std::fs::read(path); } }"
    ));

    let long = format!("//! A long one.\n{}", "\n".repeat(MOST_LINES));
    let with_reason = long.replace("one.", "one. One file\n//! because it is a table.");
    let texts = |text: &str| BTreeMap::from([("lib.rs".to_owned(), text.to_owned())]);
    assert_eq!(too_long(&texts(&long)), ["lib.rs"]);
    assert!(too_long(&texts(&with_reason)).is_empty());

    let lib =
        "//! # Glossary\n//!\n//! | `Known` | twice |\n//! # Map\n//! `Other`\nmod a;\nmod b;\n";
    let one =
        "pub struct Known;\nenum Mine {}\npub(crate) struct Other;\n#[cfg(test)]\nstruct Tested;\n";
    let texts = [
        ("lib.rs", lib),
        ("a.rs", one),
        (
            "b.rs",
            "pub trait Other {}\nenum Known {}\nstruct Tested;\n",
        ),
    ];
    let texts = texts.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let names: Vec<String> = shared(&Tree::new(&BTreeMap::from(texts)))
        .into_keys()
        .collect();
    assert_eq!(names, ["Known", "Other"]);
    assert_eq!(glossary(lib), BTreeSet::from(["Known".to_owned()]));
}
