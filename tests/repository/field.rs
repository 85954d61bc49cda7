//! `field.md` says the truth as far as a program can tell: every report is in it, and every test
//! that it names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const FIELD: &str = include_str!("../field.md");

/// The project of a number without one.
const OPENCLAW: &str = "openclaw";

/// The reports that must be answered.
const REPORTS: &[(&str, &[u32])] = &[
    (
        OPENCLAW,
        &[
            4469, 11973, 14587, 25818, 27590, 27650, 28191, 29078, 29930, 32348, 33103, 33149,
            33459, 39763, 40905, 41934, 43311, 45032, 46012, 48063, 51860, 53684, 64911, 65668,
            65815, 66436, 66512, 66538, 68451, 71413, 72929, 75115, 79422, 79577, 80508, 83843,
            84630, 85224, 86742, 88205, 90711, 90921, 95866, 97178, 98418, 100_072, 109_969,
            116_177, 119_958, 123_872, 127_375, 133_647, 136_453, 151_387, 155_720,
        ],
    ),
    ("hermes-agent", &[30352, 54066, 110_637]),
    ("cc-connect", &[35]),
    ("home-manager", &[9585, 9629]),
    ("oppi", &[38]),
    ("paseo", &[3616]),
    ("ClawX", &[818]),
    ("OmniRoute", &[4578]),
    ("cloudflared", &[117]),
    ("kardianos/service", &[358]),
    ("mise", &[10396]),
    ("agent-afk", &[1661]),
    ("ShadowsocksX", &[448]),
    ("EnvPane", &[16]),
    ("mache", &[641]),
    ("ha-menu", &[51]),
    ("gSwitch", &[35]),
    ("nix-darwin", &[1709]),
    ("t3code", &[11995]),
    ("proxydetox", &[452]),
];

/// A row of a table.
struct Row {
    reports: Vec<(String, u32)>,
    here: String,
    tests: Vec<String>,
}

/// The project and the number of each report that a cell begins with.
fn reports(cell: &str) -> Vec<(String, u32)> {
    // What newcomers to this program met has no number.
    if cell.starts_with("seen: ") {
        return Vec::new();
    }
    let (list, _) = cell
        .split_once(": ")
        .unwrap_or_else(|| panic!("no report: {cell}"));
    let report = |item: &str| {
        let (project, number) = item
            .split_once('#')
            .unwrap_or_else(|| panic!("no number: {cell}"));
        let project = if project.is_empty() {
            OPENCLAW
        } else {
            project.trim()
        };
        (
            project.to_owned(),
            number
                .parse()
                .unwrap_or_else(|error| panic!("{error}: {cell}")),
        )
    };
    list.split(", ").map(report).collect()
}

fn rows() -> Vec<Row> {
    let lines = FIELD
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = lines.filter(|line| !line.starts_with("what users saw"));
    let row = |line: &str| {
        let mut cells = line.split(" | ");
        let mut cell = || cells.next().unwrap_or_default().to_owned();
        let (saw, here, tests) = (cell(), cell(), cell());
        let named = tests
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        Row {
            reports: reports(&saw),
            here,
            tests: named,
        }
    };
    rows.map(row).collect()
}

/// The names of all tests of a directory.
fn tests_in(dir: &Path, found: &mut BTreeSet<String>) {
    for path in fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if path.is_dir() {
            tests_in(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            tests_of(&path, found);
        }
    }
}

/// The names of all tests of a file.
fn tests_of(path: &Path, found: &mut BTreeSet<String>) {
    let text = fs::read_to_string(path).unwrap();
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        let line = line.strip_prefix("async ").unwrap_or(line);
        if line == "#[test]" || line.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            let name: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if std::mem::take(&mut marked) {
                found.insert(name);
            }
        } else if line.starts_with("#[ignore") {
            marked = false;
        }
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let mut tests = BTreeSet::new();
    for dir in ["src", "tests"] {
        tests_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut tests);
    }
    assert!(
        tests.contains("every_test_that_is_named_exists") && tests.len() > 300,
        "{}",
        tests.len()
    );
    let named: BTreeSet<String> = rows().into_iter().flat_map(|row| row.tests).collect();
    assert!(named.len() > 50, "{named:?}");
    let missing: Vec<&String> = named.difference(&tests).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn every_row_has_a_test_or_the_reason_why_there_is_none() {
    for Row {
        reports,
        here,
        tests,
    } in rows()
    {
        let reason = here
            .strip_prefix("not applicable: ")
            .is_some_and(|reason| reason.len() > 10);
        assert!(
            here.len() > 10 && reason == tests.is_empty(),
            "{reports:?}: {here}, {tests:?}"
        );
    }
}

#[test]
fn every_report_is_there_once() {
    let mut wanted: Vec<(String, u32)> = REPORTS
        .iter()
        .flat_map(|(project, numbers)| {
            numbers
                .iter()
                .map(|number| ((*project).to_owned(), *number))
        })
        .collect();
    let mut found: Vec<(String, u32)> = rows().into_iter().flat_map(|row| row.reports).collect();
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
}

/// Tests that are there for a report are named after it, so each is in the table.
#[test]
fn every_field_case_is_named() {
    let mut cases = BTreeSet::new();
    for part in ["standalone", "systemd"] {
        let path = format!("tests/{part}/field_cases.rs");
        tests_of(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(path),
            &mut cases,
        );
    }
    let named: BTreeSet<String> = rows().into_iter().flat_map(|row| row.tests).collect();
    let missing: Vec<&String> = cases.difference(&named).collect();
    assert!(missing.is_empty(), "in no row: {missing:#?}");
}
