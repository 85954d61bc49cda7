//! Where our pid must survive, the first process stays in front of those that follow: it passes
//! signals on, starts them, reaps, and ends as the last one ended.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{block_on, get};
use crate::support::gateway::{Gateway, ctl_in, said, scrub};
use crate::support::handover::{
    Failpoint, alive, failed, followed, fresh, no_sidecar, one_of, signal, successor_ended,
    wait_end,
};
use crate::support::load::Load;
use crate::support::report::Part;
use crate::support::{namespace, port, servers, skip, wait};
use nix::sys::signal::Signal;

/// The parent of a process.
fn parent(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

fn ends(gateway: &mut Gateway, code: i32) {
    let status = gateway.wait_exit(wait::DEADLINE);
    assert_eq!(status.code(), Some(code), "{}", gateway.stderr());
    gateway.wait_gone(wait::DEADLINE);
    no_sidecar(gateway);
}

#[test]
fn the_first_process_stays_and_starts_all_that_follow() {
    let Some(setup) = followed() else { return };
    let mut gateway = setup.start();
    let load = Load {
        new_per_second: 50.0,
        kept: 6,
        ..Load::on(gateway.target())
    }
    .start();
    load.flows(Part::New, 10);
    for _ in 0..3 {
        let new = fresh(&gateway);
        assert!(alive(gateway.pid()), "{}", gateway.stderr());
        assert_eq!(parent(new), gateway.pid(), "started by the first");
        assert_eq!(
            one_of(&gateway, 2),
            new,
            "nobody but the first and the last is left"
        );
    }
    load.flows(Part::New, 10);
    load.stop().assert_clean(&[(Part::New, 20)]);
    gateway.signal(Signal::SIGTERM);
    ends(&mut gateway, 0);
}

#[test]
fn signals_to_the_first_process_reach_the_one_that_serves() {
    let Some(setup) = followed() else { return };
    let mut gateway = setup.start();
    let first = fresh(&gateway);
    one_of(&gateway, 2);
    gateway.signal(Signal::SIGHUP);
    gateway.wait_line("asked: SIGHUP");
    gateway.signal(Signal::SIGUSR2);
    let second = wait::until("a fresh process serves", || {
        Some(gateway.main_pid()).filter(|pid| *pid != first)
    });
    assert_eq!(one_of(&gateway, 2), second);
    gateway.signal(Signal::SIGINT);
    ends(&mut gateway, 0);
}

#[test]
fn the_first_process_ends_as_the_last_one_ended() {
    let Some(setup) = followed() else { return };
    let mut gateway = setup.start();
    let last = fresh(&gateway);
    one_of(&gateway, 2);
    signal(last, Signal::SIGKILL);
    ends(&mut gateway, 128 + 9);
    // Only its parent, which stayed in front, knows the signal.
    gateway.wait_line(&format!("pid {last} was ended by SIGKILL"));
    let told = said(&gateway.ctl(["why"]));
    assert!(told.contains("was ended by SIGKILL at"), "{told}");
    let told = said(&gateway.ctl(["history"]));
    let line = told
        .lines()
        .rfind(|line| line.contains(&format!("pid {last} ")));
    assert!(
        line.unwrap().contains("ended unplanned, code 137"),
        "{told}"
    );
}

#[test]
fn a_stop_asked_of_the_last_one_ends_the_first_one_too() {
    let Some(setup) = followed() else { return };
    let mut gateway = setup.start();
    fresh(&gateway);
    assert!(gateway.ctl(["stop"]).status.success());
    ends(&mut gateway, 0);
}

#[test]
fn a_successor_that_dies_behind_the_first_process_changes_nothing() {
    let failpoint = Failpoint::new();
    let Some(setup) = followed() else { return };
    let mut gateway = failpoint.on(setup).start();
    for before in [gateway.pid(), 0] {
        failpoint.arm("new.ready", "kill");
        let text = failed(&gateway.ctl(["restart", "--fresh"]));
        successor_ended(&text, "was ended by SIGKILL");
        let (count, serves) = if before == 0 {
            (2, gateway.main_pid())
        } else {
            (1, before)
        };
        assert_eq!(one_of(&gateway, count), serves);
        fresh(&gateway);
        one_of(&gateway, 2);
    }
    gateway.signal(Signal::SIGTERM);
    ends(&mut gateway, 0);
}

#[test]
fn a_first_process_that_dies_in_front_leaves_the_service_where_it_is() {
    let failpoint = Failpoint::new();
    let Some(setup) = followed() else { return };
    let mut gateway = failpoint.on(setup).start();
    failpoint.arm("waiter.alone", "kill");
    let new = fresh(&gateway);
    failpoint.wait_reached();
    wait_end(gateway.pid());
    gateway.exited();
    assert_eq!(one_of(&gateway, 1), new);
    // Who followed the first one has seen it end, and does not know this one.
    gateway.wait_status("nobody follows it", |status| {
        let strategy = status["strategy"].as_str().unwrap();
        strategy
            .starts_with("respawn: nobody follows this pid: terminal followed the process in front")
    });
    for _ in 0..2 {
        let next = fresh(&gateway);
        assert_eq!(one_of(&gateway, 1), next);
    }
    gateway.terminate();
}

#[test]
fn a_first_process_that_is_stopped_holds_up_nothing_and_its_late_answer_is_taken_for_no_other() {
    let Some(setup) = followed() else { return };
    let mut gateway = setup.start();
    let serves = fresh(&gateway);
    one_of(&gateway, 2);
    gateway.signal(Signal::SIGSTOP);
    let restart = gateway.ctl_aside(["restart", "--fresh"]);
    gateway.wait_nth_line("asked: gatewayctl restart", 1);
    while !restart.is_finished() {
        let asked = Instant::now();
        assert_eq!(gateway.status()["pid"], serves);
        assert!(asked.elapsed() < Duration::from_secs(3), "status hangs");
    }
    let text = failed(&restart.join().unwrap());
    assert!(text.contains("is it stopped?"), "{text}");
    // Now it starts the one that nobody waits for any more.
    gateway.signal(Signal::SIGCONT);
    let next = fresh(&gateway);
    assert_eq!(one_of(&gateway, 2), next);
    gateway.signal(Signal::SIGTERM);
    ends(&mut gateway, 0);
}

/// The lines of `gatewayctl history` about a process.
fn history_of(gateway: &Gateway, pid: u32) -> Vec<String> {
    let told = said(&gateway.ctl(["history"]));
    let pid = format!("pid {pid} ");
    let lines = told.lines().filter(|line| line.contains(&pid));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_first_process_has_ended_on_record_when_it_has_ended() {
    let Some(setup) = followed() else { return };
    // Killed in front, the second one writes down how.
    let mut gateway = setup.start();
    let (first, second) = (gateway.pid(), fresh(&gateway));
    one_of(&gateway, 2);
    let stays = format!("handed over to pid {second}");
    wait::until("it is on record", || {
        let told = history_of(&gateway, first);
        let stays = |line: &String| line.contains(&stays) && line.contains("stays in front");
        told.iter().any(stays).then_some(())
    });
    let told = history_of(&gateway, first);
    assert!(!told.iter().any(|line| line.contains("ended")), "{told:#?}");
    signal(first, Signal::SIGKILL);
    gateway.wait_line(&format!(
        "pid {first}, which stayed in front of this process,"
    ));
    if !gateway.stderr().contains("this process, ended") {
        wait::until("its end is on record", || {
            let told = history_of(&gateway, first);
            let ended = |line: &String| line.contains("ended unplanned, code 137");
            told.iter().any(ended).then_some(())
        });
    }
    gateway.exited();
    gateway.terminate();

    // In order, it does so itself.
    let mut gateway = setup.start();
    let (first, second) = (gateway.pid(), fresh(&gateway));
    one_of(&gateway, 2);
    gateway.signal(Signal::SIGTERM);
    ends(&mut gateway, 0);
    let told = history_of(&gateway, first);
    let last = told.last().unwrap();
    assert!(
        last.contains("ended, code 0") && last.contains(&format!("as pid {second} did")),
        "{told:#?}"
    );
    assert_eq!(told.iter().filter(|line| line.contains("ended")).count(), 1);
}

/// The gateway's arguments in a directory of its own, with the Node server behind it.
fn by_hand(dir: &std::path::Path, port: u16) -> Vec<String> {
    let listen = format!("127.0.0.1:{port}");
    let state = dir.join("state").display().to_string();
    let words = [
        env!("CARGO_BIN_EXE_gateway"),
        "run",
        "--config",
        "/dev/null",
        "--state-dir",
        &state,
        "--listen",
        &listen,
        "--",
    ];
    words
        .into_iter()
        .map(str::to_owned)
        .chain(servers::node())
        .collect()
}

/// `gatewayctl` on that state directory.
fn ctl(dir: &std::path::Path, args: &[&str]) -> std::process::Output {
    ctl_in(&dir.join("state")).args(args).output().unwrap()
}

fn owner(dir: &std::path::Path) -> Option<u32> {
    gateway::internals::Owner::read(&dir.join("state")).map(|owner| owner.pid)
}

fn answers(port: u16) -> bool {
    let target =
        crate::support::client::Target::Tcp(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    block_on(get(&target, "/")).is_ok_and(|answer| answer.status() == 200)
}

/// A gateway that is process 1 of a pid namespace of its own.
struct ProcessOne {
    dir: tempfile::TempDir,
    port: u16,
    /// The unshare around it.
    outside: std::process::Child,
    /// Its number out here.
    pid: u32,
}

impl ProcessOne {
    /// Starts it, with `front` before the command of its server; none where that cannot be done.
    fn start(front: &[&str]) -> Option<Self> {
        if !servers::have("node") {
            return None;
        }
        let mut command = namespace::unshare()?;
        let (dir, port) = (tempfile::tempdir().unwrap(), port::private());
        let mut words = by_hand(dir.path(), port);
        let server = words.iter().position(|word| word == "--").unwrap() + 1;
        words.splice(server..server, front.iter().map(|word| (*word).to_owned()));
        scrub(command.args(words));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log")).unwrap());
        let outside = command.current_dir(dir.path()).spawn().unwrap();
        wait::until("it serves", || answers(port).then_some(()));
        let (pid, _) = crate::support::gateway::descendants(outside.id())[0];
        Some(Self {
            dir,
            port,
            outside,
            pid,
        })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Ends it by a SIGTERM, and with it the namespace.
    fn stop(mut self) {
        signal(self.pid, Signal::SIGTERM);
        let status = wait::until("all ends", || self.outside.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{}", self.log());
        assert!(!answers(self.port));
    }
}

#[test]
fn as_process_1_it_stays_through_fresh_restarts_and_reaps_what_nobody_else_does() {
    let Some(gateway) = ProcessOne::start(&[]) else {
        return;
    };
    let (dir, port, first) = (&gateway.dir, gateway.port, gateway.pid);
    let log = || gateway.log();
    assert_eq!(owner(dir.path()), Some(1), "{}", log());
    let mut before = 1;
    for _ in 0..2 {
        let output = ctl(dir.path(), &["restart", "--fresh"]);
        assert!(
            output.status.success(),
            "{}\n{}",
            crate::support::gateway::said(&output),
            log()
        );
        let now = owner(dir.path()).unwrap();
        assert!(now != before && now != 1, "pid {now} after {before}");
        before = now;
        assert!(answers(port) && alive(first), "{}", log());
    }
    // An orphan inside: its parent is gone, so it is a child of process 1 when it ends.
    let orphan = "sleep 0.2 & exit 0";
    let inside = Command::new("nsenter")
        .args([
            "--target",
            &first.to_string(),
            "--pid",
            "--mount",
            "sh",
            "-c",
            orphan,
        ])
        .status();
    assert!(inside.unwrap().success());
    let settled = || {
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
        (children.split_whitespace().count() == 1).then_some(())
    };
    wait::within(wait::DEADLINE, settled).unwrap_or_else(|| {
        panic!(
            "process 1 has more than one child: {}\n{}",
            fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap(),
            log()
        )
    });
    gateway.stop();
}

#[test]
fn as_process_1_it_reaps_what_its_servers_leave_behind_and_knows_how_they_ended() {
    // Thirty processes whose parent is gone when they end.
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.1 & sleep 0.2 & sleep 0.3 &); done; exec \"$@\"";
    let Some(gateway) = ProcessOne::start(&["sh", "-c", script, "sh"]) else {
        return;
    };
    let (port, first) = (gateway.port, gateway.pid);
    let log = || gateway.log();
    let children = || -> Vec<u32> {
        let threads = fs::read_dir(format!("/proc/{first}/task")).unwrap();
        let lists =
            threads.filter_map(|one| fs::read_to_string(one.unwrap().path().join("children")).ok());
        let pids: Vec<String> = lists.collect();
        let pids = pids.iter().flat_map(|list| list.split_whitespace());
        pids.map(|pid| pid.parse().unwrap()).collect()
    };
    let only_the_server = || {
        let children = children();
        (children.len() == 1).then_some(children[0])
    };
    for _ in 0..2 {
        let server = wait::within(wait::DEADLINE, only_the_server)
            .unwrap_or_else(|| panic!("children of process 1: {:?}\n{}", children(), log()));
        signal(server, Signal::SIGKILL);
        wait_end(server);
        wait::until("it serves again", || answers(port).then_some(()));
    }
    assert_eq!(
        log().matches("was ended by SIGKILL").count(),
        2,
        "{}",
        log()
    );
    gateway.stop();
}

#[test]
fn a_terminals_foreground_job_keeps_its_pid_and_ends_with_an_interrupt() {
    if !servers::have("node") || !skip::unless_there("script") {
        return;
    }
    let (dir, port) = (tempfile::tempdir().unwrap(), port::private());
    let line = format!(
        "exec {}",
        by_hand(dir.path(), port)
            .iter()
            .map(|word| format!("'{word}'"))
            .collect::<Vec<_>>()
            .join(" ")
    );
    let mut command = Command::new("script");
    scrub(
        command
            .args(["--quiet", "--return", "--command", &line])
            .arg(dir.path().join("typescript")),
    );
    // A terminal whose other end stays open as long as we keep the pipe.
    let mut terminal = command
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut keyboard = terminal.stdin.take().unwrap();
    let said = || fs::read_to_string(dir.path().join("typescript")).unwrap_or_default();
    wait::within(wait::DEADLINE, || answers(port).then_some(()))
        .unwrap_or_else(|| panic!("it does not serve: {}", said()));
    let job = owner(dir.path()).unwrap();
    let status = ctl(dir.path(), &["status", "--json"]);
    assert!(
        String::from_utf8_lossy(&status.stdout).contains("terminal"),
        "{}",
        crate::support::gateway::said(&status)
    );
    for _ in 0..2 {
        let output = ctl(dir.path(), &["restart", "--fresh"]);
        assert!(
            output.status.success(),
            "{}\n{}",
            crate::support::gateway::said(&output),
            said()
        );
        assert!(
            alive(job) && owner(dir.path()) != Some(job) && answers(port),
            "{}",
            said()
        );
    }
    let last = owner(dir.path()).unwrap();
    // Ctrl-C, as the terminal gives it to the job in its foreground.
    std::io::Write::write_all(&mut keyboard, b"\x03").unwrap();
    wait::within(wait::DEADLINE, || {
        (!alive(job) && !alive(last)).then_some(())
    })
    .unwrap_or_else(|| panic!("it goes on: {}", said()));
    drop(keyboard);
    let status = wait::until("the terminal is closed", || terminal.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", said());
    assert!(!answers(port));
    assert!(family_in(dir.path()).is_empty());
}

fn family_in(dir: &std::path::Path) -> Vec<u32> {
    crate::support::gateway::family_of(&dir.join("state"))
        .into_iter()
        .map(|(pid, _)| pid)
        .collect()
}

#[test]
fn a_supervisor_that_follows_the_pid_sees_the_last_process_end() {
    let Some(setup) = followed() else { return };
    let mut gateway = setup.env("GATEWAY_SUPERVISOR", "runit").start();
    fresh(&gateway);
    fresh(&gateway);
    one_of(&gateway, 2);
    gateway.signal(Signal::SIGTERM);
    ends(&mut gateway, 0);
}
