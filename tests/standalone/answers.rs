//! What scripts and terminals see of gatewayctl: one JSON object each, exit codes, completions,
//! widths and colours.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::gateway::{Gateway, Setup, ctl_in, said, scrub};
use crate::support::schema::{object, schema_of};
use crate::support::{port, schema, servers, skip, wait};
use serde_json::Value;

/// gatewayctl for nobody: no gateway, no home of before.
fn alone(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
    command
        .args(args)
        .stdin(Stdio::null())
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home.join("run"));
    for variable in [
        "XDG_CONFIG_HOME",
        "XDG_STATE_HOME",
        "DBUS_SESSION_BUS_ADDRESS",
        "NO_COLOR",
        "TERM",
        "COLUMNS",
    ] {
        command.env_remove(variable);
    }
    scrub(&mut command);
    command
}

#[test]
fn every_answer_is_one_object_of_its_documented_shape() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(["node", servers::NODE_APP, "{port}"]).start();
    let json = |args: &[&str]| gateway.ctl(args.iter().chain(&["--json"]).map(OsString::from));
    let config = gateway.config_file();
    let config = config.to_str().unwrap();
    let fresh = gateway.dir().join("fresh.toml");
    for (args, shape) in [
        (&["status"][..], "status"),
        (&["status", "--deep"], "status"),
        (&["list"], "list"),
        (&["wait", "--ready"], "wait"),
        (&["why"], "why"),
        (&["restart", "--reason", "json"], "restart"),
        (&["why"], "why"),
        (&["reload"], "restart"),
        (&["history"], "history"),
        (&["config", "check", "--config", config], "config"),
        (
            &["config", "init", "--config", fresh.to_str().unwrap()],
            "config-init",
        ),
        (&["config", "init", "--stdout"], "text"),
        (&["completions", "bash"], "text"),
        (&["man"], "text"),
        (&["man", gateway.dir().to_str().unwrap()], "pages"),
    ] {
        let output = json(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", said(&output));
        object(&output, shape);
    }
    // Its exit code is the machine's.
    object(&json(&["doctor"]), "doctor");
    for args in [
        &["config", "show", "--config", config][..],
        &["config", "schema"],
    ] {
        assert!(
            serde_json::from_slice::<Value>(&json(args).stdout)
                .unwrap()
                .is_object(),
            "{args:?}"
        );
    }
    let recover = json(&["recover"]);
    object(
        &recover,
        if recover.status.success() {
            "outcome"
        } else {
            "error"
        },
    );
    let inhibited = gateway.ctl([
        "inhibit",
        "--json",
        "--why",
        "test",
        "--",
        "echo",
        "the command's own",
    ]);
    assert_eq!(
        inhibited.stdout, b"the command's own\n",
        "standard output belongs to the command"
    );
    object(&json(&["stop"]), "outcome");
    object(&json(&["stop"]), "outcome");
    object(&json(&["why"]), "why");
    let value = object(&json(&["status"]), "error");
    assert_eq!((&value["ok"], &value["exit"]), (&false.into(), &3.into()));
}

#[test]
fn the_schemas_tell_a_wrong_answer() {
    let schema = schema_of("wait");
    for (wrong, fault) in [
        (r#"{"ok":true,"state":"ready"}"#, "tookMs"),
        (r#"{"ok":1,"state":"ready","tookMs":1}"#, "boolean"),
    ] {
        let faults = schema::faults(&schema, &serde_json::from_str(wrong).unwrap());
        assert!(faults.iter().any(|text| text.contains(fault)), "{faults:?}");
    }
    let unknown = serde_json::json!({"ok": true, "instance": "a", "sentence": "", "cause": {"kind": "magic"}, "running": true, "evidence": []});
    assert!(!schema::faults(&schema_of("why"), &unknown).is_empty());
}

#[test]
fn every_error_has_its_exit_code_and_its_object() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let state = dir.join("state");
    let (state, gone) = (state.to_str().unwrap(), "/nonexistent/x");
    let bad = dir.join("bad.toml");
    std::fs::write(&bad, "[gateway]\nlisen = []\n").unwrap();
    let there = dir.join("there.toml");
    std::fs::write(&there, "").unwrap();
    let (bad, there) = (bad.to_str().unwrap(), there.to_str().unwrap());
    let root = nix::unistd::geteuid().is_root();
    let cases: Vec<(i32, Vec<&str>)> = vec![
        (2, vec!["no-such-command"]),
        (2, vec!["status", "please"]),
        (2, vec!["status", "--user", "--system"]),
        (2, vec!["restart", "--force", "--wait", "1s"]),
        (2, vec!["wait", "--timeout", "soon"]),
        (2, vec!["history", "-n", "many"]),
        (2, vec!["completions", "tcsh"]),
        (2, vec!["inhibit", "--", "true"]),
        (3, vec!["status", "--state-dir", state]),
        (3, vec!["why", "--state-dir", state]),
        (3, vec!["history", "--state-dir", state]),
        (3, vec!["restart", "--state-dir", state]),
        (3, vec!["reload", "--state-dir", state]),
        (3, vec!["recover", "--state-dir", state]),
        (
            3,
            vec!["update", "--check", "/bin/true", "--state-dir", state],
        ),
        (3, vec!["logs", "--state-dir", state]),
        (3, vec!["list", "--state-dir", state]),
        (
            3,
            vec!["inhibit", "--state-dir", state, "--why", "x", "--", "true"],
        ),
        (3, vec!["start", "--instance", "nobody-has-this"]),
        (
            3,
            vec!["wait", "--ready", "--timeout", "50ms", "--state-dir", state],
        ),
        (5, vec!["config", "init", "--config", there]),
        (78, vec!["config", "check", "--config", bad]),
        (78, vec!["config", "show", "--config", bad]),
        (1, vec!["man", "/proc/nowhere"]),
        (0, vec!["stop", "--state-dir", state]),
        (0, vec!["uninstall", "--instance", "nobody-has-this"]),
        (0, vec!["wait", "--stopped", "--state-dir", state]),
    ];
    for (code, args) in cases {
        let plain = alone(dir, &args).output().unwrap();
        assert_eq!(
            plain.status.code(),
            Some(code),
            "{args:?}: {}",
            said(&plain)
        );
        if code != 0 {
            assert!(
                plain.stdout.is_empty() && !plain.stderr.is_empty(),
                "errors go to standard error: {args:?}: {}",
                said(&plain)
            );
        }
        // Before `--`: what follows belongs to another command.
        let at = args
            .iter()
            .position(|word| *word == "--")
            .unwrap_or(args.len());
        let with = [&args[..at], &["--json"], &args[at..]].concat();
        let output = alone(dir, &with).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{with:?}: {}",
            said(&output)
        );
        if code != 0 {
            let value = object(&output, "error");
            assert_eq!(
                (&value["ok"], &value["exit"]),
                (&false.into(), &code.into()),
                "{args:?}"
            );
            assert!(!value["error"].as_str().unwrap().is_empty(), "{args:?}");
        } else {
            assert!(
                serde_json::from_slice::<Value>(&output.stdout)
                    .unwrap()
                    .is_object(),
                "{args:?}: {}",
                said(&output)
            );
        }
    }
    if !root {
        let output = alone(dir, &["--system", "install", "--json", "--", "sleep", "9"])
            .output()
            .unwrap();
        assert!(
            matches!(output.status.code(), Some(77 | 1)),
            "{}",
            said(&output)
        );
    }
    let output = alone(dir, &["config", "check", "--config", gone, "--json"])
        .output()
        .unwrap();
    assert_ne!(output.status.code(), Some(0), "{}", said(&output));
    object(&output, "error");
}

#[test]
fn completions_load_in_every_shell_that_reads_them() {
    let home = tempfile::tempdir().unwrap();
    let units = home.path().join(".config/systemd/user");
    std::fs::create_dir_all(&units).unwrap();
    let unit = "[Service]\nExecStart=/usr/bin/gateway run --instance wharf\n";
    std::fs::write(units.join("gateway@wharf.service"), unit).unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_gatewayctl"))
        .parent()
        .unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    for (shell, check) in [
        (
            "bash",
            "source ./file && complete -p gatewayctl && complete -p gateway && COMP_WORDS=(gatewayctl wh) COMP_CWORD=1 && _gatewayctl gatewayctl wh gatewayctl && printf '%s\\n' \"${COMPREPLY[@]}\" && COMP_WORDS=(gatewayctl why --instance wh) COMP_CWORD=3 && _gatewayctl gatewayctl wh --instance && printf '%s\\n' \"${COMPREPLY[@]}\"",
        ),
        (
            "zsh",
            "autoload -U compinit && compinit -u -d ./dump && source ./file && whence -w _gatewayctl && print -r -- why: ${(k)_comps[gatewayctl]}$_comps[gatewayctl] && functions _gatewayctl_commands | grep why && functions _gatewayctl | grep -q _gateway_names && compadd() { print -rl -- ${(P)2} } && functions _gateway_names >/dev/null && _gateway_names",
        ),
        (
            "fish",
            "source ./file; and complete -C 'gatewayctl wh'; and complete -C 'gatewayctl why --instance wh'; and complete -C 'gateway run --instance wh'",
        ),
    ] {
        if !skip::unless_there(shell) {
            continue;
        }
        let script = alone(home.path(), &["completions", shell])
            .output()
            .unwrap();
        assert!(script.status.success(), "{}", said(&script));
        std::fs::write(home.path().join("file"), &script.stdout).unwrap();
        let flags: &[&str] = if shell == "zsh" {
            &["-f", "-c"]
        } else {
            &["-c"]
        };
        let output = Command::new(shell)
            .args(flags)
            .arg(check)
            .current_dir(home.path())
            .env("HOME", home.path())
            .env("PATH", &path)
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{shell}: {}",
            said(&output)
        );
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("why"), "{shell}: {text}");
        assert!(
            text.lines()
                .any(|line| line.split('\t').next() == Some("wharf")),
            "{shell} knows no name behind --instance: {text}"
        );
    }
}

/// gatewayctl on a terminal of this size; what it showed.
struct Terminal {
    child: Child,
    screen: File,
}

impl Terminal {
    fn start(mut command: Command, columns: u16) -> Self {
        let size = nix::pty::Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = nix::pty::openpty(Some(&size), None).unwrap();
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let child = command
            .stdin(end(&pty.slave))
            .stdout(end(&pty.slave))
            .stderr(end(&pty.slave))
            .spawn()
            .unwrap();
        Self {
            child,
            screen: File::from(pty.master),
        }
    }

    /// Everything until it ends.
    fn all(mut self) -> String {
        let mut text = Vec::new();
        // The end of a terminal is an error to whoever reads its other end.
        let _ = self.screen.read_to_end(&mut text);
        self.child.wait().unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Reads on until `word` was shown.
    fn until(&mut self, word: &str) -> String {
        let mut text = String::new();
        let mut piece = [0; 4096];
        while !text.contains(word) {
            let read = self.screen.read(&mut piece).unwrap();
            assert!(read > 0, "it ended without `{word}`: {text}");
            text.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        text
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn asking(gateway: &Gateway, args: &[&str]) -> Command {
    let mut command = ctl_in(gateway.state_dir());
    command
        .args(args)
        .env_remove("NO_COLOR")
        .env("TERM", "xterm");
    command
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let gateway = Setup::new().start();
    let colored = |command: Command| {
        let mut command = command;
        command.stdin(Stdio::null());
        Terminal::start(command, 80).all().contains("\x1b[")
    };
    assert!(colored(asking(&gateway, &["status"])));
    for (variable, value, shown) in [
        ("NO_COLOR", "1", false),
        ("NO_COLOR", "", true),
        ("TERM", "dumb", false),
    ] {
        let mut command = asking(&gateway, &["status"]);
        command.env(variable, value);
        assert_eq!(colored(command), shown, "{variable}={value}");
    }
    assert!(!colored(asking(&gateway, &["status", "--color", "never"])));
    let piped = asking(&gateway, &["status"]).output().unwrap();
    assert!(!piped.stdout.contains(&0x1b), "a pipe is no terminal");
    let forced = asking(&gateway, &["status", "--color", "always"])
        .output()
        .unwrap();
    assert!(forced.stdout.contains(&0x1b));
    let json = asking(&gateway, &["status", "--json", "--color", "always"])
        .output()
        .unwrap();
    assert!(!json.stdout.contains(&0x1b), "JSON has no colours");
    for locale in ["C", "de_DE.ISO-8859-1"] {
        let output = asking(&gateway, &["status"])
            .env("LC_ALL", locale)
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stdout.is_ascii(),
            "{}",
            said(&output)
        );
    }
    let output = asking(&gateway, &["status"])
        .arg("--instance")
        .arg(OsStr::from_bytes(b"\xff"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[test]
fn help_is_as_wide_as_the_terminal() {
    let home = tempfile::tempdir().unwrap();
    for (columns, most) in [(60_u16, 60), (100, 100)] {
        let text = Terminal::start(alone(home.path(), &["restart", "--help"]), columns).all();
        let widest = text
            .lines()
            .map(|line| strip(line).chars().count())
            .max()
            .unwrap();
        assert!(
            widest <= most && widest > most / 2,
            "{columns}: {widest}\n{text}"
        );
    }
}

/// A line without its colours.
fn strip(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let mut text = parts.next().unwrap_or_default().to_owned();
    parts.for_each(|part| text.push_str(part.split_once('m').map_or("", |(_, rest)| rest)));
    text.trim_end().to_owned()
}

#[test]
fn whoever_stops_reading_ends_it_quietly() {
    let gateway = Setup::new().start();
    for args in [
        &["status"][..],
        &["man"],
        &["completions", "bash"],
        &["status", "--help"],
        &["status", "--json"],
        &["status", "--watch"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = asking(&gateway, args)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let status = wait::within(wait::DEADLINE, || child.try_wait().unwrap());
        let _ = child.kill();
        let mut errors = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut errors)
            .unwrap();
        assert_eq!(
            status.and_then(|status| status.code()),
            Some(0),
            "{args:?}: {errors}"
        );
        assert_eq!(errors, "", "{args:?}");
    }
}

#[test]
fn a_watched_status_follows_a_restart_and_the_end() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(["node", servers::NODE_APP, "{port}"]).start();
    let mut screen = Terminal::start(asking(&gateway, &["status", "--watch"]), 40);
    let first = screen.until("generation 1");
    assert!(first.starts_with("\x1b[2J\x1b[H"), "{first:?}");
    let mut piped = asking(&gateway, &["status", "--watch", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(piped.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let change = lines.next().unwrap();
    let faults = schema::faults(&schema_of("change"), &change);
    assert!(faults.is_empty(), "{faults:?} in: {change:#}");
    assert_eq!(
        (&change["stage"], &change["status"]["generation"]),
        (&"ready".into(), &1.into())
    );
    gateway.restart();
    let shown = screen.until("generation 2");
    let widest = shown
        .split("\r\n")
        .map(|line| {
            strip(
                &line
                    .replace("\x1b[H", "")
                    .replace("\x1b[K", "")
                    .replace("\x1b[J", ""),
            )
            .chars()
            .count()
        })
        .max();
    assert!(widest.unwrap() <= 40, "{shown}");
    assert!(
        lines
            .by_ref()
            .any(|change| change["status"]["generation"] == 2 && change["stage"] == "ready")
    );
    gateway.stop();
    screen.until("no gateway runs");
    let last = lines.next().unwrap();
    assert!(
        last["stage"] == "not running" || last["stage"] == "stopping",
        "{last:#}"
    );
    piped.kill().unwrap();
    piped.wait().unwrap();
}

#[test]
fn the_log_of_a_gateway_started_by_hand_is_where_its_output_went() {
    let mut gateway = Setup::new().start();
    let output = gateway.ctl(["logs"]);
    assert!(
        output.status.success()
            && said(&output).contains("its output goes to the terminal or program that started it"),
        "{}",
        said(&output)
    );
    let output = gateway.ctl(["logs", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let error = object(&output, "error");
    let text = error["error"].as_str().unwrap();
    assert!(text.contains("there are no entries to show"), "{text}");
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    gateway.wait_exit(wait::DEADLINE);
    let output = gateway.ctl(["logs"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    std::io::stdout().flush().unwrap();
}

#[test]
fn the_log_in_a_file_of_a_gateway_by_hand_has_entries_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    let (state, log) = (dir.path().join("state"), dir.path().join("gateway.log"));
    let script = format!(
        "exec \"$0\" run --state-dir {} --listen 127.0.0.1:{} 2>{}",
        state.display(),
        port::private(),
        log.display()
    );
    let mut command = Command::new("sh");
    scrub(&mut command);
    let command = command.args(["-c", &script, env!("CARGO_BIN_EXE_gateway")]);
    let mut gateway = command.stdin(Stdio::null()).spawn().unwrap();
    wait::until("it is ready", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("[gateway] ready (").then_some(())
    });
    let logs = |more: &[&str]| {
        let mut command = ctl_in(&state);
        let output = command.args(["logs", "--json"]).args(more).output();
        output.unwrap()
    };
    let all = object(&logs(&[]), "logs");
    let lines: Vec<&str> = (all["lines"].as_array().unwrap().iter())
        .map(|line| line.as_str().unwrap())
        .collect();
    assert!(
        lines.iter().any(|line| line.contains("[gateway] ready (")),
        "{all:#}"
    );
    assert_eq!(all["output"], log.to_str().unwrap());
    let last = object(&logs(&["-n", "1"]), "logs");
    assert_eq!(
        last["lines"].as_array().unwrap()[..],
        [*lines.last().unwrap()]
    );
    let followed = logs(&["--follow"]);
    assert_eq!(followed.status.code(), Some(2), "{}", said(&followed));
    assert!(said(&followed).contains("tail -F "), "{}", said(&followed));
    let pid = nix::unistd::Pid::from_raw(gateway.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    gateway.wait().unwrap();
}

/// Without a name, nothing at all is a list, too.
#[test]
fn the_list_of_no_gateways_is_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = alone(dir.path(), &["--user", "list", "--json"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let list = object(&output, "list");
    assert_eq!(list["instances"], serde_json::json!([]));
}
