//! Servers that restart by their own means: the gateway holds the door, asks them, and waits until they
//! are ready again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::load::{Load, Running};
use crate::support::report::Part;
use crate::support::servers;
use gateway::internals::Stat;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A gateway before the small server of that way.
fn own(way: &str, reload: &str, more: &str) -> Option<Gateway> {
    if !servers::have("python3") {
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/own_restart.py");
    let text = format!(
        "[sidecar.main]\ncommand = [\"python3\", {script:?}, {way:?}, \"{{port}}\"]\nreload = {reload}\n{more}\n"
    );
    Some(Setup::new().config(text).start())
}

const USR2: &str = "{ signal = \"USR2\" }";

fn load(gateway: &Gateway) -> Running {
    let load = Load {
        new_per_second: 60.0,
        kept: 6,
        patience: Duration::from_secs(40),
        ..Load::on(gateway.target())
    }
    .start();
    load.flows(Part::New, 20);
    load
}

/// The process that answers, and how often it has begun.
fn ask(gateway: &Gateway) -> (u32, u32) {
    let answer = block_on(client::get(&gateway.target(), "/")).unwrap();
    let text = answer.text();
    let (pid, run) = text.trim().split_once(' ').unwrap();
    (pid.parse().unwrap(), run.parse().unwrap())
}

/// Restarts three times under load: nobody fails, and `pid` of the answers before and after is as it
/// is to be.
fn restarts(gateway: &Gateway, same_process: bool) {
    let load = load(gateway);
    for number in 1..=3 {
        let before = ask(gateway);
        let said = said(&gateway.restart());
        assert!(
            said.contains("main restarts by its own means (SIGUSR2)"),
            "{said}"
        );
        let (pid, run) = ask(gateway);
        assert_eq!(run, before.1 + 1, "{said}");
        assert_eq!(pid == before.0, same_process, "{said}");
        gateway.wait_status("that process is the sidecar", |status| {
            status["sidecars"][0]["pid"] == pid
        });
        assert_eq!(gateway.status()["generation"], number + 1);
    }
    load.flows(Part::New, 20);
    let report = load.stop();
    eprintln!("three restarts: {report}");
    report.assert_clean(&[(Part::New, 100), (Part::Busy, 20)]);
    let status = gateway.status();
    assert_eq!(status["sidecars"][0]["restarts"], 0, "{status:#}");
    let strategy = status["strategy"].as_str().unwrap();
    assert!(strategy.contains("restarts by its own means"), "{strategy}");
    let history = fs::read_to_string(gateway.state_dir().join("history.jsonl")).unwrap();
    assert_eq!(history.matches("\"reloading\"").count(), 3, "{history}");
}

#[test]
fn a_server_that_opens_its_listener_again() {
    let Some(gateway) = own("listen", USR2, "") else {
        return;
    };
    restarts(&gateway, true);
}

#[test]
fn a_server_that_runs_its_program_again_in_the_same_process() {
    let Some(gateway) = own("exec", USR2, "") else {
        return;
    };
    restarts(&gateway, true);
}

#[test]
fn a_server_that_goes_on_in_another_process_is_followed() {
    let Some(mut gateway) = own("spawn", USR2, "") else {
        return;
    };
    restarts(&gateway, false);
    // That one is the sidecar now: its death is noticed, and its end is waited for.
    let heir = ask(&gateway).0;
    kill(Pid::from_raw(heir as i32), Signal::SIGKILL).unwrap();
    gateway.wait_status("it is started again", |status| {
        let main = &status["sidecars"][0];
        main["restarts"] == 1 && main["state"] == "ready"
    });
    assert_eq!(ask(&gateway).1, 1);
    gateway.restart();
    let heir = ask(&gateway).0;
    gateway.terminate();
    let left = Stat::read(heir).filter(|stat| !stat.is_dead());
    assert_eq!(left, None, "pid {heir} is left");
}

#[test]
fn a_request_asks_for_the_restart_and_so_does_a_reload() {
    let Some(gateway) = own("post", "{ path = \"/reload\" }", "") else {
        return;
    };
    let load = load(&gateway);
    let output = gateway.restart();
    assert!(
        said(&output).contains("(POST /reload)"),
        "{}",
        said(&output)
    );
    assert_eq!(ask(&gateway).1, 2);
    let output = gateway.ctl(["reload"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(ask(&gateway).1, 3, "{}", said(&output));
    load.stop()
        .assert_clean(&[(Part::New, 20), (Part::Busy, 5)]);
}

#[test]
fn a_command_asks_for_the_restart_with_the_environment_of_the_sidecar() {
    // It ends when the server has restarted, which its answer tells.
    let script = "echo asked $MAINPID $MODE; test $MODE = good || exit 1; kill -USR2 $MAINPID; \
        until curl -s http://127.0.0.1:$PORT/ | grep -q ' 2$'; do sleep 0.05; done";
    let command = &format!("{{ command = [\"bash\", \"-c\", \"{script}\"] }}");
    let Some(gateway) = own("listen", command, "env = { MODE = \"good\" }") else {
        return;
    };
    let (pid, _) = ask(&gateway);
    gateway.restart();
    gateway.wait_line(&format!("[main] asked {pid} good"));
    assert_eq!(ask(&gateway), (pid, 2));

    let text = fs::read_to_string(gateway.config_file()).unwrap();
    let text = text.replace("MODE = \"good\"", "MODE = \"bad\"");
    fs::write(gateway.config_file(), text).unwrap();
    // Its specification is another one, so it is started anew.
    gateway.restart();
    let (pid, run) = ask(&gateway);
    assert_eq!(run, 1);
    let output = gateway.ctl(["restart"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("main has not restarted: bash exited with code 1"),
        "{text}"
    );
    assert_eq!(gateway.sidecar_pid("main"), pid);
}

#[test]
fn force_and_fresh_start_another_copy() {
    let Some(gateway) = own("ignore", USR2, "") else {
        return;
    };
    let first = ask(&gateway).0;
    for flag in ["--force", "--fresh"] {
        let output = gateway.ctl(["restart", flag]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(!said(&output).contains("own means"), "{}", said(&output));
        assert_ne!(ask(&gateway).0, first);
    }
}

#[test]
fn a_server_that_ignores_the_signal_serves_on_and_the_restart_has_failed() {
    let Some(gateway) = own("ignore", USR2, "start_timeout = \"4s\"") else {
        return;
    };
    let load = load(&gateway);
    let before = ask(&gateway);
    let restart = gateway.ctl_aside(["restart"]);
    // Requests wait at first, and go to the server again long before it is given up.
    gateway.wait_status("its door is open again", |status| {
        status["stage"] == "restarting" && status["sidecars"][0]["state"] == "ready"
    });
    load.flows(Part::New, 20);
    let output = restart.join().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("main shows no sign of a restart") && text.contains("after SIGUSR2"),
        "{text}"
    );
    assert_eq!(ask(&gateway), before);
    assert_eq!(gateway.status()["stage"], "ready");
    load.flows(Part::New, 20);
    load.stop()
        .assert_clean(&[(Part::New, 60), (Part::Busy, 10)]);
}

#[test]
fn a_server_that_dies_of_the_signal_is_started_again() {
    let Some(gateway) = own("listen", "{ signal = \"USR1\" }", "") else {
        return;
    };
    let load = load(&gateway);
    let before = ask(&gateway).0;
    let output = gateway.ctl(["restart"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let expected =
        format!("(pid {before}) was ended by SIGUSR1 after SIGUSR1: its main process does not");
    assert!(text.contains(&expected), "{text}");
    load.flows(Part::New, 20);
    assert_ne!(ask(&gateway).0, before);
    let status = gateway.status();
    assert_eq!(status["sidecars"][0]["restarts"], 1, "{status:#}");
    let report = load.stop();
    // What was at the server longer than short work takes; on a busy machine that may be some.
    report
        .died_with_the_server(10)
        .assert_clean(&[(Part::New, 40)]);
}

#[test]
fn a_server_that_is_not_ready_again_is_ended_and_started_again() {
    let Some(gateway) = own("lost", USR2, "start_timeout = \"3s\"") else {
        return;
    };
    let before = ask(&gateway).0;
    let restart = gateway.ctl_aside(["restart"]);
    gateway.wait_line("[main] the listener is closed");
    assert_ne!(
        ask(&gateway).0,
        before,
        "the request waited for the next one"
    );
    let output = restart.join().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("was not ready again"), "{text}");
}

/// The application's version, and how its workers begin.
fn application(dir: &Path, version: u32, begin: &str) {
    let app = format!(
        "import time\n{begin}\ndef app(environ, start):\n  start('200 OK', [])\n  return [b'0 {version}']\n"
    );
    fs::write(dir.join("app.py"), app).unwrap();
}

/// It keeps its main process and its listener, and replaces its workers.
#[test]
fn gunicorn_by_hup() {
    if !servers::have("gunicorn") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    application(dir.path(), 1, "");
    // When its workers cannot load the application, it sometimes waits that long for one that is gone,
    // 30 s if nothing is said: as long as clients are held.
    let text = format!(
        "[sidecar.main]\ncommand = [\"gunicorn\", \"-w\", \"2\", \"--graceful-timeout\", \"5\", \"--bind\", \"127.0.0.1:{{port}}\", \"--chdir\", {:?}, \"app:app\"]\nreload = {{ signal = \"HUP\" }}\n",
        dir.path()
    );
    // Two versions of one second and one length would be one for Python.
    let setup = Setup::new().env("PYTHONDONTWRITEBYTECODE", "1");
    let gateway = setup.config(text).start();
    let pid = gateway.sidecar_pid("main");
    let load = load(&gateway);
    for version in 2..=4 {
        application(dir.path(), version, "time.sleep(0.7)");
        let output = gateway.restart();
        assert_eq!(ask(&gateway).1, version, "{}", said(&output));
        assert_eq!(gateway.sidecar_pid("main"), pid);
    }
    load.flows(Part::New, 20);
    let report = load.stop();
    eprintln!("gunicorn, three restarts: {report}");
    report.assert_clean(&[(Part::New, 60), (Part::Busy, 10)]);

    // It ends when its workers cannot load the application.
    let load = self::load(&gateway);
    application(dir.path(), 5, "import nothing_like_that");
    let output = gateway.ctl(["restart", "--json"]);
    let text = said(&output);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let held = answer["clients"]["longestHoldMs"].as_u64().unwrap();
    assert!(held > 1000, "those who still wait have waited: {answer}");
    assert_eq!(output.status.code(), Some(1), "{text}");
    // With 3, or with 1 where both workers fail at once.
    assert!(text.contains("exited with code"), "{text}");
    assert!(text.contains("after SIGHUP"), "{text}");
    assert!(text.contains("Worker failed to boot"), "{text}");
    application(dir.path(), 6, "");
    assert_eq!(ask(&gateway).1, 6, "the request waited for the mended one");
    load.flows(Part::New, 20);
    load.stop().assert_clean(&[(Part::New, 60)]);
}

/// It keeps its main process and its listener, and ends its old workers when their work is done.
#[test]
fn nginx_by_hup() {
    if !servers::have("nginx") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let command = servers::nginx(dir.path());
    let own = dir.path().join(".nginx");
    let answer = |version: u32| format!("location / {{ return 200 \"0 {version}\"; }}");
    let template = own.join("template.conf");
    let text = fs::read_to_string(&template).unwrap();
    let root = format!("root {};", dir.path().display());
    fs::write(&template, text.replace(&root, &answer(1))).unwrap();
    let text = format!(
        "[sidecar.main]\ncommand = {command:?}\nreload = {{ signal = \"HUP\" }}\nstart_timeout = \"5s\"\n"
    );
    let gateway = Setup::new().config(text).start();
    let conf = own.join(format!("{}.conf", gateway.status()["sidecars"][0]["port"]));
    let pid = gateway.sidecar_pid("main");
    let load = load(&gateway);
    for version in 2..=4 {
        let text = fs::read_to_string(&conf).unwrap();
        let text = text.replace(&answer(version - 1), &answer(version));
        fs::write(&conf, text).unwrap();
        let output = gateway.restart();
        assert_eq!(ask(&gateway).1, version, "{}", said(&output));
        assert_eq!(gateway.sidecar_pid("main"), pid);
    }
    // It goes on with what it had, and replaces no worker.
    fs::write(&conf, "nonsense;").unwrap();
    let output = gateway.ctl(["restart"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("shows no sign of a restart"), "{text}");
    assert!(text.contains("unknown directive \"nonsense\""), "{text}");
    assert_eq!(ask(&gateway).1, 4);
    load.flows(Part::New, 20);
    let report = load.stop();
    eprintln!("nginx, three restarts and one that failed: {report}");
    report.assert_clean(&[(Part::New, 60), (Part::Busy, 10)]);
}
