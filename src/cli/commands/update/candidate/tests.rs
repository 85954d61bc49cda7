use std::process::Command;
use std::time::Duration;

use super::*;
use crate::cli::commands::update::running::Trial;
use crate::os::credentials::Credentials;

const GOOD: &str = "case $1 in --version) echo 'gateway 0.2.0 (handover 1, control 1)';; esac";

fn script(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("candidate");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A gateway whose process cannot be looked at.
fn unseen() -> RunningProgram {
    RunningProgram {
        instance: "gateway".into(),
        program: "/bin/sh".into(),
        pid: None,
        is_own: true,
        service: None,
        trial: Trial {
            user: Credentials::of_this_process(),
            arguments: vec!["check".into()],
            environment: None,
            directory: None,
        },
    }
}

async fn prove_file(file: &Path) -> Result<Candidate, CliError> {
    // Another thread that is between fork and exec may hold the file open for writing for a moment.
    loop {
        match prove(file, &unseen(), HANDOVER_VERSION).await {
            Err(error) if error.message.contains("still being written") => {
                tokio::task::yield_now().await
            }
            result => return result,
        }
    }
}

async fn prove_script(text: &str) -> Result<Candidate, CliError> {
    let dir = tempfile::tempdir().unwrap();
    prove_file(&script(dir.path(), text)).await
}

async fn refusal(text: &str) -> (Exit, String) {
    let error = prove_script(text).await.unwrap_err();
    let last = error.lines.last().map(String::as_str);
    assert_eq!(last, Some("nothing was changed"), "{error:?}");
    (
        error.exit,
        format!("{}\n{}", error.message, error.lines.join("\n")),
    )
}

#[test]
fn versions_are_read() {
    let good = Versions {
        program: "0.1.0".into(),
        handover: 1,
        control: 2,
    };
    assert_eq!(parse("gateway 0.1.0 (handover 1, control 2)\n"), Some(good));
    assert_eq!(
        parse("gateway 1.0.0-rc.1 (handover 1, control 2, colour 3)\n")
            .unwrap()
            .program,
        "1.0.0-rc.1"
    );
    for wrong in [
        "",
        "gateway 0.1.0",
        "nginx 1.0 (handover 1, control 1)",
        "gateway 0.1.0 (handover 1)",
        "gateway x y (handover 1, control 1)",
    ] {
        assert_eq!(parse(wrong), None, "{wrong}");
    }
    let own = format!(
        "gateway {} (handover {HANDOVER_VERSION}, control {PROTOCOL_VERSION})",
        env!("CARGO_PKG_VERSION")
    );
    let shown = <crate::cli::args::GatewayCli as clap::CommandFactory>::command().render_version();
    assert_eq!(shown.trim(), own);
}

#[tokio::test]
async fn a_good_one_is_taken() {
    assert_eq!(prove_script(GOOD).await.unwrap().version, "0.2.0");
}

#[tokio::test]
async fn what_is_no_gateway_or_cannot_take_over_is_refused() {
    let versions = |handover, control| {
        format!("echo 'gateway 9.0.0 (handover {handover}, control {control})'")
    };
    for (text, expected) in [
        ("echo hello", "--version says `hello`"),
        ("echo gateway 0.1.0", "--version says `gateway 0.1.0`"),
        (
            &versions(2, 1),
            "speaks hand-over version 2, the running gateway 1",
        ),
        (&versions(1, 7), "speaks control version 7"),
        ("exit 3", "--version ended with code 3"),
        ("kill -9 $$", "--version was ended by signal 9"),
    ] {
        let (exit, message) = refusal(text).await;
        assert!(
            exit == Exit::Refused && message.contains(expected),
            "{text}: {message}"
        );
    }
}

#[tokio::test]
async fn a_crash_in_check_and_a_refused_configuration() {
    for (check, expected, text) in [
        (
            "echo cannot bear it; kill -11 $$",
            Exit::Refused,
            "was ended by signal 11\n  | cannot bear it",
        ),
        (
            "echo g.toml:1:1: bad; exit 78",
            Exit::Config,
            "refuses the configuration of gateway\n  | g.toml:1:1: bad",
        ),
    ] {
        let (exit, message) = refusal(&format!("{GOOD}; [ $1 != check ] || {{ {check}; }}")).await;
        assert!(exit == expected && message.contains(text), "{message}");
    }
}

#[tokio::test]
async fn files_that_cannot_be_executed_are_named_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let missing = prove_file(&path).await.unwrap_err();
    assert_eq!(missing.exit, Exit::Usage);
    // An ELF header and nothing that this machine could run.
    std::fs::write(&path, [&b"\x7fELF\x02\x01\x01"[..], &[0; 57]].concat()).unwrap();
    let plain = prove_file(&path).await.unwrap_err();
    assert!(
        plain.message.contains("is not executable") && plain.help.unwrap().starts_with("chmod +x")
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let foreign = prove_file(&path).await.unwrap_err();
    assert!(
        foreign.exit == Exit::Refused && foreign.message.contains("for another machine"),
        "{foreign:?}"
    );
    let directory = prove_file(dir.path()).await.unwrap_err();
    assert!(directory.message.contains("is not a file"), "{directory:?}");
    let same = prove_file(Path::new("/bin/sh")).await.unwrap_err();
    assert!(same.message.contains("runs already"), "{same:?}");
    let own = std::env::current_exe().unwrap();
    let running = RunningProgram {
        pid: Some(std::process::id()),
        ..unseen()
    };
    let running = prove(&own, &running, HANDOVER_VERSION).await;
    let running = running.unwrap_err();
    assert!(running.message.contains("runs already"), "{running:?}");
}

#[tokio::test]
async fn one_that_hangs_is_ended() {
    let mut command = Command::new("sleep");
    command.arg("1000");
    let answer = run(command, Duration::from_millis(50)).await.unwrap();
    assert_eq!(answer.code(), None);
    assert_eq!(answer.ended(), "did not end within 50ms");
}
