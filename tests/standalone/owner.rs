//! One owner of a state directory: what a second gateway does, by hand and under a supervisor.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use crate::support::client::{self, Target};
use crate::support::gateway::{Gateway, READY, Setup, said as gateway_said, scrub};
use crate::support::{port, servers, wait};
use gateway::internals::Lock;
use gateway::internals::{Owner, boot_id, start_time};
use nix::sys::signal::Signal;

const STANDING_BY: &str = "[gateway] standing by for ";

/// An answer by hand comes at once, or after a look whether the record of a gateway that just
/// starts is there.
const SOON: Duration = Duration::from_secs(10);

fn by_hand(state: &Path, port: u16) -> Setup {
    Setup::new().state_dir(state).port(port)
}

fn supervised(state: &Path, port: u16) -> Setup {
    by_hand(state, port).env("GATEWAY_SUPERVISOR", "s6")
}

fn state() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("gw-").tempdir().unwrap()
}

fn healthy(target: &Target) -> bool {
    client::block_on(client::get(target, "/healthz")).is_ok_and(|answer| answer.status() == 200)
}

#[test]
fn a_supervised_duplicate_takes_over_when_the_owner_is_killed() {
    let state = state();
    let port = port::private();
    let owner = supervised(state.path(), port).start();
    let duplicate = supervised(state.path(), port).spawn();
    duplicate.wait_line(&format!("{STANDING_BY}pid {}", owner.pid()));
    assert!(healthy(&owner.target()), "the owner serves on");

    // What has no meaning while it stands by does no harm.
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
        duplicate.signal(signal);
    }
    duplicate.wait_nth_line("there is nothing to restart or to reload here", 2);

    owner.kill();
    duplicate.wait_line("taking over");
    duplicate.wait_line(READY);
    assert!(healthy(&duplicate.target()));
    assert_eq!(Owner::read(state.path()).unwrap().pid, duplicate.pid());
    assert!(duplicate.stop().success());
}

#[test]
fn a_supervised_duplicate_takes_over_when_the_owner_stops() {
    let state = state();
    let port = port::private();
    let owner = by_hand(state.path(), port).start();
    let duplicate = supervised(state.path(), port).spawn();
    duplicate.wait_line(STANDING_BY);
    assert!(owner.stop().success());
    duplicate.wait_line(READY);
    assert!(healthy(&duplicate.target()));
}

#[test]
fn the_service_manager_hears_for_whom_it_stands_by() {
    let state = state();
    let port = port::private();
    let owner = by_hand(state.path(), port).start();
    let path = state.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(wait::DEADLINE)).unwrap();
    let hear = |needle: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = manager
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("no message with `{needle}`: {error}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.contains(needle) {
                return text;
            }
        }
    };
    let duplicate = by_hand(state.path(), port)
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .spawn();
    let said = hear("STATUS=standing by");
    assert_eq!(
        said,
        format!("READY=1\nSTATUS=standing by for pid {}\n", owner.pid())
    );
    hear("WATCHDOG=1");
    owner.kill();
    hear("STATUS=taking over");
    hear("READY=1");
    drop(duplicate);
    hear("STOPPING=1");
}

#[test]
fn a_stop_ends_standing_by_and_leaves_the_owner_alone() {
    let state = state();
    let port = port::private();
    let owner = by_hand(state.path(), port).start();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut duplicate = supervised(state.path(), port).spawn();
        duplicate.wait_line(STANDING_BY);
        duplicate.signal(signal);
        assert_eq!(duplicate.exit_code(SOON), 0, "{}", duplicate.stderr());
    }
    assert!(healthy(&owner.target()));
    assert_eq!(owner.status()["pid"], owner.pid());
}

#[test]
fn by_hand_the_same_command_is_done_and_another_is_refused() {
    let state = state();
    let port = port::private();
    let owner = by_hand(state.path(), port).start();
    let mut same = by_hand(state.path(), port).spawn();
    assert_eq!(same.exit_code(SOON), 0, "{}", same.stderr());
    assert!(
        same.stderr()
            .contains(&format!("runs already: pid {}", owner.pid())),
        "{}",
        same.stderr()
    );

    let mut another = by_hand(state.path(), port::private()).spawn();
    assert_eq!(another.exit_code(SOON), 5, "{}", another.stderr());
    let said = another.stderr();
    assert!(
        said.contains("another command or address") && said.contains("--instance NAME"),
        "{said}"
    );
    assert!(healthy(&owner.target()));
}

#[test]
fn the_same_command_with_another_variable_names_it_and_how_to_apply_it() {
    if !servers::have("node") {
        return;
    }
    let state = state();
    let port = port::private();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.env");
    std::fs::write(&file, "COLOR=canary-red\n").unwrap();
    let with = |pairs: &[&str]| {
        let setup = by_hand(state.path(), port).command(servers::node());
        let setup = setup.flag("--env-file").flag(&file);
        // Elsewhere it would be another server.
        let setup = setup.flag("--cwd").flag("/");
        let flags = pairs.iter().flat_map(|pair| ["-e", pair]);
        flags.fold(setup, |setup, flag| setup.flag(flag))
    };
    let owner = with(&["A=canary-1", "B=canary-2"]).start();
    let refused = |setup: Setup| {
        let mut other = setup.spawn();
        assert_eq!(other.exit_code(SOON), 5, "{}", other.stderr());
        let said = other.stderr();
        assert!(!said.contains("canary"), "{said}");
        said
    };
    let stop = format!(
        "end it first: gatewayctl stop --state-dir {}",
        state.path().display()
    );
    for (pairs, words) in [
        (
            &["A=canary-9", "B=canary-2"][..],
            "with another value of A:",
        ),
        (&["A=canary-1"], "with another value of B:"),
        (
            &["A=canary-3", "C=canary-4"],
            "with other values of A, B, C:",
        ),
    ] {
        let said = refused(with(pairs));
        for words in [words, &stop] {
            assert!(said.contains(words), "no `{words}`: {said}");
        }
    }
    std::fs::write(&file, "COLOR=canary-blue\n").unwrap();
    let said = refused(with(&["A=canary-1", "B=canary-2"]));
    for words in [
        "with another value of COLOR:",
        "gatewayctl restart --state-dir ",
    ] {
        assert!(said.contains(words), "no `{words}`: {said}");
    }
    owner.restart();
    let mut same = with(&["A=canary-1", "B=canary-2"]).spawn();
    assert_eq!(same.exit_code(SOON), 0, "{}", same.stderr());
    let record = std::fs::read_to_string(state.path().join("owner.json")).unwrap();
    assert!(!record.contains("canary"), "{record}");
}

#[test]
fn the_same_command_in_another_directory_is_another_gateway() {
    if !servers::have("node") {
        return;
    }
    let state = state();
    let port = port::private();
    let setup = || by_hand(state.path(), port).command(servers::node());
    let owner = setup().start();
    let mut elsewhere = setup().spawn();
    assert_eq!(elsewhere.exit_code(SOON), 5, "{}", elsewhere.stderr());
    let said = elsewhere.stderr();
    for words in [
        "with the server of another directory".to_owned(),
        format!("pid {}", owner.pid()),
        format!("started in {}", owner.dir().display()),
        format!("not in {}", elsewhere.dir().display()),
        servers::NODE_APP.to_owned(),
        "--instance NAME".to_owned(),
    ] {
        assert!(said.contains(&words), "no {words}: {said}");
    }
    // Where it was started it is the same.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gateway"));
    scrub(&mut command);
    let again = command
        .args([
            "run",
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--state-dir",
        ])
        .arg(state.path())
        .arg("--config")
        .arg(owner.config_file())
        .arg("--")
        .args(servers::node())
        .current_dir(owner.dir())
        .env("PWD", owner.dir())
        .output()
        .unwrap();
    let text = gateway_said(&again);
    assert_eq!(again.status.code(), Some(0), "{text}");
    assert!(text.contains("runs already: pid "), "{text}");
    assert!(healthy(&owner.target()));
}

#[test]
fn another_command_under_a_supervisor_waits_for_its_turn() {
    let state = state();
    let owner = by_hand(state.path(), port::private()).start();
    let another = supervised(state.path(), port::private()).spawn();
    another.wait_line("another command or address");
    another.wait_line(&format!("{STANDING_BY}pid {}", owner.pid()));
    owner.kill();
    another.wait_line(READY);
    assert!(healthy(&another.target()));
}

#[test]
fn it_takes_over_with_the_configuration_of_that_moment() {
    let state = state();
    let port = port::private();
    let owner = by_hand(state.path(), port).start();
    let duplicate = supervised(state.path(), port).spawn();
    duplicate.wait_line(STANDING_BY);
    std::fs::write(duplicate.config_file(), "[gateway]\nhealth_paths = false\n").unwrap();
    owner.kill();
    duplicate.wait_line(READY);
    let answer = client::block_on(client::get(&duplicate.target(), "/healthz")).unwrap();
    assert_ne!(
        answer.status(),
        200,
        "the file of now says that there is no such path"
    );
}

#[test]
fn a_broken_configuration_does_not_keep_it_from_taking_over() {
    let state = state();
    let port = port::private();
    let owner = by_hand(state.path(), port).start();
    let duplicate = supervised(state.path(), port).spawn();
    duplicate.wait_line(STANDING_BY);
    std::fs::write(duplicate.config_file(), "[gateway]\nlisten = 5\n").unwrap();
    owner.kill();
    duplicate.wait_line("the last good configuration serves");
    duplicate.wait_line(READY);
    assert!(healthy(&duplicate.target()));
}

/// A record that names a living process which did not write it.
fn record_of_a_stranger(state: &Path) {
    let pid = std::process::id();
    let owner = Owner {
        pid,
        start_time: start_time(pid).unwrap() - 1,
        boot_id: boot_id(),
        port: None,
        instance: "gateway".into(),
        generation: 1,
        drainers: vec![],
        listeners: vec!["127.0.0.1:1".into()],
        command: "x".into(),
        program: String::new(),
        variables: Default::default(),
        directory: None,
        output: None,
    };
    owner.write(state).unwrap();
}

#[test]
fn a_recycled_pid_owns_nothing() {
    let state = state();
    record_of_a_stranger(state.path());
    let gateway = by_hand(state.path(), port::private()).start();
    assert_eq!(Owner::read(state.path()).unwrap().pid, gateway.pid());
}

#[test]
fn a_held_lock_counts_whatever_the_record_says() {
    let state = state();
    let port = port::private();
    for record in [true, false] {
        let _ = std::fs::remove_file(state.path().join("owner.json"));
        if record {
            record_of_a_stranger(state.path());
        }
        let lock = Lock::take(state.path()).unwrap();
        let mut by_hand = by_hand(state.path(), port).spawn();
        let duplicate = supervised(state.path(), port).spawn();
        assert_eq!(by_hand.exit_code(SOON), 5, "{}", by_hand.stderr());
        assert!(
            by_hand.stderr().contains("another gateway holds"),
            "{}",
            by_hand.stderr()
        );
        duplicate.wait_line(&format!("{STANDING_BY}the process that holds"));
        drop(lock);
        duplicate.wait_line(READY);
        assert!(duplicate.stop().success());
    }
}

#[test]
fn of_two_that_start_at_once_one_serves() {
    for _ in 0..5 {
        let state = state();
        let port = port::private();
        let two = [
            by_hand(state.path(), port).spawn(),
            by_hand(state.path(), port).spawn(),
        ];
        let (mut losers, winners): (Vec<Gateway>, Vec<Gateway>) = two
            .into_iter()
            .partition(|gateway| gateway.wait_line_or_exit(READY).is_none());
        assert_eq!((winners.len(), losers.len()), (1, 1));
        assert_eq!(losers[0].exit_code(SOON), 0, "{}", losers[0].stderr());
    }
}

#[test]
fn supervised_starters_take_their_turns() {
    let state = state();
    let port = port::private();
    let mut waiting: Vec<Gateway> = (0..4)
        .map(|_| supervised(state.path(), port).spawn())
        .collect();
    while !waiting.is_empty() {
        let serving = wait::until("one serves", || {
            waiting
                .iter()
                .position(|gateway| gateway.stderr().contains(READY))
        });
        let serving = waiting.remove(serving);
        let standing_by = format!("{STANDING_BY}pid {}", serving.pid());
        for gateway in &waiting {
            gateway.wait_line(&standing_by);
            assert!(!gateway.stderr().contains(READY), "one at a time");
        }
        assert!(healthy(&serving.target()));
        serving.kill();
    }
}
