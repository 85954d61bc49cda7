//! `gatewayctl restart --force` and supervised starts under a real systemd, whatever is in the way.

use std::process::{Child, Output};

use crate::support::base::Base;
use crate::support::report::Part;
use crate::support::site::{FRONT, NODE_APP, Site, all_of, back, expect, prepared, prepared_on};
use crate::support::systemd_box::SystemdBox;
use crate::support::wait;
use serde_json::Value;

/// A process of the box that the test started; ended when dropped.
struct Other<'a> {
    systemd: &'a SystemdBox,
    child: Child,
    /// Its number in the box.
    pid: u32,
}

impl Drop for Other<'_> {
    fn drop(&mut self) {
        // It may have been ended already; what was started is not nsenter's own process.
        if self.lives() {
            self.systemd.run(&["kill", "-KILL", &self.pid.to_string()]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'a> Other<'a> {
    /// Starts a program in the box that will listen at the front door's address, and waits until
    /// somebody does.
    fn start(site: &Site<'a>, argv: &[&str]) -> Self {
        // The shell tells its number and becomes the program; nsenter has others on this side.
        let told = format!("/tmp/other-{}", FRONT.port());
        let _ = std::fs::remove_file(site.systemd.path(&told));
        let script = format!("echo $$ > {told}.part; mv {told}.part {told}; exec \"$@\"");
        let name = site.user.as_ref().map_or("root", |user| &user.name);
        let home = site.user.as_ref().map_or("HOME=/root".to_owned(), |user| {
            format!("HOME=/home/{}", user.name)
        });
        let user = [
            "setpriv",
            "--reuid",
            name,
            "--regid",
            name,
            "--init-groups",
            "--",
            "env",
            &home,
        ];
        let child = site
            .systemd
            .command(&[&user, &["sh", "-c", &script, "sh"][..], argv].concat())
            .spawn()
            .unwrap();
        let mut this = Self {
            systemd: site.systemd,
            child,
            pid: 0,
        };
        this.pid = wait::until("the other's pid", || {
            site.systemd.read(&told).ok()?.trim().parse().ok()
        });
        wait::until("the other listens", || {
            site.systemd
                .in_netns(|| std::net::TcpStream::connect(FRONT))
                .ok()
        });
        this
    }

    /// A gateway that somebody started by hand, with a state directory of its own.
    fn by_hand(site: &Site<'a>) -> Self {
        let address = FRONT.to_string();
        let run = [
            "gateway",
            "run",
            "--state-dir",
            "/tmp/by-hand",
            "--listen",
            &address,
            "--",
            "node",
            NODE_APP,
            "{port}",
        ];
        let this = Self::start(site, &run);
        wait::until("the gateway by hand is ready", || {
            site.run(&["gatewayctl", "status", "--state-dir", "/tmp/by-hand"])
                .status
                .success()
                .then_some(())
        });
        this
    }

    fn foreign(site: &Site<'a>) -> Self {
        Self::start(
            site,
            &[
                "python3",
                "-m",
                "http.server",
                &FRONT.port().to_string(),
                "--bind",
                "127.0.0.1",
            ],
        )
    }

    /// It hangs: it gets no descriptor any more, so it accepts nobody.
    fn hang(&self, site: &Site<'_>) {
        let pid = self.pid.to_string();
        site.must(&["prlimit", "--pid", &pid, "--nofile=0:"]);
    }

    fn lives(&self) -> bool {
        let stat = self
            .systemd
            .read(&format!("/proc/{}/stat", self.pid))
            .unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    fn ended(&self) -> bool {
        wait::within(wait::DEADLINE, || (!self.lives()).then_some(())).is_some()
    }
}

/// The answer of a command with `--json`.
fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", all_of(output)))
}

fn restart_by_force(site: &Site<'_>) -> (i32, Value) {
    let output = site.run(&[
        "gatewayctl",
        "restart",
        "--force",
        "--json",
        "--reason",
        "tried",
    ]);
    let code = output.status.code().unwrap();
    (code, answer(&output))
}

/// The front door serves, and the one who serves is the service's main process.
fn serves(site: &Site<'_>) {
    let status = site.status();
    assert_eq!(
        (status["stage"].as_str(), status["pid"].as_u64()),
        (Some("ready"), Some(u64::from(site.main_pid()))),
        "{status}"
    );
    let answer = site.systemd.sh(&format!("curl -sf http://{FRONT}/pid || python3 -c 'import urllib.request; print(urllib.request.urlopen(\"http://{FRONT}/pid\").read().decode())'"));
    assert!(answer.trim().parse::<u32>().is_ok(), "{answer}");
}

#[test]
fn an_exit_that_is_not_made_because_the_bus_answers_no_temporary_user_is_explained() {
    let Some(systemd) = prepared("silent-bus") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let plan = |more: &[&str], config: &str| {
        site.install(more);
        let kept = site.systemd.read(&site.config()).unwrap();
        site.systemd
            .write(&site.config(), &format!("{config}\n{kept}"));
        site.must_systemctl(&["restart", "gateway"]);
        site.must(&["gatewayctl", "status"])
    };
    let status = plan(&[], "restart.mode = \"exit\"");
    // dbus-broker answers it.
    assert!(
        status.contains("restarts    exit: ") || status.contains("--run-as USER chooses another"),
        "{status}"
    );
    let app = systemd.add_plain_user("app");
    let status = plan(&["--run-as", &app.name], "");
    assert!(status.contains("restarts    exit: "), "{status}");
}

#[test]
fn a_restart_by_force_comes_out_right_whatever_is_in_the_way() {
    by_force(Base::Machine);
}

/// Restarts by force, with one thing after another in the way.
pub fn by_force(base: Base) {
    let Some(systemd) = prepared_on(base, "force") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    site.install(&[]);
    healthy(&site);
    dead_and_waiting_for_its_next_start(&site);
    given_up_by_systemd(&site);
    an_old_gateway_by_hand(&site);
    a_foreign_program(&site);
    a_program_that_does_not_run(&site);
}

fn healthy(site: &Site<'_>) {
    let load = crate::support::load::Load {
        path: "/pid".into(),
        new_per_second: crate::support::site::RATE,
        ..crate::support::load::Load::on(FRONT)
    };
    let load = site.systemd.in_netns(|| load.start());
    load.flows(Part::New, 10);
    let pid = site.main_pid();
    let (code, said) = restart_by_force(site);
    assert_eq!(
        (code, &said["ok"], &said["outcome"]),
        (0, &Value::from(true), &Value::from("restarted")),
        "{said}"
    );
    assert_eq!(
        (said["pidBefore"].as_u64(), said["pid"].as_u64()),
        (Some(pid.into()), Some(site.main_pid().into())),
        "{said}"
    );
    assert_ne!(site.main_pid(), pid);
    assert_eq!(said["clean"]["state"], "ours", "{said}");
    // A request of the probe waits a second, and a start may take longer on a busy machine. Then those
    // wait too long; any other end of one is a fault.
    let probe = &said["probe"];
    let waited = &probe["failures"]["timed out"];
    let slow = said["tookMs"].as_u64().is_some_and(|took| took > 1000);
    let nobody = Value::from(0);
    let expected = if slow && !waited.is_null() {
        waited
    } else {
        &nobody
    };
    assert_eq!(&probe["failed"], expected, "{said}");
    assert_eq!(
        said["clean"]["killed"].as_array().unwrap().len(),
        0,
        "{said}"
    );
    load.flows(Part::New, 10);
    let report = load.stop();
    assert_eq!(
        report.failures(),
        0,
        "new connections wait: {report}\n{}",
        site.journal()
    );
    serves(site);
    let history =
        site.systemd.sh("cat /var/lib/gateway/gateway/history.jsonl /var/lib/private/gateway/gateway/history.jsonl 2>/dev/null || true");
    assert!(
        history.contains("tried"),
        "the record says why: {history}\n{}",
        site.journal()
    );
    let left = site.systemd.sh("find /var/lib -name restart-intent.json");
    assert_eq!(left, "", "an intent is left behind");
}

fn dead_and_waiting_for_its_next_start(site: &Site<'_>) {
    site.drop("RestartSec=1h");
    let pid = site.main_pid();
    site.systemd.must(&["kill", "-KILL", &pid.to_string()]);
    wait::until("systemd waits to start it again", || {
        (site.property("gateway.service", "SubState") == "auto-restart").then_some(())
    });
    // The socket lies in the fd store: who connects now waits.
    let early = site
        .systemd
        .in_netns(|| std::net::TcpStream::connect(FRONT))
        .unwrap();
    let (code, said) = restart_by_force(site);
    assert_eq!(
        (code, &said["clean"]["state"], &said["clean"]["by"]),
        (0, &Value::from("kept"), &Value::from("gateway.service")),
        "{said}"
    );
    drop(early);
    serves(site);
    site.drop("");
}

fn given_up_by_systemd(site: &Site<'_>) {
    site.drop("StartLimitBurst=1\n[Unit]\nStartLimitBurst=1\nStartLimitIntervalSec=1h");
    site.must(&["gatewayctl", "stop"]);
    site.must(&["gatewayctl", "start"]);
    let pid = site.main_pid();
    site.systemd.must(&["kill", "-KILL", &pid.to_string()]);
    wait::until("systemd gives up", || {
        (site.property("gateway.service", "ActiveState") == "failed").then_some(())
    });
    let (code, said) = restart_by_force(site);
    assert_eq!(
        (code, &said["outcome"]),
        (0, &Value::from("started")),
        "{said}"
    );
    serves(site);
    site.drop("");
}

fn an_old_gateway_by_hand(site: &Site<'_>) {
    site.must(&["gatewayctl", "stop"]);
    let old = Other::by_hand(site);
    // Without force it is named, and left alone.
    let output = site.run(&["gatewayctl", "restart", "--json"]);
    let said = answer(&output);
    assert_eq!(
        (output.status.code(), &said["clean"]["kept"][0]["reason"]),
        (Some(5), &Value::from("answers")),
        "{said}"
    );
    assert!(old.lives());
    let (code, said) = restart_by_force(site);
    assert_eq!(
        (code, &said["clean"]["killed"][0]["proof"]),
        (0, &Value::from("asked")),
        "{said}"
    );
    assert_eq!(
        said["clean"]["killed"][0]["pid"].as_u64(),
        Some(old.pid.into()),
        "{said}"
    );
    assert!(old.ended());
    serves(site);
    // One that hangs is stale: no force is needed.
    site.must(&["gatewayctl", "stop"]);
    let old = Other::by_hand(site);
    old.hang(site);
    let output = site.run(&["gatewayctl", "restart", "--json"]);
    let said = answer(&output);
    assert_eq!(
        (output.status.code(), &said["clean"]["killed"][0]["proof"]),
        (Some(0), &Value::from("unknown")),
        "{said}"
    );
    assert!(old.ended());
    serves(site);
}

fn a_foreign_program(site: &Site<'_>) {
    site.must(&["gatewayctl", "stop"]);
    let foreign = Other::foreign(site);
    for command in [
        &["gatewayctl", "restart", "--force", "--json"][..],
        &["gatewayctl", "restart", "--json"],
    ] {
        let output = site.run(command);
        let said = answer(&output);
        let kept = &said["clean"]["kept"][0];
        assert_eq!(
            (output.status.code(), &kept["reason"], kept["pid"].as_u64()),
            (Some(5), &Value::from("foreign"), Some(foreign.pid.into())),
            "{said}"
        );
        assert!(
            said["error"]
                .as_str()
                .unwrap_or_default()
                .contains("held by python3 (pid"),
            "{said}"
        );
    }
    assert!(foreign.lives());
    assert_eq!(
        site.property("gateway.service", "ActiveState"),
        "inactive",
        "nothing was tried"
    );
    drop(foreign);
    site.must(&["gatewayctl", "start"]);
}

/// A restart that would leave nothing behind is refused while the old one serves.
fn a_program_that_does_not_run(site: &Site<'_>) {
    let pid = site.main_pid();
    site.systemd.must(&[
        "mv",
        "/usr/local/bin/gateway",
        "/usr/local/bin/gateway.away",
    ]);
    let output = site.run(&["gatewayctl", "restart", "--force"]);
    assert_eq!(output.status.code(), Some(5), "{}", all_of(&output));
    assert!(
        all_of(&output).contains("nothing was changed"),
        "{}",
        all_of(&output)
    );
    site.systemd.must(&[
        "mv",
        "/usr/local/bin/gateway.away",
        "/usr/local/bin/gateway",
    ]);
    assert_eq!(site.main_pid(), pid);
    serves(site);
}

#[test]
fn a_supervised_start_whose_port_is_held_cleans_or_waits_and_never_loops() {
    let Some(systemd) = prepared("held") else {
        return;
    };
    let user = systemd.add_user("held");
    let (uid, site) = (user.uid, &Site::of_user(&systemd, user));
    site.install(&[]);

    // What is stale is ended, and the service is up.
    site.must(&["gatewayctl", "stop"]);
    let old = Other::by_hand(site);
    old.hang(site);
    site.must_systemctl(&["start", "gateway"]);
    assert!(old.ended());
    back(site, 0);
    serves(site);
    assert_eq!(
        site.property("gateway.service", "NRestarts"),
        "0",
        "{}",
        site.journal()
    );

    // A stranger is waited for, and named.
    for foreign in [true, false] {
        site.must(&["gatewayctl", "stop"]);
        let other = if foreign {
            Other::foreign(site)
        } else {
            Other::by_hand(site)
        };
        site.must_systemctl(&["start", "gateway"]);
        let name = if foreign { "python3" } else { "gateway" };
        let text = format!(
            "waiting for {FRONT}: held by {name} (pid {}, uid {uid})",
            other.pid
        );
        assert_eq!(
            site.property("gateway.service", "StatusText"),
            text,
            "{}",
            site.journal()
        );
        let output = site.run(&["gatewayctl", "start"]);
        assert_eq!(output.status.code(), Some(5), "{}", all_of(&output));
        assert!(all_of(&output).contains(&text), "{}", all_of(&output));
        assert!(other.lives());
        assert_eq!(site.property("gateway.service", "NRestarts"), "0");
        drop(other);
        wait::until("it serves", || {
            site.run(&["gatewayctl", "status"])
                .status
                .success()
                .then_some(())
        });
        serves(site);
        assert_eq!(
            site.property("gateway.service", "NRestarts"),
            "0",
            "{}",
            site.journal()
        );
    }

    // A stop ends the waiting.
    site.must(&["gatewayctl", "stop"]);
    let _other = Other::foreign(site);
    site.must_systemctl(&["start", "gateway"]);
    site.must(&["gatewayctl", "stop"]);
    assert_eq!(
        site.property("gateway.service", "Result"),
        "success",
        "{}",
        site.journal()
    );
}

#[test]
fn an_agent_that_restarts_its_own_gateway_hands_the_work_over_and_it_comes_back() {
    let Some(systemd) = prepared("inside") else {
        return;
    };
    let agent = systemd.add_user("agent");
    let site = Site::of_user(&systemd, agent.clone());
    // The server asks once, as soon as it is behind a front door that is ready.
    let ask = "gatewayctl wait --ready && gatewayctl clean --json > clean.json; gatewayctl restart --force --json > said.json 2> said.err; echo $? > code";
    let later = "until [ -e now ]; do sleep 0.05; done; gatewayctl restart --json > later.json 2> later.err";
    let once = |mark: &str, what: &str| format!("[ -e {mark} ] || {{ touch {mark}; ({what}) & }}");
    let (first, second) = (once("asked", ask), once("asked-later", later));
    // The proof of the installation is none of the service's lives.
    let asks = format!(
        "if grep -q /gateway.service /proc/self/cgroup; then {first}; [ ! -e go ] || {second}; fi"
    );
    let script = format!("cd ~; {asks}; exec node {NODE_APP} \"$1\"");
    site.must(&[
        "gatewayctl",
        "install",
        "--now",
        "--",
        "sh",
        "-c",
        &script,
        "sh",
        "{port}",
    ]);
    let home = format!("/home/{}", agent.name);
    let code = wait::within(wait::DEADLINE, || {
        systemd.read(&format!("{home}/code")).ok()
    });
    let code = code.unwrap_or_else(|| {
        panic!(
            "{}\n{}",
            site.journal(),
            systemd.sh(&format!("ls -la {home}; ps ax; cat {home}/*"))
        )
    });
    let said = systemd.read(&format!("{home}/said.json")).unwrap();
    let errors = systemd.read(&format!("{home}/said.err")).unwrap();
    let said: Value = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said} {errors}\n{}", site.journal()));
    assert_eq!(
        (code.trim(), &said["outcome"]),
        ("0", &Value::from("scheduled")),
        "{said} {errors}"
    );
    let clean: Value =
        serde_json::from_str(&systemd.read(&format!("{home}/clean.json")).unwrap()).unwrap();
    assert_eq!(
        (&clean["state"], clean["killed"].as_array().map(Vec::len)),
        (&Value::from("ours"), Some(0)),
        "{clean}"
    );
    let by = said["by"].as_str().unwrap();
    let journal = || {
        String::from_utf8_lossy(
            &systemd
                .run(&[
                    "journalctl",
                    "--no-pager",
                    "-o",
                    "cat",
                    &format!("_SYSTEMD_USER_UNIT={by}"),
                ])
                .stdout,
        )
        .into_owned()
    };
    wait::until("the restart is done", || {
        journal()
            .contains("gateway.service: restarted, pid")
            .then_some(())
    });
    serves(&site);
    assert_eq!(
        site.property("gateway.service", "NRestarts"),
        "0",
        "{}",
        site.journal()
    );

    // Where a restart ends the whole service, the command that asks for it ends, too: it says so
    // while it can.
    let config = systemd.read(&site.config()).unwrap();
    systemd.write(
        &site.config(),
        &format!("{config}\n[restart]\nmode = \"exit\"\n"),
    );
    systemd.write(&format!("{home}/go"), "");
    site.must(&["gatewayctl", "restart", "--drained"]);
    let pid = site.main_pid();
    systemd.write(&format!("{home}/now"), "");
    let told =
        || serde_json::from_str::<Value>(&systemd.read(&format!("{home}/later.json")).ok()?).ok();
    let said = wait::within(wait::DEADLINE, told);
    let said = said.unwrap_or_else(|| {
        panic!(
            "{:?}\n{}",
            systemd.read(&format!("{home}/later.err")),
            site.journal()
        )
    });
    assert_eq!(
        (&said["ok"], &said["outcome"]),
        (&Value::from(true), &Value::from("scheduled")),
        "{said}"
    );
    back(&site, pid);
    wait::until("it serves", || {
        site.run(&["gatewayctl", "status"])
            .status
            .success()
            .then_some(())
    });
}

#[test]
fn a_restart_that_nobody_waits_for_any_more_says_how_it_stands_and_leaves_no_intent() {
    let Some(systemd) = prepared("ctrl-c") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    site.must(&[
        "gatewayctl",
        "install",
        "--now",
        "--set",
        "STOP_DELAY_MS=10000",
        "--exclusive",
        "--",
        "node",
        NODE_APP,
        "{port}",
    ]);
    let pid = site.main_pid();
    let mut command = systemd.command(&[
        "sh",
        "-c",
        "echo $$ > /tmp/ctl; exec gatewayctl restart --force",
    ]);
    let child = command
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait::until("the service stops", || {
        (site.property("gateway.service", "ActiveState") == "deactivating").then_some(())
    });
    let ctl = systemd.read("/tmp/ctl").unwrap();
    systemd.must(&["kill", "-INT", ctl.trim()]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", all_of(&output));
    assert!(
        all_of(&output).contains("the service manager goes on with it"),
        "{}",
        all_of(&output)
    );
    assert_eq!(systemd.sh("find /var/lib -name restart-intent.json"), "");
    back(&site, pid);
    wait::until("it serves", || {
        site.run(&["gatewayctl", "status"])
            .status
            .success()
            .then_some(())
    });
}

#[test]
fn a_port_that_a_gateway_by_hand_holds_is_said_to_be_so_with_the_command_that_helps() {
    let Some(systemd) = prepared("unseen") else {
        return;
    };
    let site = &Site::of_machine(&systemd);
    // Its default user may not look into the processes of others.
    site.install(&[]);
    site.must(&["gatewayctl", "stop"]);
    let address = FRONT.to_string();
    let run = [
        "gateway", "run", "--listen", &address, "--", "node", NODE_APP, "{port}",
    ];
    let other = Other::start(site, &run);
    site.must_systemctl(&["start", "gateway"]);
    let status = site.property("gateway.service", "StatusText");
    assert!(
        status.contains("held by a process that cannot be seen from here (uid 0)"),
        "{status}"
    );
    let named = format!("gateway (pid {}, uid 0)", other.pid);
    let force = "gatewayctl restart --force";
    expect(&site.run(&["gatewayctl", "start"]), 5, &[&named, force]);
    expect(&site.run(&["gatewayctl", "clean"]), 5, &[&named, force]);
    assert!(other.lives());
    site.must(&["gatewayctl", "restart", "--force"]);
    assert!(other.ended());
    serves(site);
}

/// Its main process was compared with the word of any gateway of that name.
#[test]
fn a_gateway_by_hand_of_the_same_name_is_not_mistaken_for_the_service() {
    let Some(systemd) = prepared("namesake") else {
        return;
    };
    let site = &Site::of_machine(&systemd);
    site.install(&[]);
    // Its control socket is where nobody looks for it.
    site.drop("RuntimeDirectory=\nRuntimeDirectory=elsewhere");
    site.must_systemctl(&["restart", "gateway"]);
    let run = [
        "gateway",
        "run",
        "--instance",
        "gateway",
        "--listen",
        "18999",
    ];
    let other = Other::start(site, &run);
    wait::until("it answers for the name", || {
        let status = site.run(&["gatewayctl", "status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
        (status["pid"] == other.pid).then_some(())
    });
    let before = site.main_pid();
    site.must(&["gatewayctl", "restart", "--force"]);
    assert!(other.lives() && site.main_pid() != before);
}
