//! README and the pages below `docs` keep what they promise as far as a program can tell: the
//! programs take every command line and every configuration, every link leads somewhere, and every
//! file that is named exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::error::ErrorKind;
use gateway::internals::load_text;
use gateway::programs::{CtlCli, Env, GatewayCli, Overrides};

use crate::pages::{self, Page};

/// README is an introduction; the rest is in `docs`.
const MOST_LINES: usize = 230;

/// Pages that are read for links and files only.
const OTHERS: [&str; 4] = [
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "packaging/README.md",
];

/// Directories of this repository that the pages speak of.
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

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn with_others() -> Vec<Page> {
    let mut all = pages::all();
    all.extend(OTHERS.map(Page::read));
    all
}

/// The words of a line that runs one of the programs, without what the shell takes for itself.
fn words(line: &str) -> Option<Vec<String>> {
    let line = line.split(" | ").next()?.split(" >").next()?;
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    if words
        .first()
        .is_some_and(|word| word == "sudo" || word == "nohup")
    {
        words.remove(0);
    }
    if words.starts_with(&["docker".into(), "exec".into()]) {
        words.drain(..3);
    }
    matches!(words.first()?.as_str(), "gateway" | "gatewayctl").then_some(words)
}

#[test]
fn readme_is_an_introduction() {
    let lines = Page::read("README.md").text.lines().count();
    assert!(
        lines <= MOST_LINES,
        "{lines} lines: what is no introduction belongs to docs"
    );
}

/// The program takes this line; text may name a command without its arguments.
fn understood(page: &Page, line: &[String], in_text: bool) {
    let error = match line[0].as_str() {
        "gateway" => GatewayCli::read(line).err(),
        _ => CtlCli::try_parse_from(line).err(),
    };
    let Some(error) = error else { return };
    let named = in_text && line.iter().all(|word| !word.starts_with('-'));
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {}
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::MissingRequiredArgument
            if named => {}
        _ => panic!(
            "{}: `{}` is not understood: {error}",
            page.name,
            line.join(" ")
        ),
    }
}

#[test]
fn every_command_line_is_understood() {
    let mut seen = 0;
    for page in pages::all() {
        let blocks = page.blocks();
        let typed = blocks.iter().flat_map(|block| block.commands());
        for line in typed.filter_map(words) {
            understood(&page, &line, false);
            seen += 1;
        }
        for line in page.inline().iter().filter_map(|span| words(span)) {
            understood(&page, &line, true);
            seen += 1;
        }
    }
    assert!(seen > 100, "the pages have command lines: {seen}");
}

#[test]
fn every_configuration_is_valid() {
    let mut seen = 0;
    for page in pages::all() {
        for block in page.blocks().iter().filter(|b| b.is_configuration()) {
            let text = block.text();
            let none = Env(&|_| None);
            let loaded = load_text(
                &Overrides::default(),
                &none,
                Path::new(&page.name),
                Some(text.clone()),
            );
            if let Err(error) = loaded {
                panic!("{}: {error}\n{text}", page.name);
            }
            seen += 1;
        }
    }
    assert!(seen > 5, "the pages have configurations: {seen}");
}

#[test]
fn the_first_commands_leave_both_programs_on_the_path_of_any_shell() {
    let page = Page::read("README.md");
    let blocks = page.blocks();
    let [build, install] = blocks[0].lines[..] else {
        panic!("two commands: {:?}", blocks[0].lines)
    };
    assert!(build.starts_with("cargo build --release"), "{build}");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for program in ["gateway", "gatewayctl"] {
        assert!(
            root().join(format!("src/bin/{program}.rs")).exists() || manifest.contains(program)
        );
        assert!(install.contains(&format!("target/release/{program} ")));
    }
    assert!(install.starts_with("sudo install ") && install.ends_with(" /usr/local/bin"));
    // An interactive zsh takes `#` for an argument.
    assert!(!build.contains('#') && !install.contains('#'));
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part.as_os_str().to_str() {
            Some("..") => drop(normal.pop()),
            Some(".") => {}
            _ => normal.push(part),
        }
    }
    normal
}

/// The files to which the links of a page lead, as paths in this repository.
fn led_to(page: &Page) -> BTreeSet<PathBuf> {
    let place = Path::new(&page.name).parent().unwrap().to_owned();
    let own = PathBuf::from(&page.name);
    let links = page.links().into_iter();
    links
        .map(|(path, _)| match path {
            "" => own.clone(),
            path => normal(&place.join(path)),
        })
        .collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut seen = 0;
    for page in with_others() {
        let place = Path::new(&page.name).parent().unwrap().to_owned();
        for (path, heading) in page.links() {
            let target = match path {
                "" => PathBuf::from(&page.name),
                path => normal(&place.join(path)),
            };
            assert!(
                root().join(&target).exists(),
                "{} links to {path}",
                page.name
            );
            if let Some(heading) = heading {
                let anchors = Page::read(target.to_str().unwrap()).anchors();
                assert!(
                    anchors.iter().any(|anchor| anchor == heading),
                    "{} links to {path}#{heading}: {anchors:?}",
                    page.name
                );
            }
            seen += 1;
        }
    }
    assert!(seen > 60, "the pages have links: {seen}");
}

#[test]
fn every_page_is_found_from_readme_and_leads_back() {
    let all = pages::all();
    let find = |name: &Path| all.iter().find(|page| Path::new(&page.name) == name);
    let reached = |from: &str| {
        let mut reached: BTreeSet<PathBuf> = BTreeSet::new();
        let mut next = vec![PathBuf::from(from)];
        while let Some(path) = next.pop() {
            if reached.insert(path.clone()) {
                next.extend(find(&path).into_iter().flat_map(led_to));
            }
        }
        reached
    };
    let from_readme = reached("README.md");
    for page in &all {
        let name = Path::new(&page.name);
        assert!(from_readme.contains(name), "nothing leads to {}", page.name);
        let back = reached(&page.name);
        assert!(
            back.contains(Path::new("README.md")),
            "{} leads nowhere",
            page.name
        );
    }
}

#[test]
fn every_file_that_a_page_names_exists() {
    let mut seen = 0;
    for page in with_others() {
        let paths = page.inline().into_iter().filter(|text| {
            let dir = text.split('/').next().unwrap_or_default();
            DIRECTORIES.contains(&dir) && !text.contains(' ')
        });
        for path in paths {
            let path = path.trim_end_matches("/**");
            assert!(root().join(path).exists(), "{} names {path}", page.name);
            seen += 1;
        }
    }
    assert!(seen > 20, "the pages name files: {seen}");
}

fn sources(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|end| end == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The first column below "When something is wrong" has what the programs print.
#[test]
fn every_message_that_readme_explains_is_one_of_the_programs() {
    /// What a message says of one case; the rest of it stands in the sources.
    const CASES: [&str; 4] = ["nginx", "nvm", "main", "NAME"];
    let page = Page::read("README.md");
    let mut said = String::new();
    sources(&root().join("src"), &mut said);
    let rows = page
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("| `"));
    let (_, table) = page.text.split_once("| message |").unwrap();
    let mut seen = 0;
    for row in rows.filter(|row| table.contains(row)) {
        let message = row.split('`').next().unwrap();
        let mut message = message.replace(|c: char| c.is_ascii_digit(), "\n");
        for case in CASES {
            message = message.replace(case, "\n");
        }
        let pieces = message.split('\n').map(str::trim);
        let pieces: Vec<&str> = pieces.filter(|piece| piece.len() > 6).collect();
        assert!(!pieces.is_empty(), "{row}");
        for piece in pieces {
            assert!(said.contains(piece), "nothing says `{piece}`: {row}");
        }
        seen += 1;
    }
    assert!(seen > 8, "README explains messages: {seen}");
}

#[test]
fn nothing_is_left_to_do() {
    for page in pages::all() {
        let left = page.text.lines().find(|line| line.contains("TODO"));
        assert!(left.is_none(), "{}: {left:?}", page.name);
    }
}
