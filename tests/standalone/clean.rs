//! `gatewayctl clean` from outside, each test named after what somebody saw.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::clean::{OBEDIENT, verdict};
use crate::support::client::{Target, block_on, get};
use crate::support::gateway::{Gateway, Setup, ctl_in, said, scrub};
use crate::support::handover::{alive, fresh, respawning, signal, wait_end};
use crate::support::hold::{deafen, hear};
use crate::support::load::Load;
use crate::support::report::Part;
use crate::support::{namespace, nobody, port, servers, skip, wait};
use gateway::internals::Stat;
use nix::sys::signal::Signal;
use serde_json::Value;

/// A program that holds a listener of a port; ended when dropped.
struct Stranger {
    child: Child,
    port: u16,
}

impl Stranger {
    /// `program` with the listener as its standard input.
    fn start(program: &Path) -> Self {
        Self::of(Command::new(program).arg("1000"))
    }

    fn of(command: &mut Command) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port::private())).unwrap();
        let port = listener.local_addr().unwrap().port();
        let child = command
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn()
            .unwrap();
        // The command would hold it as well.
        command.stdin(Stdio::null());
        Self { child, port }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `gatewayctl clean --json` of an instance in `state` at a port.
fn clean(state: &Path, port: u16, more: &[&str]) -> Output {
    ctl_in(state)
        .args([
            "--json",
            "--config",
            "/dev/null",
            "clean",
            "--port",
            &port.to_string(),
        ])
        .args(more)
        .output()
        .unwrap()
}

/// Exit code and report.
fn report(output: &Output) -> (i32, Value) {
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(output)));
    let report = answer.get("clean").cloned().unwrap_or(answer);
    (output.status.code().unwrap(), report)
}

fn stop(pid: u32) {
    signal(pid, Signal::SIGSTOP);
    wait::until("it is stopped", || {
        Stat::read(pid).filter(|stat| stat.state == 'T')
    });
}

/// Ways in which something of a sidecar runs a command.
const WAYS: [(&str, &str); 3] = [
    ("itself", "CTL"),
    ("its grandchild", "sh -c 'CTL; true'; true"),
    ("a helper without a parent", "setsid --fork sh -c 'CTL'"),
];

#[test]
fn a_sidecar_that_cleans_does_not_kill_its_own_gateway() {
    if !servers::have("node") || !skip::unless_there("setsid") || !skip::unless_there("prlimit") {
        return;
    }
    let gateway = Setup::behind(["sh", "-c", OBEDIENT, "sh", "{port}", servers::NODE_APP]).start();
    let order = |name: &str, way: &str| {
        let answer = gateway.dir().join(name);
        let ctl = format!(
            "{} --json --config /dev/null --state-dir {} clean --port {} > {1}.part; echo $? >> {1}.part; mv {1}.part {}",
            env!("CARGO_BIN_EXE_gatewayctl"),
            gateway.state_dir().display(),
            gateway.addr().port(),
            answer.display()
        );
        fs::write(
            gateway.dir().join("orders"),
            format!("{}\n", way.replace("CTL", &ctl)),
        )
        .unwrap();
        let text = wait::until(name, || fs::read_to_string(&answer).ok());
        let (text, code) = text.trim_end().rsplit_once('\n').unwrap();
        let answer: Value = serde_json::from_str(text).unwrap();
        (
            code.parse::<i32>().unwrap(),
            answer.get("clean").cloned().unwrap_or(answer),
        )
    };
    for (who, way) in WAYS {
        let (code, report) = order(&format!("healthy-by-{}", who.replace(" ", "-")), way);
        let verdict = verdict(&report, gateway.pid());
        // Of a helper without a parent it counts that the gateway answers.
        let wanted = if way.starts_with("setsid") {
            "kept owns"
        } else {
            "kept ancestor"
        };
        assert_eq!(
            (verdict.as_str(), code, report["state"].as_str()),
            (wanted, 0, Some("ours")),
            "{who}: {report:#}"
        );
    }
    // It hangs, so that nothing but its kinship speaks for it: of a helper without a parent, what is in
    // its environment.
    deafen(gateway.pid());
    for (who, way) in WAYS {
        let (code, report) = order(&format!("hung-by-{}", who.replace(' ', "-")), way);
        assert_eq!(
            (verdict(&report, gateway.pid()).as_str(), code),
            ("kept ancestor", 0),
            "{who}: {report:#}"
        );
    }
    hear(gateway.pid());
    assert_eq!(
        block_on(get(&gateway.target(), "/pid")).unwrap().status(),
        200
    );
}

#[test]
fn a_hung_gateway_that_nobody_looks_after_is_ended_and_the_port_is_free() {
    if !skip::unless_there("prlimit") {
        return;
    }
    let mut hung = Setup::new().start();
    deafen(hung.pid());
    let port = hung.addr().port();
    let dry = clean(hung.state_dir(), port, &["--dry-run"]);
    let (code, told) = report(&dry);
    assert_eq!(
        (code, verdict(&told, hung.pid()).as_str()),
        (0, "killed silent"),
        "{told:#}"
    );
    assert!(alive(hung.pid()), "a dry run does nothing");
    let begun = Instant::now();
    let (code, told) = report(&clean(hung.state_dir(), port, &[]));
    // The questions are asked at once: 1 s for the address, 2 s, 1 s again, 1 s for the signals.
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        (
            code,
            verdict(&told, hung.pid()).as_str(),
            told["state"].as_str()
        ),
        (0, "killed silent", Some("free")),
        "{told:#}"
    );
    hung.wait_exit(wait::DEADLINE);
    let next = Setup::new().port(port).start();
    assert_eq!(next.status()["stage"], "ready");
}

#[test]
fn a_gateway_that_was_suspended_with_ctrl_z_is_no_leftover() {
    if !skip::unless_there("python3") {
        return;
    }
    let (dir, port) = (tempfile::tempdir().unwrap(), port::private());
    let on_terminal = "import pty, sys; pty.spawn(sys.argv[1:])";
    // The shell gives the job a process group of its own, and lives as long as its terminal.
    let job = format!(
        "{} run --listen 127.0.0.1:{port} --state-dir {}; cat",
        env!("CARGO_BIN_EXE_gateway"),
        dir.path().display()
    );
    let mut command = Command::new("python3");
    scrub(&mut command);
    let mut terminal = command
        .args(["-c", on_terminal, "sh", "-mc", &job])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = wait::until("it is ready", || {
        let output = ctl_in(dir.path())
            .args(["--json", "status"])
            .output()
            .unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        (status["stage"] == "ready").then(|| status["pid"].as_u64().unwrap() as u32)
    });
    let mut keys = terminal.stdin.take().unwrap();
    keys.write_all(b"\x1a").unwrap();
    wait::until("it is suspended", || {
        Stat::read(pid).filter(|stat| stat.state == 'T')
    });
    let (code, told) = report(&clean(dir.path(), port, &[]));
    assert_eq!(
        (code, verdict(&told, pid).as_str()),
        (0, "kept suspended"),
        "{told:#}"
    );
    assert!(told.to_string().contains("`fg` continues it"), "{told:#}");
    let resumes = format!("kill -CONT {pid}");
    assert!(told.to_string().contains(&resumes), "{told:#}");
    // Who means it says so.
    let (_, told) = report(&clean(
        dir.path(),
        port,
        &["--force", "--pid", &pid.to_string()],
    ));
    assert_eq!(verdict(&told, pid), "killed named", "{told:#}");
    drop(keys);
    let _ = terminal.kill();
    terminal.wait().unwrap();
}

/// An operator's SIGSTOP, as without a terminal, was taken for a hang.
#[test]
fn a_gateway_that_was_stopped_by_a_signal_is_kept_and_goes_on() {
    let gateway = Setup::new().start();
    let (pid, port) = (gateway.pid(), gateway.addr().port());
    stop(pid);
    let elsewhere = tempfile::tempdir().unwrap();
    let (_, told) = report(&clean(gateway.state_dir(), port, &[]));
    assert_eq!(verdict(&told, pid), "kept suspended", "{told:#}");
    let output = clean(elsewhere.path(), port, &[]);
    let (code, told) = report(&output);
    assert_eq!(
        (code, verdict(&told, pid).as_str()),
        (5, "kept suspended"),
        "{told:#}"
    );
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let next = format!("next: kill -CONT {pid}");
    assert!(text.contains(&next), "{text}");
    gateway.signal(Signal::SIGCONT);
    let answer = block_on(get(&gateway.target(), "/healthz")).unwrap();
    assert_eq!(answer.status(), 200);
}

#[test]
fn a_hung_gateway_is_ended_at_its_unix_front_door_too() {
    if !skip::unless_there("prlimit") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (door, port) = (dir.path().join("front.sock"), port::private());
    let at = format!("unix:{}", door.display());
    let config = format!("[gateway]\nlisten = [\"127.0.0.1:{port}\", \"{at}\"]\n");
    let setup = Setup::new()
        .port(port)
        .flag("--listen")
        .flag(&at)
        .config(config);
    let mut hung = setup.start();
    let run = || {
        ctl_in(hung.state_dir())
            .arg("--config")
            .arg(hung.config_file())
            .args(["--json", "clean"])
            .output()
            .unwrap()
    };
    let (code, told) = report(&run());
    assert_eq!(
        (
            code,
            verdict(&told, hung.pid()).as_str(),
            told["state"].as_str()
        ),
        (0, "kept owns", Some("ours")),
        "{told:#}"
    );
    deafen(hung.pid());
    let (code, told) = report(&run());
    assert_eq!(
        (
            code,
            verdict(&told, hung.pid()).as_str(),
            told["state"].as_str()
        ),
        (0, "killed silent", Some("free")),
        "{told:#}"
    );
    assert_eq!(
        told["addresses"],
        serde_json::json!([format!("127.0.0.1:{port}"), at])
    );
    hung.wait_exit(wait::DEADLINE);
    let next = setup.start();
    assert_eq!(
        block_on(get(&Target::Unix(door), "/healthz"))
            .unwrap()
            .status(),
        200,
        "{}",
        next.stderr()
    );
}

#[test]
fn a_foreign_program_is_named_and_left_alone_and_goes_only_when_it_is_named() {
    let (stranger, state) = (
        Stranger::start(Path::new("sleep")),
        tempfile::tempdir().unwrap(),
    );
    let (pid, uid) = (stranger.pid(), nix::unistd::geteuid());
    let output = clean(state.path(), stranger.port, &[]);
    let (code, told) = report(&output);
    assert_eq!(
        (code, verdict(&told, pid).as_str(), told["state"].as_str()),
        (5, "kept foreign", Some("held")),
        "{told:#}"
    );
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains(&format!("held by sleep (pid {pid}, uid {uid})")),
        "{text}"
    );
    assert!(
        text.contains(&format!("gatewayctl clean --force --pid {pid}")),
        "{text}"
    );
    // Another one is named, and a protected one is not to be had by any name.
    let me = std::process::id().to_string();
    let pid_word = pid.to_string();
    for more in [
        &["--force", "--pid", &me][..],
        &["--force", "--pid", &pid_word, "--protect", &pid_word],
        &["--force", "--pid", &pid_word, "--dry-run"],
    ] {
        clean(state.path(), stranger.port, more);
        assert!(alive(pid), "{more:?}");
    }
    let (code, told) = report(&clean(
        state.path(),
        stranger.port,
        &["--force", "--pid", &pid_word],
    ));
    assert_eq!(
        (code, verdict(&told, pid).as_str(), told["state"].as_str()),
        (0, "killed named", Some("free")),
        "{told:#}"
    );
    assert!(!alive(pid));
}

#[test]
fn a_program_called_systemd_user_is_not_the_service_manager() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = dir.path().join("systemd");
    fs::copy("/bin/sh", &program).unwrap();
    let mut command = Command::new(&program);
    // Nobody writes there: it waits without a child that would hold the listener, too.
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let wait = format!("read line < {}", pipe.display());
    command.args(["-c", &wait, "--user"]);
    let stranger = Stranger::of(&mut command);
    let pid = stranger.pid();
    let named = ["--force", "--pid", &pid.to_string()];
    let (code, told) = report(&clean(state.path(), stranger.port, &named));
    assert_eq!(
        (code, verdict(&told, pid).as_str()),
        (0, "killed named"),
        "{told:#}"
    );
    assert!(!alive(pid));
}

#[test]
fn root_is_not_told_to_use_sudo() {
    if !nobody::can_be() {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let stranger = Stranger::of(&mut nobody::command(Path::new("sleep"), &["1000"]));
    let pid = stranger.pid();
    wait::until("it is nobody's", || {
        let uid = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
        (uid == nobody::UID).then_some(())
    });
    let named = ["--force", "--pid", &pid.to_string()];
    let output = clean(state.path(), stranger.port, &named);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(!text.contains("sudo"), "{text}");
    assert!(text.contains(&format!("kill {pid}")), "{text}");
}

#[test]
fn a_program_that_only_bears_the_name_gateway_is_foreign() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("gateway");
    fs::copy("/bin/sleep", &program).unwrap();
    let stranger = Stranger::start(&program);
    let (code, told) = report(&clean(dir.path(), stranger.port, &[]));
    assert_eq!(
        (code, verdict(&told, stranger.pid()).as_str()),
        (5, "kept foreign"),
        "{told:#}"
    );
    assert!(alive(stranger.pid()));
}

#[test]
fn a_gatewayctl_that_was_started_with_the_listener_is_no_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let mut waits = ctl_in(dir.path());
    waits.args([
        "--config",
        "/dev/null",
        "wait",
        "--ready",
        "--timeout",
        "60s",
    ]);
    let stranger = Stranger::of(&mut waits);
    wait::until("it runs", || {
        Stat::read(stranger.pid()).filter(|stat| stat.name == "gatewayctl")
    });
    let (code, told) = report(&clean(dir.path(), stranger.port, &[]));
    assert_eq!(
        (code, verdict(&told, stranger.pid()).as_str()),
        (5, "kept foreign"),
        "{told:#}"
    );
    assert!(alive(stranger.pid()));
}

#[test]
fn a_healthy_gateway_of_another_instance_is_kept() {
    let (gateway, elsewhere) = (Setup::new().start(), tempfile::tempdir().unwrap());
    let output = clean(elsewhere.path(), gateway.addr().port(), &[]);
    let (code, told) = report(&output);
    assert_eq!(
        (
            code,
            verdict(&told, gateway.pid()).as_str(),
            told["state"].as_str()
        ),
        (5, "kept answers", Some("held")),
        "{told:#}"
    );
    assert_eq!(
        block_on(get(&gateway.target(), "/healthz"))
            .unwrap()
            .status(),
        200
    );
    assert_eq!(gateway.stop().code(), Some(0));
}

/// A service's user had root's `restart --force` stop any gateway, by an owner.json of its own.
#[test]
fn a_record_of_another_user_says_nothing_about_a_gateway_of_root() {
    if !nobody::can_be() {
        return;
    }
    let (gateway, dir) = (Setup::new().start(), tempfile::tempdir().unwrap());
    nobody::own(dir.path());
    let start = Stat::read(gateway.pid()).unwrap().start_time;
    let record = dir.path().join("owner.json");
    for (start, field) in [(0, "owner"), (start, "owner"), (start, "drainers")] {
        let (me, pid) = (std::process::id(), gateway.pid());
        let drainer = serde_json::json!([{ "pid": pid, "startTime": start, "untilMs": null }]);
        let text = serde_json::json!({
            "pid": if field == "owner" { pid } else { me },
            "startTime": if field == "owner" { start } else { 0 },
            "bootId": "", "instance": "gateway", "listeners": [], "command": "",
            "drainers": if field == "owner" { Value::Array(Vec::new()) } else { drainer },
        });
        let script = format!("echo '{text}' > {}", record.display());
        let written = nobody::command(Path::new("sh"), &["-c", &script]).status();
        assert!(written.unwrap().success());
        let (code, told) = report(&clean(dir.path(), gateway.addr().port(), &[]));
        assert_eq!(
            (code, verdict(&told, gateway.pid()).as_str()),
            (5, "kept answers"),
            "{text}: {told:#}"
        );
    }
}

/// `clean --port` killed a healthy predecessor and its successor: they held one socket, so that no
/// door led to one of them alone, and their control sockets have long paths.
#[test]
fn healthy_gateways_that_hold_one_socket_are_kept() {
    let listener = TcpListener::bind(("127.0.0.1", port::private())).unwrap();
    let port = listener.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let gateways: Vec<Stranger> = ["a", "b"]
        .map(|name| {
            let mut command = Command::new("sh");
            let state = dir.path().join(name.repeat(120));
            let script = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\" 3<&0 </dev/null";
            command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_gateway"), "run"]);
            command.args(["--config", "/dev/null", "--instance", name, "--state-dir"]);
            command
                .arg(&state)
                .arg("--listen")
                .arg(format!("127.0.0.1:{port}"));
            scrub(&mut command);
            let input = OwnedFd::from(listener.try_clone().unwrap());
            let child = command.stdin(Stdio::from(input)).spawn().unwrap();
            let gateway = Stranger { child, port };
            wait::until("it is ready", || {
                let output = ctl_in(&state).args(["--json", "status"]).output().unwrap();
                let status: Value = serde_json::from_slice(&output.stdout).ok()?;
                (status["stage"] == "ready").then_some(())
            });
            gateway
        })
        .into();
    drop(listener);
    let elsewhere = tempfile::tempdir().unwrap();
    let (code, told) = report(&clean(elsewhere.path(), port, &[]));
    for gateway in &gateways {
        assert_eq!(verdict(&told, gateway.pid()), "kept answers", "{told:#}");
    }
    assert_eq!(code, 5, "{told:#}");
    // If they hang, nobody can ask them from here.
    for gateway in &gateways {
        deafen(gateway.pid());
    }
    let (_, told) = report(&clean(elsewhere.path(), port, &[]));
    for gateway in &gateways {
        assert_eq!(
            verdict(&told, gateway.pid()),
            "kept out-of-reach",
            "{told:#}"
        );
    }
}

/// A container that was paused was killed.
#[test]
fn a_gateway_that_is_frozen_with_its_control_group_is_kept() {
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let root = roots.iter().find(|root| root.join("cgroup.procs").exists());
    let group = root.map(|root| root.join(format!("gateway-test-{}", std::process::id())));
    let Some(group) = group.filter(|group| fs::create_dir(group).is_ok()) else {
        return skip::because("no control group may be made here");
    };
    let gateway = Setup::new().start();
    let write = |name: &str, text: &str| fs::write(group.join(name), text);
    let joined = write("cgroup.procs", &gateway.pid().to_string());
    if joined.and_then(|()| write("cgroup.freeze", "1")).is_ok() {
        wait::until("it is frozen", || {
            let events = fs::read_to_string(group.join("cgroup.events")).unwrap();
            events.contains("frozen 1").then_some(())
        });
        let elsewhere = tempfile::tempdir().unwrap();
        let (_, told) = report(&clean(elsewhere.path(), gateway.addr().port(), &[]));
        write("cgroup.freeze", "0").unwrap();
        assert_eq!(verdict(&told, gateway.pid()), "kept suspended", "{told:#}");
    } else {
        skip::because("no control group may be frozen here");
    }
    drop(gateway);
    wait::until("the group is empty", || fs::remove_dir(&group).ok());
}

#[test]
fn a_gateway_on_both_families_is_named_once() {
    let (port, elsewhere) = (port::private(), tempfile::tempdir().unwrap());
    if TcpListener::bind(("::1", port)).is_err() {
        return skip::because("no IPv6 on loopback");
    }
    let gateway = Setup::new()
        .port(port)
        .flag("--listen")
        .flag(format!("[::1]:{port}"))
        .start();
    let (code, told) = report(&clean(elsewhere.path(), port, &[]));
    assert_eq!(
        (
            code,
            told["kept"].as_array().unwrap().len(),
            told["by"].as_array().unwrap().len()
        ),
        (5, 1, 1),
        "{told:#}"
    );
    assert_eq!(verdict(&told, gateway.pid()), "kept answers");
    let (code, told) = report(&clean(gateway.state_dir(), port, &[]));
    assert_eq!(
        (
            code,
            told["kept"].as_array().unwrap().len(),
            told["state"].as_str()
        ),
        (0, 1, Some("ours")),
        "{told:#}"
    );
}

#[test]
fn a_draining_predecessor_is_kept() {
    let Some(setup) = respawning() else { return };
    let mut gateway: Gateway = setup.start();
    let first = gateway.pid();
    let download = servers::node_download(4_000_000, std::time::Duration::from_secs(6));
    let load = Load {
        new_per_second: 20.0,
        downloads: 2,
        download: Some(download),
        ..Load::on(gateway.target())
    }
    .start();
    load.flows(Part::New, 5);
    wait::until("downloads are under way", || {
        gateway.status()["requests"]
            .as_u64()
            .filter(|count| *count >= 2)
    });
    let second = fresh(&gateway);
    let record = gateway::internals::Owner::read(gateway.state_dir()).unwrap();
    let (code, told) = report(&clean(gateway.state_dir(), gateway.addr().port(), &[]));
    assert_eq!(
        (
            code,
            verdict(&told, second).as_str(),
            told["state"].as_str()
        ),
        (0, "kept owns", Some("ours")),
        "{told:#}"
    );
    assert_eq!(told["killed"], serde_json::json!([]), "{told:#}");
    assert!(
        record.drainers.iter().any(|drainer| drainer.pid == first),
        "{record:?}"
    );
    // It may have let go of the listener by now.
    assert!(
        told["kept"]
            .as_array()
            .unwrap()
            .iter()
            .all(|kept| kept["pid"] != first || kept["reason"] == "drains"),
        "{told:#}"
    );
    assert!(alive(first), "{told:#}");
    load.flows(Part::Download, 2);
    load.stop().assert_clean(&[(Part::Download, 2)]);
    wait_end(first);
    gateway.terminate();
}

#[test]
fn process_1_of_a_container_is_never_signalled() {
    let Some(mut command) = namespace::unshare() else {
        return;
    };
    let (dir, port) = (tempfile::tempdir().unwrap(), port::private());
    let (state, listen) = (dir.path().join("state"), format!("127.0.0.1:{port}"));
    command
        .args([
            env!("CARGO_BIN_EXE_gateway"),
            "run",
            "--config",
            "/dev/null",
            "--listen",
            &listen,
            "--state-dir",
        ])
        .arg(&state);
    scrub(&mut command);
    let mut outside = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir(dir.path())
        .spawn()
        .unwrap();
    let target = Target::Tcp(listen.parse::<SocketAddr>().unwrap());
    let answers = || block_on(get(&target, "/healthz")).is_ok_and(|answer| answer.status() == 200);
    wait::until("it serves", || answers().then_some(()));
    let first = wait::until("unshare has its child", || {
        crate::support::gateway::descendants(outside.id())
            .first()
            .map(|(pid, _)| *pid)
    });
    // As `docker exec` does it: in the container, and no child of its first process.
    let inside = |more: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &first.to_string(),
            "--pid",
            "--mount",
            env!("CARGO_BIN_EXE_gatewayctl"),
            "--json",
            "--config",
            "/dev/null",
        ]);
        command
            .arg("--state-dir")
            .arg(&state)
            .args(["clean", "--port", &port.to_string()])
            .args(more);
        scrub(&mut command);
        report(&command.stdin(Stdio::null()).output().unwrap())
    };
    // It answers before its record is written.
    wait::until("it is on record", || {
        gateway::internals::Owner::read(&state).filter(|owner| owner.pid == 1)
    });
    stop(first);
    for more in [&[][..], &["--force", "--pid", "1"]] {
        let (code, told) = inside(more);
        assert_eq!(
            (code, verdict(&told, 1).as_str(), told["state"].as_str()),
            (0, "kept process-1", Some("ours")),
            "{told:#}"
        );
    }
    let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    let pending = status
        .lines()
        .find_map(|line| line.strip_prefix("ShdPnd:"))
        .unwrap()
        .trim();
    assert!(
        pending.bytes().all(|digit| digit == b'0'),
        "it got a signal: {pending}"
    );
    signal(first, Signal::SIGCONT);
    wait::until("it goes on", || answers().then_some(()));
    signal(first, Signal::SIGTERM);
    wait::until("all ends", || outside.try_wait().unwrap());
}

/// Its user cannot read its program: then /proc/PID belongs to root.
#[test]
fn a_process_that_hides_from_its_own_user_is_not_taken_for_one_of_root() {
    if !nobody::can_be() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("hidden");
    fs::copy("/bin/sleep", &program).unwrap();
    for path in [dir.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o711)).unwrap();
    }
    let stranger = Stranger::of(&mut nobody::command(&program, &["1000"]));
    let pid = stranger.pid();
    wait::until("it runs its own program", || {
        let link = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        (link == program.canonicalize().unwrap()).then_some(())
    });
    let state = tempfile::tempdir().unwrap();
    let (_, told) = report(&clean(state.path(), stranger.port, &["--dry-run"]));
    assert_eq!(told["kept"][0]["pid"], pid, "{told:#}");
    assert_eq!(told["kept"][0]["uid"], nobody::UID, "{told:#}");
}
