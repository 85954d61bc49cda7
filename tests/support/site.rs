//! A gateway that is installed in a systemd box, as the tests see it from outside.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use super::base::Base;
use super::client::Target;
use super::load::{Load, Running};
use super::report::Part;
use super::systemd_box::{BoxUser, SystemdBox};
use super::{servers, wait};

/// Where the front door of the default instance is.
pub const FRONT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 18789);

/// The Node server's place in the box: the tests' own may lie in a directory that a service cannot
/// see.
pub const NODE_APP: &str = "/srv/node-app.mjs";

/// The place in the box of a server that says what it was started with.
pub const MIRROR: &str = "/srv/mirror.py";

/// New connections a second on each listener: below what a debug build carries on two busy cores.
pub const RATE: f64 = 60.0;

/// A box with the programs and the Node server; none where there can be none.
pub fn prepared(name: &str) -> Option<SystemdBox> {
    prepared_on(Base::Machine, name)
}

/// The same on the file system of `base`.
pub fn prepared_on(base: Base, name: &str) -> Option<SystemdBox> {
    let systemd = SystemdBox::boot_on_or_skip(base, name)?;
    systemd.copy_in(servers::NODE_APP, NODE_APP);
    systemd.install_programs();
    Some(systemd)
}

/// A box with the programs and the server that says what it was started with; none where there can be
/// none.
pub fn with_mirror(name: &str) -> Option<SystemdBox> {
    let systemd = prepared(name).filter(|_| servers::have("python3"))?;
    systemd.copy_in(
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/mirror.py"),
        MIRROR,
    );
    Some(systemd)
}

/// A box with the Node server alone, for a package that brings the programs.
pub fn prepared_without_programs(name: &str) -> Option<SystemdBox> {
    let systemd = SystemdBox::boot_or_skip(name)?;
    systemd.copy_in(servers::NODE_APP, NODE_APP);
    Some(systemd)
}

/// What a gateway is installed for.
pub fn node() -> Vec<&'static str> {
    vec!["--", "node", NODE_APP, "{port}"]
}

/// A box and whose service manager is meant.
pub struct Site<'a> {
    /// The box.
    pub systemd: &'a SystemdBox,
    /// The user, or the machine's own manager.
    pub user: Option<BoxUser>,
}

impl<'a> Site<'a> {
    /// The machine's own manager.
    pub fn of_machine(systemd: &'a SystemdBox) -> Self {
        Self {
            systemd,
            user: None,
        }
    }

    /// The manager of a user.
    pub fn of_user(systemd: &'a SystemdBox, user: BoxUser) -> Self {
        Self {
            systemd,
            user: Some(user),
        }
    }
}

impl Site<'_> {
    /// Installs a gateway before the Node server, with further flags, and starts it.
    pub fn install(&self, more: &[&str]) {
        self.must(&[&["gatewayctl", "install", "--now"], more, &node()].concat());
    }

    /// Runs a command to its end, as whose manager it is.
    pub fn run(&self, argv: &[&str]) -> Output {
        match &self.user {
            Some(user) => self.systemd.run_as_user(user, argv),
            None => self.systemd.run(argv),
        }
    }

    /// A command that must succeed; its standard output.
    pub fn must(&self, argv: &[&str]) -> String {
        let output = self.run(argv);
        assert!(output.status.success(), "{argv:?}: {}", all_of(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `systemctl` of this scope.
    pub fn systemctl(&self, args: &[&str]) -> Output {
        let scope: &[&str] = if self.user.is_some() {
            &["systemctl", "--user"]
        } else {
            &["systemctl"]
        };
        self.run(&[scope, args].concat())
    }

    /// The same, which must succeed.
    pub fn must_systemctl(&self, args: &[&str]) -> String {
        let output = self.systemctl(args);
        assert!(
            output.status.success(),
            "systemctl {args:?}: {}\n{}",
            all_of(&output),
            self.journal()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// One property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.must_systemctl(&["show", "--value", "-p", name, unit])
            .trim()
            .to_owned()
    }

    /// The main process as the manager knows it, in numbers of the box; 0 for none.
    pub fn main_pid(&self) -> u32 {
        self.property("gateway.service", "MainPID").parse().unwrap()
    }

    /// What the service said, and what its manager said about it.
    pub fn journal(&self) -> String {
        // Root sees both: the user's own journal may need a moment to be readable for its owner.
        let unit = if self.user.is_some() {
            "_SYSTEMD_USER_UNIT=gateway.service"
        } else {
            "_SYSTEMD_UNIT=gateway.service"
        };
        let about = if self.user.is_some() {
            "USER_UNIT=gateway.service"
        } else {
            "UNIT=gateway.service"
        };
        self.systemd.must(&["journalctl", "--sync"]);
        String::from_utf8_lossy(
            &self
                .systemd
                .run(&["journalctl", "--no-pager", "-o", "cat", unit, "+", about])
                .stdout,
        )
        .into_owned()
    }

    /// The configuration file.
    pub fn config(&self) -> String {
        self.user.as_ref().map_or_else(
            || "/etc/gateway/gateway.toml".to_owned(),
            |user| format!("/home/{}/.config/gateway/gateway.toml", user.name),
        )
    }

    /// The directory of sockets.
    pub fn runtime(&self) -> String {
        self.user.as_ref().map_or_else(
            || "/run".to_owned(),
            |user| format!("/run/user/{}", user.uid),
        )
    }

    /// A drop-in of the test for the service.
    pub fn drop_in(&self) -> String {
        let base = self.user.as_ref().map_or_else(
            || "/etc/systemd/system".to_owned(),
            |user| format!("/home/{}/.config/systemd/user", user.name),
        );
        format!("{base}/gateway.service.d/test.conf")
    }

    /// `gatewayctl status --json`
    pub fn status(&self) -> Value {
        let output = self.run(&["gatewayctl", "status", "--json"]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", all_of(&output), self.journal()))
    }

    /// Every process of the service, as pid and name.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let group = self.property("gateway.service", "ControlGroup");
        if group.is_empty() {
            return Vec::new();
        }
        // The hierarchy is mounted in one place or another; one that ends meanwhile has no name any
        // more.
        let procs = format!(
            "find /sys/fs/cgroup -path '*{group}/cgroup.procs' -exec cat {{}} + | sort -nu"
        );
        let script = format!(
            "{procs} | while read pid; do echo $pid $(cat /proc/$pid/comm 2>/dev/null); done"
        );
        let text = self.systemd.sh(&script);
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        pairs
            .filter_map(|(pid, name)| Some((pid.parse().ok()?, name.to_owned())))
            .collect()
    }

    /// The gateways among them.
    pub fn gateways(&self) -> Vec<u32> {
        self.processes()
            .into_iter()
            .filter(|(_, name)| name == "gateway")
            .map(|(pid, _)| pid)
            .collect()
    }

    /// Waits until nothing but the main process and its one sidecar is left of the service.
    pub fn settled(&self) {
        let mut last = Vec::new();
        wait::within(wait::DEADLINE, || {
            last = self.processes();
            (last.len() == 2 && self.gateways() == [self.main_pid()]).then_some(())
        })
        .unwrap_or_else(|| panic!("main {}, but {last:?}\n{}", self.main_pid(), self.journal()));
    }

    /// Sets the drop-in of the test.
    pub fn drop(&self, text: &str) {
        self.systemd
            .write(&self.drop_in(), &format!("[Service]\n{text}\n"));
        self.must_systemctl(&["daemon-reload"]);
    }

    /// Everything on disk that speaks of a gateway, the programs aside.
    pub fn traces(&self) -> BTreeSet<String> {
        let script = "find /etc /run /var/lib /home /root -name '*gateway*' -not -path '/run/log/*' 2>/dev/null; ls /var/lib/systemd/linger 2>/dev/null || true";
        self.systemd.sh(script).lines().map(str::to_owned).collect()
    }

    /// A load on the TCP listener, with downloads, and one on the unix listener at `unix`.
    pub fn load(&self, unix: &str) -> (Running, Running) {
        let download = servers::node_download(2_000_000, Duration::from_secs(2));
        let tcp = Load {
            path: "/pid".into(),
            new_per_second: RATE,
            downloads: 4,
            download: Some(download),
            ..Load::on(FRONT)
        };
        let unix = Load {
            path: "/pid".into(),
            new_per_second: RATE / 2.0,
            ..Load::on(Target::Unix(self.systemd.path(unix)))
        };
        let (tcp, unix) = (self.systemd.in_netns(|| tcp.start()), unix.start());
        tcp.flows(Part::New, 10);
        unix.flows(Part::New, 5);
        (tcp, unix)
    }
}

/// New connections to the front door of a box, `rate` a second, until it is stopped; it flows.
pub fn load_on_front(systemd: &SystemdBox, rate: f64) -> Running {
    let load = Load {
        path: "/pid".into(),
        new_per_second: rate,
        ..Load::on(FRONT)
    };
    let load = systemd.in_netns(|| load.start());
    load.flows(Part::New, 10);
    load
}

/// A command ended with this code and said these parts.
pub fn expect(output: &Output, code: i32, parts: &[&str]) {
    let text = all_of(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` in: {text}");
    }
}

/// Status and all that a command said.
pub fn all_of(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Where systemd misses the end of a process that it killed, it waits out its own limit for the stop
/// before it starts the service again: "Processes still around after SIGKILL".
const BACK_LIMIT: Duration = Duration::from_secs(120);

/// Waits until another process is the main one and ready.
pub fn back(site: &Site<'_>, pid: u32) {
    let mut seen = String::new();
    wait::within(BACK_LIMIT, || {
        let (now, state) = (
            site.main_pid(),
            site.property("gateway.service", "ActiveState"),
        );
        seen = format!("pid {now}, {state}");
        (now != 0 && now != pid && state == "active").then_some(())
    })
    .unwrap_or_else(|| {
        panic!(
            "the service is not back after pid {pid}: {seen}\n{}",
            site.journal()
        )
    });
}
