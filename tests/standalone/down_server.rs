//! A server that is down: what `gatewayctl restart` and `why` say of it, and of what clients see.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::gateway::{Gateway, Setup, said};
use crate::support::servers;

/// The Node server, unless the file `ill` is there: then it says what that says, and ends.
fn start(dir: &Path, flags: &[&str]) -> Option<Gateway> {
    if !servers::have("node") {
        return None;
    }
    let script = format!(
        "[ ! -e '{}/ill' ] || {{ cat '{}/ill'; exit 4; }}; exec \"$@\"",
        dir.display(),
        dir.display()
    );
    let shell = ["sh", "-c", &script, "sh"].map(str::to_owned);
    let setup = Setup::behind(shell.into_iter().chain(servers::node()));
    let setup = flags.iter().fold(setup, |setup, flag| setup.flag(flag));
    Some(setup.start())
}

/// Kills the server, which does not start again.
fn break_it(gateway: &Gateway, dir: &Path) {
    fs::write(dir.join("ill"), "no such module\n").unwrap();
    let pid = gateway.sidecar_pid("main");
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    gateway.wait_status("it is down", |status| {
        let main = &status["sidecars"][0];
        main["state"] == "backoff" && main["restarts"].as_u64() > Some(0)
    });
}

#[test]
fn a_restart_of_a_server_that_is_down_does_not_say_that_there_was_no_downtime() {
    for flags in [&[][..], &["--exclusive"]] {
        let dir = tempfile::tempdir().unwrap();
        let Some(gateway) = start(dir.path(), flags) else {
            return;
        };
        break_it(&gateway, dir.path());
        let failed = gateway.ctl(["restart"]);
        let text = said(&failed);
        assert_eq!(failed.status.code(), Some(1), "{text}");
        for words in [
            "main did not serve before",
            "until main serves, requests for it wait",
            "then get 503",
            "plan: main does not serve now: it is started anew",
        ] {
            assert!(text.contains(words), "no `{words}`: {text}");
        }
        for wrong in ["downtime 0 ms", "serves on", "finish its work"] {
            assert!(!text.contains(wrong), "`{wrong}`: {text}");
        }
        gateway.wait_line("stays, without main");

        fs::remove_file(dir.path().join("ill")).unwrap();
        let mended = gateway.restart();
        let text = said(&mended);
        assert!(text.contains("main did not serve before"), "{text}");
        for wrong in ["downtime 0 ms", "side by side"] {
            assert!(!text.contains(wrong), "`{wrong}`: {text}");
        }
        // Of a server that was up, it is counted as ever.
        let text = said(&gateway.restart());
        assert!(text.contains("downtime 0 ms"), "{text}");
    }
}

#[test]
fn why_of_a_crash_loop_has_the_last_words_of_the_server_and_the_next_command() {
    let dir = tempfile::tempdir().unwrap();
    let Some(gateway) = start(dir.path(), &[]) else {
        return;
    };
    break_it(&gateway, dir.path());
    gateway.wait_status("its last start failed", |status| {
        let words = &status["sidecars"][0]["lastWords"];
        words
            .as_array()
            .is_some_and(|lines| lines[0] == "no such module")
    });
    let text = said(&gateway.ctl(["why"]));
    let state = format!(" --state-dir {}", gateway.state_dir().display());
    for words in [
        "exited with code 4".to_owned(),
        "\n  | no such module\n".to_owned(),
        format!("next: gatewayctl logs --sidecar main{state}\n"),
        format!("next: gatewayctl restart{state}   (starts it now, when it is mended)"),
    ] {
        assert!(text.contains(&words), "no `{words}`: {text}");
    }
    let status = said(&gateway.ctl(["status"]));
    assert!(status.contains("| no such module"), "{status}");
    fs::remove_file(dir.path().join("ill")).unwrap();
    gateway.restart();
    // Where all is well there is nothing to do.
    let text = said(&gateway.ctl(["why"]));
    assert!(
        !text.contains("next:") && !text.contains("no such module"),
        "{text}"
    );
}

#[test]
fn a_wait_in_vain_names_the_gateway_in_its_next_command() {
    let dir = tempfile::tempdir().unwrap();
    let Some(gateway) = start(dir.path(), &[]) else {
        return;
    };
    break_it(&gateway, dir.path());
    let waited = gateway.ctl(["wait", "--ready", "--timeout", "100ms"]);
    let text = said(&waited);
    assert_eq!(waited.status.code(), Some(4), "{text}");
    let next = format!(
        "next: gatewayctl status --state-dir {}",
        gateway.state_dir().display()
    );
    assert!(text.contains(&next), "{text}");
}

#[test]
fn a_broken_new_version_is_not_told_to_run_alone_and_one_in_whose_way_another_copy_is() {
    let dir = tempfile::tempdir().unwrap();
    let Some(gateway) = start(dir.path(), &[]) else {
        return;
    };
    let ill = dir.path().join("ill");
    for (words, is_told) in [
        ("no such module", false),
        ("Error: listen EADDRINUSE: address already in use", true),
        ("sqlite3.OperationalError: database is locked", true),
        ("", true),
    ] {
        fs::write(&ill, words).unwrap();
        let text = said(&gateway.ctl(["restart"]));
        assert!(
            text.contains("exited with code 4") && text.contains(words),
            "{text}"
        );
        assert_eq!(text.contains("--exclusive"), is_told, "{text}");
    }
}

#[test]
fn a_restart_of_a_server_that_must_run_alone_says_how_long_requests_waited() {
    let dir = tempfile::tempdir().unwrap();
    let Some(gateway) = start(dir.path(), &["--exclusive"]) else {
        return;
    };
    for way in [&["restart"][..], &["restart", "--fresh"]] {
        let text = said(&gateway.ctl(way));
        let line = "downtime 0 ms, new requests waited up to ";
        assert!(text.contains(line), "{way:?}: {text}");
    }
}
