//! What users of gateways and service managers saw go wrong, done to this one; `field.md` says
//! which report each belongs to.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{self, Conn, Fault, block_on, within};
use crate::support::gateway::{Gateway, LISTENING, READY, Setup, ctl_in, descendants, said};
use crate::support::handover::{alive, fresh, respawning};
use crate::support::load::Load;
use crate::support::report::Part;
use crate::support::ws::{Frame, WebSocket, handshake};
use crate::support::{port, servers, wait};
use gateway::internals::Lock;
use gateway::internals::Owner;
use nix::sys::signal::Signal;

/// Far below the drain of 300 s and the age at which others call a lock stale (30 s), far above
/// what anything here takes.
const SOON: Duration = Duration::from_secs(10);

/// More deaths come in a test than in a month of any service.
const NO_THROTTLE: &str = "[recovery]\nthrottle = { threshold = 1000 }\n";

fn state() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("gw-").tempdir().unwrap()
}

fn script(name: &str) -> String {
    format!("{}/tests/servers/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn get(gateway: &Gateway, path: &str) -> client::Response {
    block_on(within(wait::DEADLINE, client::get(&gateway.target(), path))).unwrap()
}

fn generation(gateway: &Gateway) -> u64 {
    gateway.status()["generation"].as_u64().unwrap()
}

/// A file that only we write to, and who reads it waits until this is dropped.
fn fifo(path: &Path) -> std::thread::JoinHandle<fs::File> {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let path = path.to_owned();
    // Opening waits for the reader.
    std::thread::spawn(move || fs::OpenOptions::new().write(true).open(path).unwrap())
}

// --- Restart storms and restarts from inside

/// 284 restarts: the wish for one was found again by everything that it had started.
#[test]
fn a_restart_that_is_asked_for_again_after_each_start_is_one_restart() {
    if !servers::have("python3") {
        return;
    }
    // In the same process, and in a fresh one each time.
    for supervisor in ["foreground", "none"] {
        let state = state();
        let control = state.path().join("run/control.sock");
        let command = [
            "python3".to_owned(),
            script("agent.py"),
            "{port}".to_owned(),
            control.display().to_string(),
        ];
        let gateway = Setup::behind(command)
            .state_dir(state.path())
            .env("GATEWAY_SUPERVISOR", supervisor)
            .env("ASK_AGAIN", "1")
            .spawn();
        gateway.wait_line(READY);
        let settled = gateway.wait_status("it has restarted as often as it will", |status| {
            status["stage"] == "ready" && status["drainers"].as_array().is_some_and(Vec::is_empty)
        });
        let first = settled["generation"].as_u64().unwrap();
        let output = gateway.ctl(["restart", "--drained"]);
        assert!(
            output.status.success(),
            "{}\n{}",
            said(&output),
            gateway.stderr()
        );
        gateway.wait_status("it is quiet", |status| {
            status["stage"] == "ready" && status["generation"] == first + 1
        });
        let copies = gateway
            .stderr()
            .matches("[main] asked for a restart")
            .count() as u64;
        assert_eq!(
            (copies, generation(&gateway)),
            (first + 1, first + 1),
            "each asked, and none was started for it:\n{}",
            gateway.stderr()
        );
        assert!(first <= 2, "{}", gateway.stderr());
    }
}

/// The same by a server that asks when it serves, and again after each restart: it is given what it
/// asks for, one at a time, and only the record knows of it.
#[test]
fn a_server_that_asks_for_restarts_without_end_is_restarted_one_at_a_time_and_no_client_notices() {
    const ROUNDS: u64 = 15;
    if !servers::have("python3") {
        return;
    }
    let state = state();
    let (again, control) = (
        state.path().join("again"),
        state.path().join("run/control.sock"),
    );
    let command = [
        "python3".to_owned(),
        script("agent.py"),
        "{port}".to_owned(),
        control.display().to_string(),
    ];
    let gateway = Setup::behind(command)
        .state_dir(state.path())
        .env("ASK_LATER", &again)
        .start();
    let load = Load {
        new_per_second: 50.0,
        kept: 5,
        ..Load::on(gateway.target())
    }
    .start();
    load.flows(Part::New, 10);
    fs::write(&again, "").unwrap();
    gateway.restart();
    let mut most = 0;
    for round in 1..=ROUNDS {
        gateway.wait_status("it has asked again", |status| {
            most = most.max(status["drainers"].as_array().unwrap().len());
            status["generation"].as_u64().unwrap() > round
        });
    }
    fs::remove_file(&again).unwrap();
    let report = load.stop();
    report.assert_clean(&[(Part::New, 10)]);
    assert!(most <= 2, "old copies heap up: {most}");
    let history = fs::read_to_string(state.path().join("history.jsonl")).unwrap();
    let asked = history
        .lines()
        .filter(|line| line.contains("as my notes say") && line.contains("python3"))
        .count() as u64;
    assert!(asked + 2 >= ROUNDS, "{history}");
}

/// The command was ended with the server that had run it, and the service was left down.
#[test]
fn a_restart_asked_for_by_the_server_itself_is_carried_out_though_its_asker_ends_with_it() {
    if !servers::have("python3") {
        return;
    }
    for exclusive in [false, true] {
        let state = state();
        let ctl = format!(
            "{} --state-dir {} restart",
            env!("CARGO_BIN_EXE_gatewayctl"),
            state.path().display()
        );
        let command = [
            "python3".to_owned(),
            script("agent.py"),
            "{port}".to_owned(),
        ];
        let mut setup = Setup::behind(command)
            .state_dir(state.path())
            .env("GATEWAYCTL", ctl);
        if exclusive {
            setup = setup.flag("--exclusive");
        }
        let gateway = setup.start();
        for round in 1..=3 {
            let before = gateway.sidecar_pid("main");
            assert_eq!(get(&gateway, "/restart").text().trim(), before.to_string());
            gateway.wait_status("the next copy serves", |status| {
                status["stage"] == "ready" && status["generation"] == round + 1
            });
            assert_ne!(get(&gateway, "/").text().trim(), before.to_string());
        }
    }
}

/// After a forced restart nothing came back.
#[test]
fn after_a_forced_restart_that_cuts_work_something_serves() {
    let Some(setup) = respawning() else { return };
    for args in [
        &["restart", "--force"][..],
        &["restart", "--force", "--fresh"],
    ] {
        let gateway = setup.start();
        let target = gateway.target();
        let under_way = std::thread::spawn(move || {
            block_on(within(
                wait::DEADLINE,
                client::get(&target, "/slow?ms=60000"),
            ))
        });
        gateway.wait_status("it is under way", |status| status["requests"] == 1);
        let asked = Instant::now();
        let output = gateway.ctl(args.iter().copied());
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(get(&gateway, "/").status(), 200);
        let end = under_way.join().unwrap();
        assert!(
            end.is_err() || end.is_ok_and(|answer| answer.status() != 200),
            "it was cut, as was asked"
        );
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
        assert_eq!(get(&gateway, "/").status(), 200);
    }
}

/// The command wrote itself down as the gateway, and every start after it refused.
#[test]
fn the_command_that_restarts_never_takes_itself_for_the_gateway() {
    let state = state();
    let port = port::private();
    let setup = Setup::new().state_dir(state.path()).port(port);
    setup.start().kill();
    let record = fs::read(state.path().join("owner.json")).unwrap();
    for args in [
        &["restart"][..],
        &["restart", "--force"],
        &["restart", "--fresh"],
        &["reload"],
    ] {
        let output = ctl_in(state.path()).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{args:?}: {}", said(&output));
        assert_eq!(
            fs::read(state.path().join("owner.json")).unwrap(),
            record,
            "{args:?}"
        );
        drop(Lock::take(state.path()).unwrap());
    }
    let gateway = setup.start();
    assert_eq!(Owner::read(state.path()).unwrap().pid, gateway.pid());
}

// --- Ports and locks

/// 43,175 restarts: a second instance loaded everything, failed at the address, and was started
/// again.
#[test]
fn a_supervised_start_waits_for_a_taken_address_before_anything_is_started() {
    if !servers::have("node") {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut gateway = Setup::behind(servers::node())
        .port(port)
        .env("GATEWAY_SUPERVISOR", "s6")
        .spawn();
    let me = std::process::id();
    let line = gateway.wait_line(&format!("waiting for 127.0.0.1:{port}: held by "));
    assert!(line.contains(&format!("(pid {me}, uid ")), "{line}");
    assert_eq!(
        descendants(gateway.pid()),
        [],
        "no server is started meanwhile"
    );
    assert!(gateway.exited().is_none());
    drop(taken);
    gateway.wait_line(READY);
    assert_eq!(get(&gateway, "/").status(), 200);
    assert_eq!(gateway.stderr().matches("sidecar main starting").count(), 1);
}

/// Two healthy instances on one address, each started again and again; the first was ended by the
/// second.
#[test]
fn a_healthy_gateway_on_the_address_is_waited_for_and_never_ended() {
    if !servers::have("node") {
        return;
    }
    let port = port::private();
    let setup = Setup::behind(servers::node())
        .port(port)
        .env("GATEWAY_SUPERVISOR", "s6");
    let first = setup.start();
    let load = Load {
        new_per_second: 100.0,
        ..Load::on(first.target())
    }
    .start();
    // Another state directory: for the lock it is somebody else.
    let second = setup.spawn();
    let line = second.wait_line(&format!("waiting for 127.0.0.1:{port}: held by "));
    assert!(
        line.contains(&format!("(pid {}, uid ", first.pid())),
        "{line}"
    );
    load.flows(Part::New, 100);
    load.stop().assert_clean(&[(Part::New, 100)]);
    assert_eq!(descendants(second.pid()), []);
    first.kill();
    second.wait_line(READY);
    assert_eq!(get(&second, "/").status(), 200);
}

/// Killed in the middle of its cleaning up, it left a lock that kept the next ones out: 13 days,
/// 250 restarts.
#[test]
fn a_gateway_killed_while_it_drains_leaves_no_lock_that_keeps_the_next_one_out() {
    let state = state();
    let port = port::private();
    if !servers::have("node") {
        return;
    }
    let setup = Setup::behind(servers::node())
        .config(NO_THROTTLE)
        .state_dir(state.path())
        .port(port)
        .env("GATEWAY_SUPERVISOR", "s6");
    let mut gateway = setup.start();
    for _ in 0..4 {
        let target = gateway.target();
        let cut = std::thread::spawn(move || {
            block_on(within(
                wait::DEADLINE,
                client::get(&target, "/slow?ms=60000"),
            ))
        });
        gateway.wait_status("it is under way", |status| status["requests"] == 1);
        gateway.signal(Signal::SIGTERM);
        gateway.wait_status("it drains", |status| {
            status["stage"] == "stopping" || status["stage"] == "draining"
        });
        let (left, killed) = (Owner::read(state.path()).unwrap().pid, Instant::now());
        gateway.kill();
        assert!(cut.join().unwrap().is_err());
        gateway = setup.start();
        assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
        assert_ne!(Owner::read(state.path()).unwrap().pid, left);
        assert!(
            !gateway.stderr().contains("standing by"),
            "{}",
            gateway.stderr()
        );
    }
}

/// A client that had stalled kept a soft restart from closing its WebSocket server, so the address
/// stayed taken: 160 starts failed.
#[test]
fn stalled_clients_hold_neither_a_restart_nor_the_address() {
    let Some(setup) = respawning() else { return };
    let port = port::private();
    let setup = setup
        .port(port)
        .config("[restart]\ntunnel_drain = \"1s\"\nstop_drain = \"1s\"\n");
    let mut gateway = setup.start();
    // One says nothing more on its WebSocket and reads nothing, one reads nothing of its download.
    let mut stalled = Vec::new();
    let mut stall = |gateway: &Gateway| {
        block_on(async {
            let target = gateway.target();
            let mut socket = Conn::open_narrow(&target).await.unwrap();
            socket.send(handshake("/ws")).await.unwrap();
            assert_eq!(within(SOON, socket.head()).await.unwrap().status(), 101);
            let mut download = Conn::open_narrow(&target).await.unwrap();
            download
                .send("GET /download?bytes=50000000 HTTP/1.1\r\nHost: test\r\n\r\n")
                .await
                .unwrap();
            assert_eq!(within(SOON, download.head()).await.unwrap().status(), 200);
            stalled.push((socket, download));
        });
    };
    stall(&gateway);
    for args in [&["restart"][..], &["restart", "--fresh"]] {
        let asked = Instant::now();
        let output = gateway.ctl(args.iter().copied());
        assert!(output.status.success(), "{}", said(&output));
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
        assert_eq!(get(&gateway, "/").status(), 200);
        stall(&gateway);
    }
    let asked = Instant::now();
    gateway.terminate();
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    drop(TcpListener::bind(("127.0.0.1", port)).unwrap());
    assert_eq!(get(&setup.start(), "/").status(), 200);
}

// --- Drains

/// Blocked for 27 days by tasks that were dead: what has ended holds no drain, even where nobody
/// has taken its exit status.
#[test]
fn zombies_hold_no_drain() {
    if !servers::have("python3") {
        return;
    }
    let state = state();
    let path = state.path().join("fifo");
    let holds = fifo(&path);
    let command = [
        "python3".to_owned(),
        script("zombies.py"),
        "{port}".to_owned(),
        path.display().to_string(),
    ];
    let gateway = Setup::behind(command).state_dir(state.path()).start();
    let zombie = gateway
        .wait_line("[main] zombie ")
        .rsplit(' ')
        .next()
        .unwrap()
        .parse::<u32>()
        .unwrap();
    let stat = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(stat(zombie).contains(") Z "), "{}", stat(zombie));

    // The owner of a lease is a zombie, too, and gave its connection on to a child that lives.
    let take = "import os, socket, sys\n\
        gateway = socket.socket(socket.AF_UNIX)\ngateway.connect(sys.argv[1])\n\
        gateway.sendall(b'{\"type\":\"req\",\"id\":\"1\",\"method\":\"inhibit\",\"params\":{\"why\":\"a task\"}}\\n')\n\
        print(gateway.recv(4096).decode().strip(), flush=True)\n\
        if os.fork() == 0:\n    sys.stdin.read()\n    os._exit(0)\n\
        os._exit(0)\n";
    let control = state.path().join("run/control.sock");
    let mut task = Command::new("python3")
        .arg("-c")
        .arg(take)
        .arg(control)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answer = String::new();
    BufReader::new(task.stdout.take().unwrap())
        .read_line(&mut answer)
        .unwrap();
    assert!(answer.contains("\"ok\":true"), "{answer}");
    wait::until("it is a zombie", || {
        stat(task.id()).contains(") Z ").then_some(())
    });

    let old = gateway.sidecar_pid("main");
    let asked = Instant::now();
    let output = gateway.ctl(["restart", "--drained"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        asked.elapsed() < SOON,
        "{:?}: {}",
        asked.elapsed(),
        said(&output)
    );
    assert!(!alive(old));
    assert!(
        stat(zombie).contains(") Z "),
        "it is there all the same: {}",
        stat(zombie)
    );
    drop(task.stdin.take());
    task.wait().unwrap();
    drop(holds.join().unwrap());
}

// --- Readiness and health

/// "Ready" was logged before the WebSocket handshake worked.
#[test]
fn when_it_says_ready_a_websocket_can_be_opened_and_one_that_comes_earlier_waits() {
    let Some(setup) = respawning() else { return };
    let echo = |gateway: &Gateway| {
        let opened = block_on(async {
            let mut socket = WebSocket::open(&gateway.target(), "/ws")
                .await
                .map_err(|(fault, head)| format!("{fault} {head:?}"))?;
            socket
                .echo("hello")
                .await
                .map_err(|fault| fault.to_string())?;
            socket
                .close(1000)
                .await
                .map_err(|fault| fault.to_string())?;
            match socket.next().await {
                Ok(Frame::Close(1000, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        opened.unwrap_or_else(|why: String| panic!("{why}\n{}", gateway.stderr()));
    };
    for _ in 0..5 {
        let gateway = setup.clone().env("START_DELAY_MS", "300").spawn();
        gateway.wait_line(LISTENING);
        echo(&gateway);
        assert!(gateway.wait_line(READY).contains("generation 1"));
    }
    let gateway = setup.start();
    echo(&gateway);
    for _ in 0..3 {
        gateway.restart();
        echo(&gateway);
        fresh(&gateway);
        echo(&gateway);
    }
}

/// A health monitor restarted the whole gateway for one backend.
#[test]
fn one_backend_that_dies_again_and_again_or_hangs_restarts_nobody_else() {
    if !servers::have("node") {
        return;
    }
    let command = servers::node();
    let config = format!(
        "[sidecar.good]\ncommand = {command:?}\n[sidecar.bad]\ncommand = {command:?}\n\
         [[route]]\nto = \"good\"\n[[route]]\nhost = \"bad.test\"\nto = \"bad\"\n"
    );
    let gateway = Setup::new().config(config).start();
    let good = gateway.sidecar_pid("good");
    let load = Load {
        new_per_second: 100.0,
        kept: 10,
        websockets: 2,
        ..Load::on(gateway.target())
    }
    .start();
    load.flows(Part::New, 20);
    for _ in 0..3 {
        let bad = gateway.sidecar_pid("bad");
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(bad).unwrap()),
            Signal::SIGKILL,
        )
        .unwrap();
        gateway.wait_status("the bad one is back", |status| {
            let sidecars = status["sidecars"].as_array().unwrap();
            sidecars
                .iter()
                .any(|one| one["name"] == "bad" && one["state"] == "ready" && one["pid"] != bad)
        });
    }
    let hung = nix::unistd::Pid::from_raw(i32::try_from(gateway.sidecar_pid("bad")).unwrap());
    nix::sys::signal::kill(hung, Signal::SIGSTOP).unwrap();
    load.flows(Part::New, 100);
    nix::sys::signal::kill(hung, Signal::SIGCONT).unwrap();
    load.stop().assert_clean(&[(Part::New, 120)]);
    assert_eq!(
        (
            gateway.sidecar_pid("good"),
            gateway.main_pid(),
            generation(&gateway)
        ),
        (good, gateway.pid(), 1)
    );
}

// --- Logs

/// Everything below a directory, in bytes.
fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) if meta.is_file() => meta.len(),
        _ => 0,
    };
    entries.map(of).sum()
}

/// 18 GB of logs, 37 MB of the same failure.
#[test]
fn the_same_failure_thousands_of_times_is_a_few_lines_and_no_file_grows() {
    const REQUESTS: u64 = 3000;
    let nobody = port::private();
    let config = format!("[[route]]\nto = \"http://127.0.0.1:{nobody}\"\n[gateway]\n");
    let gateway = Setup::new().config(config).start();
    let begun = Instant::now();
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        for _ in 0..REQUESTS {
            let answer = conn.exchange("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
            // A connection is closed now and then.
            match answer {
                Ok(answer) => assert_eq!(answer.status(), 502),
                Err(Fault::Eof | Fault::Reset) => {
                    conn = Conn::open(&gateway.target()).await.unwrap()
                }
                Err(other) => panic!("{other}"),
            }
        }
    });
    let text = gateway.stderr();
    let lines = text.matches("answered 502").count() as u64;
    assert!(
        (1..=begun.elapsed().as_secs() + 2).contains(&lines),
        "{lines} lines in {:?}",
        begun.elapsed()
    );
    assert!(text.len() < 16 * 1024, "{} bytes", text.len());
    assert!(
        size(gateway.state_dir()) < 64 * 1024,
        "{} bytes",
        size(gateway.state_dir())
    );
}

#[test]
fn what_a_server_prints_grows_no_file_of_ours() {
    if !servers::have("node") {
        return;
    }
    // 2 MB in lines of 15,000 bytes.
    let print = "head -c 2000000 /dev/zero | tr '\\0' x | fold -w 15000; echo; echo all is said; exec \"$@\"";
    let command = [
        ["sh", "-c", print, "sh"].map(str::to_owned).to_vec(),
        servers::node(),
    ]
    .concat();
    let gateway = Setup::behind(command).start();
    gateway.wait_line("[main] all is said");
    gateway.restart();
    assert!(
        size(gateway.state_dir()) < 64 * 1024,
        "{} bytes",
        size(gateway.state_dir())
    );
}

/// What a crash had printed was lost.
#[test]
fn the_last_words_of_a_server_that_crashed_are_kept() {
    if !servers::have("node") {
        return;
    }
    let dir = state();
    let version = dir.path().join("version");
    let broken = "echo 'Error: the disk is on fire' >&2\nexit 7\n";
    fs::write(&version, "exec \"$@\"").unwrap();
    let command = [
        vec!["sh".to_owned(), version.display().to_string()],
        servers::node(),
    ]
    .concat();
    let gateway = Setup::behind(command)
        .config("[restart]\nhold = { time = \"100ms\" }\n")
        .start();
    // Of a version that does not start: the answer and the record.
    fs::write(&version, broken).unwrap();
    let output = gateway.ctl(["restart", "--reason", "version 2"]);
    assert!(
        !output.status.success() && said(&output).contains("the disk is on fire"),
        "{}",
        said(&output)
    );
    let history = || fs::read_to_string(gateway.state_dir().join("history.jsonl")).unwrap();
    wait::until("the record has it", || {
        history().contains("the disk is on fire").then_some(())
    });
    // Of one that served: the log, and the state as long as it lasts.
    let pid = gateway.sidecar_pid("main");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    gateway.wait_status("the cause is named", |status| {
        status["sidecars"][0]["cause"]
            .as_str()
            .is_some_and(|cause| cause.contains("code 7"))
    });
    gateway.wait_nth_line("[main] Error: the disk is on fire", 1);
}
