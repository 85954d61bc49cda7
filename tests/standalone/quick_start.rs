//! The output that README and the pages below `docs` show is what the programs print.

use std::fs;
use std::process::Command;

use crate::support::gateway::{Gateway, Setup, said};
use crate::support::load::Load;
use crate::support::pages::{Page, Shown};
use crate::support::report::Part;
use crate::support::servers;

/// As on a terminal of somebody's own, whatever this test runs under.
const SUPERVISOR: (&str, &str) = ("GATEWAY_SUPERVISOR", "terminal");

fn start(line: &str) -> Gateway {
    let (_, command) = line.split_once(" -- ").unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("index.html"), "hello\n").unwrap();
    Setup::behind(command.split_whitespace())
        .in_dir(dir)
        .env(SUPERVISOR.0, SUPERVISOR.1)
        // As a user has it: the tests keep no old copy.
        .env("GATEWAY_RESTART_WATCH", "10s")
        .start()
}

/// Runs a line of a session in the gateway's directory; its output comes back.
fn typed(gateway: &Gateway, line: &str) -> String {
    if let Some(rest) = line.strip_prefix("gatewayctl ") {
        // On a terminal progress comes before the result.
        let output = gateway.ctl(rest.split_whitespace());
        let text = [output.stderr, output.stdout].map(|bytes| String::from_utf8(bytes).unwrap());
        // The gateway of a test has a state directory of its own.
        let place = format!(" --state-dir {}", gateway.state_dir().display());
        return text.concat().replace(&place, "");
    }
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", line]).current_dir(gateway.dir()).output();
    said(&output.unwrap())
}

/// Lines that depend on where the test runs: the word before them only.
fn of_any_place<'a>(shown: &Shown<'a>) -> Shown<'a> {
    const PLACES: [&str; 4] = ["supervisor ", "restarts ", "config ", "gateway: "];
    let output = shown.output.iter().copied();
    Shown {
        command: shown.command,
        output: output
            .filter(|line| !PLACES.iter().any(|place| line.trim().starts_with(place)))
            .collect(),
    }
}

#[test]
fn the_quick_start_prints_what_readme_shows() {
    if !servers::have("python3") {
        return;
    }
    let readme = Page::read("README.md");
    let blocks = readme.blocks();
    let blocks = blocks.iter().filter(|block| block.section == "Quick start");
    let session: Vec<Shown<'_>> = blocks.flat_map(|block| block.session()).collect();
    let [begin, rest @ ..] = &session[..] else {
        panic!("a session")
    };
    assert!(rest.len() > 3, "start, restart, break it, mend it");
    let gateway = start(begin.command);
    begin.assert_said(&gateway.stderr());
    for shown in rest {
        // "If curl is at work meanwhile": only then clients are counted.
        let busy = shown.output.iter().any(|line| line.contains("clients: "));
        let load = busy.then(|| {
            let load = Load {
                new_per_second: 60.0,
                kept: 0,
                ..Load::on(gateway.target())
            };
            load.start()
        });
        if let Some(load) = &load {
            load.flows(Part::New, 5);
        }
        let text = typed(&gateway, shown.command);
        drop(load);
        shown.assert_said(&text);
    }
    more_pages(&gateway);
}

/// What other pages show of the same gateway.
fn more_pages(gateway: &Gateway) {
    for (page, command) in [
        ("docs/strategies.md", "gatewayctl restart --fresh"),
        ("docs/operation.md", "gatewayctl status"),
    ] {
        let page = Page::read(page);
        let shown = page.shown(command);
        of_any_place(&shown).assert_said(&typed(gateway, command));
    }
}
