//! What somebody meets in the first hour at a terminal.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::gateway::{Gateway, READY, Setup, ctl_in, said, scrub};
use crate::support::{nobody, port, servers, wait};
use nix::sys::signal::Signal;

/// A gateway that ends with the test, and its server with it.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// A Python server in which a piece of code runs before it serves.
fn python(code: &str) -> Vec<String> {
    let script = format!(
        "import os, sys, time\n{code}\nimport http.server\nhttp.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')\n"
    );
    ["python3", "-c", &script, "{port}"]
        .map(str::to_owned)
        .into()
}

#[test]
fn what_a_python_server_prints_is_seen_at_once() {
    if !servers::have("python3") {
        return;
    }
    let talks = python("print('hello from print', os.environ.get('PYTHONUNBUFFERED'))");
    let gateway = Setup::behind(talks.clone()).start();
    gateway.wait_line("[main] hello from print 1");
    // Whoever says otherwise has the last word.
    let gateway = Setup::behind(talks).env("PYTHONUNBUFFERED", "x").start();
    gateway.wait_line("[main] hello from print x");
}

#[test]
fn the_error_of_a_node_server_that_does_not_start_is_shown_whoever_started_it() {
    if !servers::have("node") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("server.js");
    for (code, expected) in [
        (
            "require('no-such-module-of-this-test')",
            "Error: Cannot find module 'no-such-module-of-this-test'",
        ),
        ("const x = ;", "SyntaxError: Unexpected token ';'"),
        (
            "function f(n) { if (n) f(n - 1); else throw new TypeError('no database') }\nf(30)",
            "TypeError: no database",
        ),
        (
            "Promise.reject(new Error('nobody caught this'))",
            "Error: nobody caught this",
        ),
    ] {
        fs::write(&script, code).unwrap();
        let mut gateway = Setup::behind(["node", script.to_str().unwrap(), "{port}"]).spawn();
        assert_ne!(gateway.exit_code(wait::DEADLINE), 0);
        let text = gateway.stderr();
        let (_, verdict) = text.split_once("before it was ready").unwrap();
        assert!(verdict.contains(expected), "{expected}: {text}");
        assert!(!verdict.contains("    at "), "no stack: {text}");
    }
}

#[test]
fn a_server_that_needs_longer_is_told_how_to_get_it() {
    if !servers::have("python3") {
        return;
    }
    let mut gateway = Setup::behind(python("time.sleep(600)"))
        .flag("--start-timeout=1s")
        .spawn();
    let line = gateway.wait_line("was not ready after ");
    assert!(
        line.contains("--start-timeout (start_timeout, 1s now)"),
        "{line}"
    );
    assert_ne!(gateway.exit_code(wait::DEADLINE), 0);
}

/// libsystemd takes no relative one: the server was never ready.
#[test]
fn a_relative_state_directory_gives_servers_an_absolute_notify_socket() {
    if !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let addr = format!("127.0.0.1:{}", port::private());
    let config = dir.path().join("gateway.toml");
    let command = servers::python_notify();
    let text = format!("[sidecar.main]\ncommand = {command:?}\nready = \"notify\"\n");
    fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    scrub(&mut command);
    let log = dir.path().join("log");
    let gateway = Started(
        command
            .args(["run", "--state-dir", "state", "--listen", &addr, "--config"])
            .arg(&config)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap(),
    );
    let ready = wait::within(wait::DEADLINE, || {
        let text = fs::read_to_string(&log).unwrap();
        text.contains(READY).then_some(())
    });
    let main = servers_of(gateway.0.id());
    let given = main.iter().find_map(|pid| variable(*pid, "NOTIFY_SOCKET"));
    drop(gateway);
    assert!(ready.is_some(), "{}", fs::read_to_string(&log).unwrap());
    let given = given.expect("it has a notify socket");
    assert!(Path::new(&given).is_absolute(), "{given}");
}

fn servers_of(gateway: u32) -> Vec<u32> {
    let path = format!("/proc/{gateway}/task/{gateway}/children");
    let tasks = fs::read_dir(format!("/proc/{gateway}/task"))
        .unwrap()
        .flatten();
    let mut all = fs::read_to_string(path).unwrap_or_default();
    for task in tasks {
        all += &fs::read_to_string(task.path().join("children")).unwrap_or_default();
    }
    all.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let text = String::from_utf8_lossy(&environment).into_owned();
    let begin = format!("{name}=");
    text.split('\0')
        .find_map(|pair| pair.strip_prefix(&begin).map(str::to_owned))
}

#[test]
fn who_may_not_listen_is_told_where_they_may() {
    if !nobody::can_be() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    nobody::copy_programs(dir.path());
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    nobody::own(&state);
    let mut words = vec![("unix:/run/of-gateway-test.sock", "$XDG_RUNTIME_DIR")];
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first.trim().parse::<u16>().unwrap() > 80 {
        words.push(("127.0.0.1:80", "a port above "));
    }
    for (listen, place) in words {
        let output = nobody::gateway(dir.path(), &state, listen)
            .output()
            .unwrap();
        let text = said(&output);
        assert!(!output.status.success(), "{text}");
        for part in [listen, "sudo", place] {
            assert!(text.contains(part), "no {part}: {text}");
        }
    }
}

#[test]
fn a_server_that_runs_alone_is_not_told_how_to_run_alone() {
    if !servers::have("node") {
        return;
    }
    let note = "side by side";
    let restarted = |setup: Setup, more: &[&str]| {
        let gateway = setup.start();
        let output = gateway.ctl([&["restart"], more].concat());
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let node = || Setup::behind(servers::node());
    for more in [&[][..], &["--fresh"]] {
        let alone = restarted(node().flag("--exclusive"), more);
        assert!(!alone.contains(note), "{alone}");
        let beside = restarted(node(), more);
        assert!(beside.contains(note), "{beside}");
    }
}

/// As logrotate does it, in either way.
#[test]
fn a_log_in_a_file_is_followed_when_it_is_moved_away_or_cut() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("gateway.log");
    let state = dir.path().join("state");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    scrub(&mut command);
    let gateway = Started(
        command
            .args(["run", "--config", "/dev/null", "--listen"])
            .arg(format!("127.0.0.1:{}", port::private()))
            .arg("--state-dir")
            .arg(&state)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap(),
    );
    let text = |path: &Path| {
        fs::read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    };
    let restart = || {
        let output = ctl_in(&state)
            .args(["restart", "--fresh"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    wait::until("it is ready", || text(&log).contains(READY).then_some(()));
    let moved = dir.path().join("gateway.log.1");
    fs::rename(&log, &moved).unwrap();
    let before = text(&moved).len();
    restart();
    wait::until("the new file has lines", || {
        text(&log).contains("restart").then_some(())
    });
    assert_eq!(
        text(&moved).len(),
        before,
        "nothing more is written to the old one"
    );
    // A successor follows, too.
    fs::rename(&log, dir.path().join("gateway.log.2")).unwrap();
    restart();
    wait::until("the next file has lines", || {
        text(&log).contains(READY).then_some(())
    });

    fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&log)
        .unwrap();
    restart();
    wait::until("it goes on after the cut", || {
        text(&log).contains(READY).then_some(())
    });
    assert!(!text(&log).contains('\0'), "it begins at its beginning");
    assert_eq!(
        fs::metadata(&log).unwrap().uid(),
        nix::unistd::geteuid().as_raw()
    );
    drop(gateway);
}

/// The throttle keeps the door open and the server away: a restart starts it, in this very process.
#[test]
fn the_plan_of_a_throttled_gateway_names_the_process_that_it_keeps() {
    if !servers::have("node") {
        return;
    }
    let setup = Setup::behind(servers::node())
        .env("GATEWAY_RECOVERY_THROTTLE_BASE", "100s")
        .env("GATEWAY_SUPERVISOR", "test-of-first-hour");
    let state = tempfile::tempdir().unwrap();
    let gateway = throttled(&setup.state_dir(state.path()));
    let pid = gateway.status()["pid"].clone();
    let strategy = gateway.status()["strategy"].as_str().unwrap().to_owned();
    assert!(
        strategy.starts_with("in-process: its sidecars wait"),
        "{strategy}"
    );
    let fresh = gateway.ctl(["restart", "--fresh"]);
    assert!(!fresh.status.success());
    assert!(
        said(&fresh).contains("`gatewayctl restart` starts them now"),
        "{}",
        said(&fresh)
    );
    let restarted = gateway.ctl(["restart"]);
    let text = said(&restarted);
    assert!(
        restarted.status.success() && !text.contains("fresh process"),
        "{text}"
    );
    assert_eq!(gateway.status()["pid"], pid);
    assert_eq!(gateway.status()["stage"], "ready");
}

/// Killed until a start waits.
fn throttled(setup: &Setup) -> Gateway {
    for _ in 0..5 {
        let gateway = setup.spawn();
        let status = gateway.wait_status("it is up", |status| {
            status["stage"] == "ready" || status["stage"] == "throttled"
        });
        if status["stage"] == "throttled" {
            return gateway;
        }
        gateway.kill();
    }
    panic!("no start waited")
}

#[test]
fn a_word_that_is_almost_right_is_answered_with_the_one_that_is_meant() {
    let ctl = |args: &[&str]| {
        let output = ctl_in(Path::new("/nonexistent"))
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        said(&output)
    };
    for (args, meant) in [
        (&["restrat"][..], "restart"),
        (&["stauts"], "status"),
        (&["restart", "--froce"], "--force"),
        (
            &["install", "--start-timout", "9s", "--", "x"],
            "--start-timeout",
        ),
        (&["list", "--sytem"], "--system"),
        (&["config", "chek"], "check"),
    ] {
        let text = ctl(args);
        assert!(text.contains(&format!("'{meant}'")), "{args:?}: {text}");
        let json = ctl(&[&["--json"], args].concat());
        assert!(
            json.contains("did you mean") && json.contains(meant),
            "{args:?}: {json}"
        );
    }
    for (args, meant) in [
        (&["ps"][..], "gatewayctl list"),
        (&["kill"], "gatewayctl stop"),
        (&["run", "--", "x"], "gateway run -- COMMAND"),
        (&["start", "--", "node", "app.js"], "gateway run -- node"),
        (
            &["config", "check", "a.toml"],
            "config check --config a.toml",
        ),
        (&["logs", "--since", "1h"], "--since 1h"),
    ] {
        for json in [false, true] {
            let flag = if json { &["--json"][..] } else { &[] };
            let text = ctl(&[flag, args].concat());
            assert!(text.contains(meant), "{args:?}: {text}");
        }
    }
    let gateway = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        scrub(&mut command);
        let output = command.args(args).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        said(&output)
    };
    for (args, meant) in [
        (&["rnu", "--", "x"][..], "gateway run"),
        (&["node", "server.js"], "gateway run -- node"),
        (&["run", "--lisen", "1", "--", "x"], "'--listen'"),
        (
            &["run", "--listen", "99999", "--", "x"],
            "from 1 to 65535, as in \"8080\"",
        ),
        (
            &["run", "--listen", "127.0.0.1:70000", "--", "x"],
            "from 1 to 65535",
        ),
        (&["run", "--port", "99999", "--", "x"], "--listen 8080"),
        (&["restart"], "gatewayctl restart"),
        (&["restrat"], "gatewayctl restart"),
    ] {
        let text = gateway(args);
        assert!(text.contains(meant), "{args:?}: {text}");
    }
}

/// A gateway that is found by its name; ended when dropped.
struct Named(std::process::Child);

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_name_that_is_almost_right_is_answered_with_the_one_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let alone = |program: &str| {
        let mut command = Command::new(program);
        scrub(&mut command);
        command
            .env("HOME", dir.path())
            .env("XDG_RUNTIME_DIR", dir.path())
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null());
        command
    };
    let listen = format!("127.0.0.1:{}", port::private());
    let _gateway = Named(
        alone(env!("CARGO_BIN_EXE_gateway"))
            .args(["run", "--instance", "web-shop", "--listen", &listen])
            .spawn()
            .unwrap(),
    );
    let ctl = |args: &[&str]| {
        let mut command = alone(env!("CARGO_BIN_EXE_gatewayctl"));
        command.args(["--user"]).args(args).output().unwrap()
    };
    let ready = ctl(&["wait", "--ready", "--instance", "web-shop"]);
    assert!(ready.status.success(), "{}", said(&ready));
    for command in ["status", "restart", "logs"] {
        let output = ctl(&[command, "--instance", "web-shpo"]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(3), "{command}: {text}");
        assert!(
            text.contains("did you mean --instance web-shop?"),
            "{command}: {text}"
        );
    }
}

/// In quotes as for ssh or npm, or with an assignment as before a command of a shell.
#[test]
fn a_command_that_is_typed_as_for_a_shell_is_answered_with_the_one_that_works() {
    let home = tempfile::tempdir().unwrap();
    for (command, works) in [
        (&["node server.js"][..], "-- node server.js"),
        (
            &["PORT=3", "A=x y", "node", "server.js"],
            "-e 'A=x y' -- node server.js",
        ),
        (
            &["MY_TOKEN=canary-17 node server.js"],
            "-e 'MY_TOKEN=***' -- node server.js",
        ),
        (&["cd /srv && node x.js"], "-- sh -c 'cd /srv && node x.js'"),
    ] {
        let mut gateway = Setup::behind(command.iter().copied()).spawn();
        assert_ne!(gateway.exit_code(wait::DEADLINE), 0);
        let text = gateway.stderr();
        assert!(
            text.contains(&format!("gateway run {works}")) && !text.contains("canary"),
            "{works}: {text}"
        );
        // This manager needs no service manager to be there.
        let install = ["install", "--user", "--for", "launchd", "--dry-run", "--"];
        let mut ctl = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
        scrub(&mut ctl);
        let ctl = ctl.args(install).args(command).stdin(Stdio::null());
        let output = ctl.env("HOME", home.path()).output().unwrap();
        let text = said(&output);
        assert!(
            !output.status.success()
                && text.contains(&format!("gatewayctl install … {works}"))
                && !text.contains("canary"),
            "{works}: {text}"
        );
    }
}

#[test]
fn a_port_in_capitals_or_of_a_shell_is_answered_with_the_form_that_is_filled() {
    for form in ["{PORT}", "$PORT", "${PORT}"] {
        let command = ["sh", "-c", "echo got \"$1\"; exit 3", "server", form];
        let mut gateway = Setup::behind(command).spawn();
        assert_ne!(gateway.exit_code(wait::DEADLINE), 0);
        let text = gateway.stderr();
        let warning = format!("sidecar main: {form} reaches the server as it is");
        let (Some(warned), Some(got)) = (text.find(&warning), text.find("got ")) else {
            panic!("{text}");
        };
        assert!(warned < got && text.contains("write {port}"), "{text}");
    }
}

#[test]
fn a_key_in_the_wrong_table_is_answered_with_its_table() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.toml");
    let server = "[sidecar.main]\ncommand = [\"true\"]\n";
    for (text, expected) in [
        (
            format!("listen = [\"8080\"]\n{server}"),
            ":1:1: unknown key `listen` (it belongs to [gateway])",
        ),
        (
            format!("{server}drian = \"9s\"\n"),
            ":3:1: unknown key `drian` (did you mean `drain`?)",
        ),
        (
            format!("{server}[gateway]\nstart_timeout = \"9s\"\n"),
            ":4:1: unknown key `start_timeout` (it belongs to [sidecar.NAME])",
        ),
        (
            "[web]\ncommand = [\"true\"]\n".to_owned(),
            ":1:2: unknown key `web` (a server is [sidecar.web]",
        ),
    ] {
        fs::write(&file, &text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        scrub(&mut command);
        let output = command.arg("check").arg("--config").arg(&file);
        let output = output.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{}", said(&output));
        let expected = format!("{}{expected}", file.display());
        assert!(
            said(&output).contains(&expected),
            "{text}: {}",
            said(&output)
        );
    }
}

/// The rest of the plan is worth a look all the same.
#[test]
fn an_install_from_a_directory_below_tmp_is_shown_with_why_it_would_be_refused() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let server = dir.path().join("server");
    fs::copy("/bin/sh", &server).unwrap();
    let install = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
        scrub(&mut command);
        let command = command
            .args([
                "install", "--system", "--for", "systemd", "--run-as", "nobody",
            ])
            .args(more)
            .arg("--")
            .arg(&server)
            .current_dir("/");
        command.stdin(Stdio::null()).output().unwrap()
    };
    let shown = install(&["--dry-run"]);
    let text = said(&shown);
    assert!(shown.status.success(), "{text}");
    for words in [
        "ExecStart=",
        "without --dry-run and --diff this is refused: the server `main` needs",
        "a service has a /tmp of its own; move it out of /tmp",
    ] {
        assert!(text.contains(words), "no `{words}`: {text}");
    }
}

/// What would be written is looked at before there is a service manager, as while an image is built.
#[test]
fn what_an_install_would_write_is_shown_where_no_service_manager_answers() {
    let home = tempfile::tempdir().unwrap();
    let install = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
        scrub(&mut command);
        let command = command
            .args(["install", "--user", "--ready", "/up"])
            .args(more)
            .args(["--", "sh", "-c", "x {port}"])
            .env("HOME", home.path())
            .env("XDG_RUNTIME_DIR", home.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .current_dir("/");
        command.stdin(Stdio::null()).output().unwrap()
    };
    for (flags, expected) in [
        (
            &["--dry-run"][..],
            &[
                "[sidecar.main",
                "ExecStart=",
                "would:",
                "enable gateway.service",
            ][..],
        ),
        (
            &["--dry-run", "--now", "--for", "systemd"],
            &["ExecStart=", "start gateway.service"],
        ),
        (&["--diff"], &["+ExecStart="]),
        (&["--dry-run", "--json"], &["\"files\"", "\"dry run\""]),
    ] {
        let output = install(flags);
        let text = said(&output);
        assert!(output.status.success(), "{flags:?}: {text}");
        for expected in expected {
            assert!(text.contains(expected), "{flags:?}: {expected}: {text}");
        }
        if flags.contains(&"--dry-run") {
            assert!(
                text.contains("this is what would be written where"),
                "{text}"
            );
        }
    }
    assert!(!install(&[]).status.success());
    let written = fs::read_dir(home.path()).unwrap().count();
    assert_eq!(written, 0, "nothing is written");
}
