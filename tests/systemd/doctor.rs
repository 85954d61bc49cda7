//! Every finding of `gatewayctl doctor` produced for real, and mended where it says so; our own
//! install produces none.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::base::Base;
use crate::support::site::{Site, all_of, prepared_on};
use crate::support::systemd_box::{BoxUser, SystemdBox};
use crate::support::wait;
use gateway::internals::{Written, sign};
use serde_json::Value;

/// What no box can produce: another version of the program, and a limit of the whole machine. The
/// checks' own tests have them.
const NOT_IN_A_BOX: [&str; 3] = ["inotify-limit", "program-version", "sidecar-failing"];

/// Produced by tests of their own, below or of the programs alone: they need a user's manager, or a service that is ill for
/// longer.
const ELSEWHERE: [&str; 23] = [
    "second-copy-refused",
    "manager-unreachable",
    "unit-linger",
    "unit-network-online",
    "scope-duplicate",
    "restart-storm",
    "throttled",
    "safe-mode",
    "start-limit-hit",
    "log-suppressed",
    // Of launchd: tests/standalone/launchd_doctor.rs.
    "job-unreachable",
    "job-file",
    "job-key",
    "job-changed",
    "job-twice",
    "job-disabled",
    "job-held",
    "job-unattended",
    "job-sockets",
    "job-log",
    "job-identity",
    "job-quarantine",
    "job-protected",
];

const UNIT: &str = "/etc/systemd/system/gateway.service";
const DROP_IN: &str = "/etc/systemd/system/gateway.service.d/test.conf";
const CONFIG: &str = "/etc/gateway/gateway.toml";
const STATE: &str = "/var/lib/gateway/gateway";

/// The server behind the gateway: it refuses to start while /run/ill is there.
const SERVER: &str = "test -e /run/ill && exit 3; exec node /srv/node-app.mjs $PORT";

/// One case installs a second gateway.
const NAMED: &[&str] = &["--instance", "gateway"];

/// One way to go wrong.
struct Case {
    /// What doctor calls it.
    code: &'static str,
    /// How it comes about; a shell script in the box, `set -e`.
    setup: Setup,
    /// How it is taken back, besides the drop-in, the unit and the configuration, which always are;
    /// a script as the setup may be.
    undo: &'static str,
    /// Whether --fix mends it.
    mended: bool,
}

enum Setup {
    /// Lines of a drop-in below [Service].
    Drop(&'static str),
    /// The unit's text with one thing replaced by another, as another version would have written
    /// it.
    Written(&'static str, &'static str),
    /// A change of the configuration, by sed.
    Config(&'static str),
    /// Anything; `$APP` is the service's user.
    Script(&'static str),
    /// A file of the kernel's, for the box's own network, with what it is then.
    Net(&'static str, &'static str),
}

use Setup::{Config, Drop, Net, Script};

const fn case(code: &'static str, setup: Setup) -> Case {
    Case {
        code,
        setup,
        undo: "",
        mended: false,
    }
}

const fn mended(code: &'static str, setup: Setup) -> Case {
    Case {
        code,
        setup,
        undo: "",
        mended: true,
    }
}

const fn undone(code: &'static str, setup: Setup, undo: &'static str) -> Case {
    Case {
        code,
        setup,
        undo,
        mended: false,
    }
}

/// A restart by the manager that does not run into our own drop-ins.
const RESTART: &str = "systemctl reset-failed gateway; systemctl restart gateway";

const CASES: &[Case] = &[
    // Settings.
    case("unit-drop-in", Drop("TimeoutStopSec=60")),
    case("unit-type", Drop("Type=simple")),
    case("unit-notify-access", Drop("NotifyAccess=all")),
    case("unit-kill-mode", Drop("KillMode=process")),
    case("unit-kill-group", Drop("KillMode=control-group")),
    case("unit-restart", Drop("Restart=no")),
    case("unit-restart-delay", Drop("RestartSec=30")),
    case("unit-exit-status", Drop("RestartPreventExitStatus=1")),
    case("unit-stop-timeout", Drop("TimeoutStopSec=10")),
    case("unit-watchdog", Drop("WatchdogSec=0")),
    case("unit-fd-store", Drop("FileDescriptorStoreMax=0")),
    case(
        "unit-start-limit",
        Drop("[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=5"),
    ),
    case("unit-oom-policy", Drop("OOMPolicy=stop")),
    case("unit-nofile", Drop("LimitNOFILE=1024")),
    case("unit-output", Drop("StandardError=null")),
    case("unit-environment", Drop("Environment=GATEWAY_NO_RESPAWN=1")),
    case("unit-account", Drop("User=nobody-of-this-name")),
    // Files.
    case("unit-not-loaded", Drop("ExecStart=")),
    mended(
        "unit-reload-needed",
        Script(
            "mkdir -p /etc/systemd/system/gateway.service.d; printf '[Service]\\nTimeoutStopSec=61\\n' > /etc/systemd/system/gateway.service.d/test.conf",
        ),
    ),
    case(
        "unit-edited",
        Script("echo '# mine' >> /etc/systemd/system/gateway.service; systemctl daemon-reload"),
    ),
    case(
        "unit-foreign",
        Script("sed -i 1d /etc/systemd/system/gateway.service; systemctl daemon-reload"),
    ),
    case(
        "unit-outdated",
        Setup::Written("LimitNOFILE=1024:524288", "LimitNOFILE=1024:500000"),
    ),
    undone(
        "unit-shadowed",
        Script(
            "mkdir -p /usr/local/lib/systemd/system; cp /etc/systemd/system/gateway.service /usr/local/lib/systemd/system/",
        ),
        "rm /usr/local/lib/systemd/system/gateway.service",
    ),
    case("unit-secret", Drop("Environment=API_TOKEN=abcdefghijkl")),
    case("env-file-missing", Drop("EnvironmentFile=/etc/no-such.env")),
    undone(
        "env-file-misread",
        Script(
            "(umask 077; echo 'export X=1' > /etc/gw.env); mkdir -p /etc/systemd/system/gateway.service.d; printf '[Service]\\nEnvironmentFile=/etc/gw.env\\n' > /etc/systemd/system/gateway.service.d/test.conf; systemctl daemon-reload",
        ),
        "rm /etc/gw.env",
    ),
    case(
        "env-file-unusable",
        Config("/^.sidecar.main/a env_file = \"/etc/no-such.env\""),
    ),
    undone(
        "change-not-applied",
        Drop("Environment=COLOR=blue"),
        RESTART,
    ),
    case("cwd-read-only", Config("s#^cwd = .*#cwd = \"/srv\"#")),
    Case {
        undo: "rm /etc/gw.env",
        ..mended(
            "env-file-mode",
            Script(
                "echo API_TOKEN=abcdefghijkl > /etc/gw.env; chmod 644 /etc/gw.env; mkdir -p /etc/systemd/system/gateway.service.d; printf '[Service]\\nEnvironmentFile=/etc/gw.env\\n' > /etc/systemd/system/gateway.service.d/test.conf; systemctl daemon-reload",
            ),
        )
    },
    // The service.
    mended("unit-not-enabled", Script("systemctl disable gateway")),
    undone(
        "unit-stopped",
        Script("systemctl stop gateway"),
        "systemctl start gateway",
    ),
    undone(
        "unit-failed",
        Script(
            "mkdir -p /etc/systemd/system/gateway.service.d; printf '[Service]\\nExecStart=\\nExecStart=/bin/sh -c \"exit 78\"\\n' > /etc/systemd/system/gateway.service.d/test.conf; systemctl daemon-reload; systemctl restart gateway || true",
        ),
        RESTART,
    ),
    undone(
        "gateway-silent",
        Script("systemctl kill -s STOP --kill-who=main gateway"),
        "systemctl kill -s CONT --kill-who=main gateway",
    ),
    // Programs.
    case(
        "program-missing",
        Drop("ExecStart=\nExecStart=/opt/none/gateway run"),
    ),
    undone(
        "program-temporary",
        Script(
            "cp /usr/local/bin/gateway /tmp/gateway; mkdir -p /etc/systemd/system/gateway.service.d; printf '[Service]\\nExecStart=\\nExecStart=/tmp/gateway run --instance gateway\\n' > /etc/systemd/system/gateway.service.d/test.conf; systemctl daemon-reload",
        ),
        "rm /tmp/gateway",
    ),
    undone(
        "program-writable",
        Script(
            "mkdir /home/$APP/bin; cp /usr/local/bin/gateway /home/$APP/bin; chown -R $APP /home/$APP/bin; mkdir -p /etc/systemd/system/gateway.service.d; printf \"[Service]\\nExecStart=\\nExecStart=/home/$APP/bin/gateway run --instance gateway\\n\" > /etc/systemd/system/gateway.service.d/test.conf; systemctl daemon-reload",
        ),
        "rm -r /home/$APP/bin",
    ),
    undone(
        "program-replaced",
        Script(
            "cp /usr/local/bin/gateway /usr/local/bin/gateway.new; mv /usr/local/bin/gateway.new /usr/local/bin/gateway",
        ),
        RESTART,
    ),
    case(
        "command-missing",
        Config("s|\"/bin/sh\"|\"/opt/none/sh\"|; s|\"/usr/bin/sh\"|\"/opt/none/sh\"|"),
    ),
    undone(
        "command-version-manager",
        Script(
            "mkdir -p /opt/.nvm/versions/node/v20/bin; ln -sf /bin/sh /opt/.nvm/versions/node/v20/bin/sh; sed -i 's|\"/bin/sh\"|\"/opt/.nvm/versions/node/v20/bin/sh\"|; s|\"/usr/bin/sh\"|\"/opt/.nvm/versions/node/v20/bin/sh\"|' /etc/gateway/gateway.toml",
        ),
        "rm -r /opt/.nvm",
    ),
    case("cwd-missing", Config("s|^cwd = .*|cwd = \"/srv/none\"|")),
    case(
        "path-missing",
        Config("s|^PATH = \"|PATH = \"/srv/none/bin:|"),
    ),
    // The configuration.
    case("config-invalid", Config("$a nonsense = 1")),
    Case {
        undo: "gatewayctl reload",
        ..mended(
            "config-unapplied",
            Config("1a [restart]\\ndrain = \"299s\"\\n"),
        )
    },
    Case {
        undo: "gatewayctl reload; chmod 640 /etc/gateway/gateway.toml",
        ..mended(
            "config-secret",
            Script(
                "sed -i 's|^PATH = |API_TOKEN = \"abcdefghijkl\"\\nPATH = |' /etc/gateway/gateway.toml; chmod 644 /etc/gateway/gateway.toml",
            ),
        )
    },
    undone(
        "config-unreadable",
        Script("chgrp root /etc/gateway/gateway.toml"),
        "chgrp $APP /etc/gateway/gateway.toml",
    ),
    undone(
        "sidecar-unreached",
        Config("$a [[route]]\\nto = \"http://127.0.0.1:1\""),
        "gatewayctl reload",
    ),
    undone(
        "sidecar-exposed",
        Script(
            "sed -i 's|^command = .*|command = [\"python3\", \"-m\", \"http.server\", \"{port}\"]|' /etc/gateway/gateway.toml; gatewayctl reload; n=0; until gatewayctl status --json | grep -q '\"exposed\"'; do n=$((n+1)); [ $n -lt 600 ]; sleep 0.05; done",
        ),
        "systemctl restart gateway",
    ),
    // Addresses.
    undone(
        "port-taken",
        Script(
            "systemctl stop gateway; systemd-run --unit=stranger python3 -c 'import socket,time; s=socket.create_server((\"127.0.0.1\",18789)); time.sleep(1000)'; n=0; until ss -ltn | grep -q 127.0.0.1:18789; do n=$((n+1)); [ $n -lt 600 ]; sleep 0.05; done; systemctl start gateway",
        ),
        "systemctl stop stranger; systemctl restart gateway",
    ),
    undone(
        "port-stale",
        Script(
            "systemctl stop gateway; systemd-run --unit=byhand /usr/local/bin/gateway run --listen 127.0.0.1:18789 --state-dir /var/lib/byhand; n=0; until ss -ltn | grep -q 127.0.0.1:18789; do n=$((n+1)); [ $n -lt 600 ]; sleep 0.05; done",
        ),
        "systemctl stop byhand; systemctl start gateway",
    ),
    undone(
        "port-shared",
        Script(
            "cp /etc/systemd/system/gateway.service /etc/systemd/system/gateway@two.service; cp /etc/gateway/gateway.toml /etc/gateway/two.toml",
        ),
        "rm /etc/systemd/system/gateway@two.service /etc/gateway/two.toml",
    ),
    case(
        "port-ephemeral",
        Net("net/ipv4/ip_local_port_range", "10000\t60000"),
    ),
    case("somaxconn-low", Net("net/core/somaxconn", "128")),
    case(
        "listen-everywhere",
        Config("1a [gateway]\\nlisten = [\"0.0.0.0:18789\"]\\n"),
    ),
    // State.
    undone(
        "state-owner",
        Script("chmod 777 /var/lib/gateway/gateway"),
        "chmod 700 /var/lib/gateway/gateway",
    ),
    undone(
        "state-file-system",
        Script("mount -t tmpfs -o size=1m tmpfs /var/lib/gateway/gateway"),
        "umount /var/lib/gateway/gateway",
    ),
    undone(
        "disk-full",
        Script(
            "mount -t tmpfs -o size=64k tmpfs /var/lib/gateway/gateway; head -c 100000 /dev/zero > /var/lib/gateway/gateway/full || true",
        ),
        "umount /var/lib/gateway/gateway",
    ),
    mended(
        "state-aside",
        Script("echo x > /var/lib/gateway/gateway/startup-throttle.json.corrupt"),
    ),
    Case {
        undo: RESTART,
        ..mended(
            "owner-stale",
            Script(
                "sed -i 's/\"pid\": *[0-9]*/\"pid\": 4194000/' /var/lib/gateway/gateway/owner.json",
            ),
        )
    },
    undone(
        "lock-held",
        Script(
            "systemctl stop gateway; systemd-run --unit=holder flock /var/lib/gateway/gateway/gateway.lock sleep 1000; n=0; until grep -q \":$(stat -c %i /var/lib/gateway/gateway/gateway.lock) \" /proc/locks; do n=$((n+1)); [ $n -lt 600 ]; sleep 0.05; done",
        ),
        "systemctl stop holder; systemctl start gateway",
    ),
    mended(
        "intent-stale",
        Script("touch -d '5 minutes ago' /var/lib/gateway/gateway/restart-intent.json"),
    ),
    undone(
        "drainer-overdue",
        Script(
            "systemd-run --unit=old sleep 1000; pid=$(systemctl show --value -p MainPID old); start=$(cut -d' ' -f22 /proc/$pid/stat); sed -i \"s/\\\"drainers\\\": *\\[\\]/\\\"drainers\\\": [{\\\"pid\\\": $pid, \\\"startTime\\\": $start, \\\"untilMs\\\": 1000}]/\" /var/lib/gateway/gateway/owner.json",
        ),
        "systemctl stop old; systemctl reset-failed gateway; systemctl restart gateway",
    ),
    undone(
        "bundle-recent",
        Script(
            "mkdir -p /var/lib/gateway/gateway/bundles; echo '{}' > /var/lib/gateway/gateway/bundles/gateway-20260101T000000000Z-1-test.json",
        ),
        "rm -r /var/lib/gateway/gateway/bundles",
    ),
    // The running gateway.
    undone(
        "last-good",
        Script("echo 'nonsense = 1' >> /etc/gateway/gateway.toml; systemctl restart gateway"),
        RESTART,
    ),
    undone(
        "sidecar-down",
        Script(
            "touch /run/ill; pkill -P $(systemctl show --value -p MainPID gateway) node; n=0; until gatewayctl status --json | grep -q '\"stage\": \"degraded\"'; do n=$((n+1)); [ $n -lt 600 ]; sleep 0.05; done",
        ),
        "rm /run/ill; systemctl restart gateway",
    ),
    undone(
        "standing-by",
        Script(
            "systemctl stop gateway; systemd-run --unit=other -p User=$APP -p RuntimeDirectory=other /usr/local/bin/gateway run --listen 127.0.0.1:18790 --state-dir /var/lib/gateway/gateway; n=0; until ss -ltn | grep -q 127.0.0.1:18790; do n=$((n+1)); [ $n -lt 600 ]; sleep 0.05; done; systemctl start gateway",
        ),
        "systemctl stop other; systemctl restart gateway",
    ),
    undone(
        "fd-usage",
        Script(
            "pid=$(systemctl show --value -p MainPID gateway); used=$(ls /proc/$pid/fd | wc -l); runuser -u $APP -- prlimit --pid $pid --nofile=$((used + used / 5)):",
        ),
        RESTART,
    ),
    undone(
        "fd-clients",
        Script(
            "runuser -u $APP -- prlimit --pid $(systemctl show --value -p MainPID gateway) --nofile=4096:",
        ),
        RESTART,
    ),
    // The machine.
    undone(
        "journal-volatile",
        Script(
            "mkdir -p /run/log/journal /var/log/journal; mv /var/log/journal /var/log/journal.away",
        ),
        "mv /var/log/journal.away /var/log/journal",
    ),
];

/// `gatewayctl doctor --json`, and its exit code.
fn doctor(site: &Site<'_>, more: &[&str]) -> (Value, i32) {
    let output = site.run(&[&["gatewayctl", "doctor", "--json"], more].concat());
    let answer = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", all_of(&output), site.journal()));
    (answer, output.status.code().unwrap())
}

fn codes(answer: &Value) -> Vec<String> {
    let findings = answer["findings"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"));
    findings
        .iter()
        .map(|finding| finding["code"].as_str().unwrap().to_owned())
        .collect()
}

fn finding<'a>(answer: &'a Value, code: &str) -> Option<&'a Value> {
    answer["findings"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"))
        .iter()
        .find(|finding| finding["code"] == code)
}

/// Nothing is found but what the box itself is like.
fn healthy(site: &Site<'_>, when: &str) {
    let (answer, exit) = doctor(site, &[]);
    assert!(
        codes(&answer).is_empty() && exit == 0 && answer["unseen"].as_array().unwrap().is_empty(),
        "{when}: {answer:#}"
    );
    let said = site.must(&["gatewayctl", "doctor"]);
    assert!(
        said.starts_with("no findings: ") && said.lines().count() == 1,
        "{when}: {said}"
    );
}

/// A box whose journal is kept, as on a machine.
fn ready(name: &str) -> Option<SystemdBox> {
    ready_on(Base::Machine, name)
}

fn ready_on(base: Base, name: &str) -> Option<SystemdBox> {
    let systemd = prepared_on(base, name)?;
    systemd.must(&["mkdir", "-p", "/var/log/journal"]);
    Some(systemd)
}

fn install(site: &Site<'_>, more: &[&str]) {
    let server = ["--", "sh", "-c", SERVER];
    site.must(&[&["gatewayctl", "install", "--now"], more, &server].concat());
}

#[test]
fn our_own_install_has_no_findings() {
    no_findings(Base::Machine);
}

/// Installs of every kind, in which doctor finds nothing.
pub fn no_findings(base: Base) {
    let Some(systemd) = ready_on(base, "healthy") else {
        return;
    };
    let app = systemd.add_plain_user("app");
    let machine = Site::of_machine(&systemd);
    for more in [
        &[][..],
        &["--run-as", &app.name],
        &["--run-as", &app.name, "--socket"],
        &["--sandbox", "strict"],
    ] {
        install(&machine, more);
        healthy(&machine, &format!("system scope {more:?}"));
        machine.must(&["gatewayctl", "uninstall"]);
    }
    let user = Site::of_user(&systemd, systemd.add_user("alice"));
    for more in [
        &[][..],
        &["--socket"],
        &["--instance", "web", "--listen", "127.0.0.1:18790"],
    ] {
        install(&user, more);
        healthy(&user, &format!("user scope {more:?}"));
        let instance: &[&str] = if more.contains(&"web") {
            &["--instance", "web"]
        } else {
            &[]
        };
        user.must(&[&["gatewayctl", "uninstall"], instance].concat());
    }
    let output = machine.run(&["gatewayctl", "doctor"]);
    assert_eq!(
        output.status.code(),
        Some(3),
        "neither installed nor running: {}",
        all_of(&output)
    );
}

#[test]
fn every_finding_of_the_first_half_is_produced_and_what_can_be_mended_is() {
    produced("doctor-a", &CASES[..CASES.len() / 2]);
}

#[test]
fn every_finding_of_the_second_half_is_produced_and_what_can_be_mended_is() {
    produced("doctor-b", &CASES[CASES.len() / 2..]);
}

/// Goes through cases in one box, each taken back before the next. `ONLY=CODE,CODE` tries only
/// those.
fn produced(name: &str, cases: &[Case]) {
    let Some(systemd) = ready(name) else { return };
    let app = systemd.add_plain_user("app");
    let site = Site::of_machine(&systemd);
    install(&site, &["--run-as", &app.name]);
    healthy(&site, "at first");
    let (unit, config) = (systemd.read(UNIT).unwrap(), systemd.read(CONFIG).unwrap());
    let only = std::env::var("ONLY").ok();
    let mut wrong = Vec::new();
    for case in cases.iter().filter(|case| {
        only.as_ref()
            .is_none_or(|only| only.split(',').any(|only| only == case.code))
    }) {
        let before = set_up(&site, case, &unit, &app);
        if let Err(why) = judged(&site, case) {
            wrong.push(format!("{}: {why}", case.code));
        }
        if let (Net(file, _), Some(before)) = (&case.setup, before) {
            net(&systemd, file, &before);
        }
        let drop_in = Path::new(DROP_IN).parent().unwrap().display().to_string();
        systemd.must(&["rm", "-rf", &drop_in]);
        if systemd.read(UNIT).ok().as_ref() != Some(&unit) {
            systemd.write(UNIT, &unit);
        }
        systemd.write(CONFIG, &config);
        systemd.must(&["systemctl", "daemon-reload"]);
        if !case.undo.is_empty() {
            script(&systemd, &app, case.undo);
        }
        // What is left would be found in the next case, and taken for that one's.
        let left = codes(&doctor(&site, NAMED).0);
        if left.iter().any(|code| code == case.code) {
            wrong.push(format!("{}: it is not taken back: {left:?}", case.code));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), site.journal());
    // What the cases left changed is not applied to the process that they share.
    systemd.sh(RESTART);
    site.must(&["rm", "-rf", &format!("{STATE}/bundles")]);
    healthy(&site, "in the end");
}

fn script(systemd: &SystemdBox, app: &BoxUser, text: &str) {
    systemd.sh(&format!("APP={}; {text}", app.name));
}

fn net(systemd: &SystemdBox, file: &str, value: &str) {
    systemd.in_netns(|| std::fs::write(Path::new("/proc/sys").join(file), value).unwrap());
}

/// Makes it go wrong. What a file of the kernel held before.
fn set_up(site: &Site<'_>, case: &Case, unit: &str, app: &BoxUser) -> Option<String> {
    match case.setup {
        Drop(lines) => {
            let text = if lines.starts_with('[') {
                lines.to_owned()
            } else {
                format!("[Service]\n{lines}\n")
            };
            site.systemd.write(DROP_IN, &text);
            site.must(&["systemctl", "daemon-reload"]);
        }
        Setup::Written(from, to) => {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("unit");
            std::fs::write(&file, unit).unwrap();
            let Written::ByUs(body) = Written::at(&file).unwrap() else {
                panic!("{unit}")
            };
            assert!(body.contains(from));
            site.systemd.write(UNIT, &sign(&body.replace(from, to)));
            site.must(&["systemctl", "daemon-reload"]);
        }
        Config(script) => drop(site.must(&["sed", "-i", script, CONFIG])),
        Script(text) => script(site.systemd, app, text),
        Net(file, value) => {
            let before = site
                .systemd
                .in_netns(|| std::fs::read_to_string(Path::new("/proc/sys").join(file)).unwrap());
            net(site.systemd, file, value);
            return Some(before);
        }
    }
    None
}

/// Whether doctor finds it, says all that it should, and mends it where it says so.
fn judged(site: &Site<'_>, case: &Case) -> Result<(), String> {
    let (answer, exit) = doctor(site, NAMED);
    let Some(found) = finding(&answer, case.code) else {
        return Err(format!("not found: {:?}", codes(&answer)));
    };
    if case.code != "gateway-silent" && finding(&answer, "gateway-silent").is_some() {
        return Err(format!("it is not silent: {answer:#}"));
    }
    let texts = ["message", "place", "why"].map(|key| found[key].as_str().unwrap_or_default());
    let (kind, text) = (
        found["remedy"]["kind"].as_str().unwrap_or_default(),
        found["remedy"]["text"].as_str().unwrap_or_default(),
    );
    if texts.iter().any(|text| text.is_empty())
        || text.is_empty()
        || (kind == "mend") != case.mended
    {
        return Err(format!("it does not say all: {found:#}"));
    }
    let matters = answer["findings"]
        .as_array()
        .unwrap()
        .iter()
        .any(|finding| finding["level"] != "note");
    if exit != i32::from(matters) {
        return Err(format!("exit {exit}: {answer:#}"));
    }
    if answer.to_string().contains("abcdefghijkl") {
        return Err(format!("a secret is shown: {answer:#}"));
    }
    if !case.mended {
        return Ok(());
    }
    let pid = site.main_pid();
    let (answer, exit) = doctor(site, &["--fix"]);
    let fixed =
        finding(&answer, case.code).ok_or_else(|| format!("--fix forgot it: {answer:#}"))?;
    let unapplied = finding(&answer, "change-not-applied").is_some();
    if fixed["mended"] != true || exit != i32::from(unapplied) {
        return Err(format!("not mended: {answer:#}"));
    }
    if site.main_pid() != pid {
        return Err("it was restarted".to_owned());
    }
    let left = codes(&doctor(site, &[]).0);
    if left.iter().any(|code| code == case.code) {
        Err(format!("it is back: {left:?}"))
    } else {
        Ok(())
    }
}

#[test]
fn every_code_has_a_case_and_a_section_of_the_manual() {
    let page = include_str!("../../man/gatewayctl-doctor.7");
    let known: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix(".SS "))
        .map(|code| code.replace("\\-", "-"))
        .collect();
    let cases = CASES
        .iter()
        .map(|case| case.code)
        .chain(NOT_IN_A_BOX)
        .chain(ELSEWHERE);
    let tried: BTreeSet<String> = cases.map(str::to_owned).collect();
    assert_eq!(tried, known);
}

#[test]
fn a_user_s_service_has_findings_of_its_own() {
    let Some(systemd) = ready("doctor-user") else {
        return;
    };
    let alice = systemd.add_user("alice");
    let site = Site::of_user(&systemd, alice.clone());
    install(&site, &[]);
    let found = |code: &str| {
        let (answer, _) = doctor(&site, &[]);
        assert!(finding(&answer, code).is_some(), "{code}: {answer:#}");
        answer
    };
    site.systemd.write(
        &site.drop_in(),
        "[Unit]\nWants=network-online.target\nAfter=network-online.target\n",
    );
    site.must_systemctl(&["daemon-reload"]);
    let answer = found("unit-network-online");
    assert!(
        finding(&answer, "unit-network-online").unwrap()["place"]
            .as_str()
            .unwrap()
            .ends_with("test.conf:2"),
        "{answer:#}"
    );
    systemd.must(&["rm", &site.drop_in()]);
    site.must_systemctl(&["daemon-reload"]);

    // Both scopes have it.
    systemd.must(&[
        "cp",
        &format!("/home/{}/.config/systemd/user/gateway.service", alice.name),
        UNIT,
    ]);
    found("scope-duplicate");
    let of_root = Site::of_machine(&systemd);
    // For root it is another user's, which may be anything.
    assert!(finding(&doctor(&of_root, &["--system"]).0, "scope-duplicate").is_none());

    // And so is what hers claim to listen to.
    let home = format!("/home/{}/.config", alice.name);
    let second = format!("{home}/systemd/user/gateway@second.service");
    systemd.must(&["cp", UNIT, &second]);
    systemd.write(
        &format!("{home}/gateway/second.toml"),
        "[gateway]\nlisten = [\"127.0.0.1:18789\", \"127.0.0.1:18795\"]\n",
    );
    let answer = doctor(&of_root, &["--system"]).0;
    // What she claims is no finding about root's service, whatever she writes.
    assert!(finding(&answer, "port-shared").is_none(), "{answer:#}");
    systemd.must(&["rm", UNIT]);
    // She may claim what she likes: it stops nobody's install.
    let install = "gatewayctl install --system --dry-run --instance third --listen 127.0.0.1:18795 -- /bin/true";
    let told = of_root.run(&install.split(' ').collect::<Vec<_>>());
    let text = all_of(&told);
    assert!(told.status.success(), "{text}");
    assert!(
        text.contains("127.0.0.1:18795 is claimed by gateway@second.service of the user"),
        "{text}"
    );
    systemd.must(&["rm", &second]);

    // Its manager lives by a session's grace meanwhile: lingering is looked up in its record.
    let record = &format!("/var/lib/systemd/linger/{}", alice.name);
    systemd.must(&["rm", record]);
    found("unit-linger");
    let (answer, exit) = doctor(&site, &["--fix"]);
    assert!(
        finding(&answer, "unit-linger").is_some_and(|found| found["mended"] == true) && exit == 0,
        "{answer:#}"
    );
    assert!(systemd.path(record).exists());
    healthy(&site, "lingering again");

    systemd.must(&["loginctl", "disable-linger", &alice.name]);
    systemd.must(&["systemctl", "stop", &format!("user@{}.service", alice.uid)]);
    let answer = found("manager-unreachable");
    let remedy = finding(&answer, "manager-unreachable").unwrap()["remedy"]["text"]
        .as_str()
        .unwrap();
    assert_eq!(
        remedy,
        format!("sudo loginctl enable-linger {}", alice.name)
    );
}

#[test]
fn a_service_that_ends_again_and_again_is_told_apart() {
    let Some(systemd) = ready("doctor-storm") else {
        return;
    };
    let app = systemd.add_plain_user("app");
    let site = Site::of_machine(&systemd);
    install(&site, &["--run-as", &app.name]);
    let kill = || {
        let pid = site.main_pid();
        site.must(&["kill", "-KILL", &pid.to_string()]);
        crate::support::site::back(&site, pid);
    };
    for _ in 0..5 {
        kill();
    }
    let (answer, exit) = doctor(&site, &[]);
    assert!(
        ["restart-storm", "throttled"]
            .iter()
            .all(|code| finding(&answer, code).is_some())
            && exit == 1,
        "{answer:#}"
    );

    // The same with waits that are over at once leads to safe mode.
    let config = systemd.read(CONFIG).unwrap();
    let throttle = "[recovery.throttle]\nthreshold = 0\nbase = \"1ms\"\nmax = \"1ms\"\n";
    systemd.write(CONFIG, &format!("{throttle}{config}"));
    for _ in 0..3 {
        kill();
    }
    wait::until("safe mode", || {
        finding(&doctor(&site, &[]).0, "safe-mode")
            .is_some()
            .then_some(())
    });

    // Lines are left out by a limit of the service's own, and journald says so with the next one
    // that passes.
    systemd.write(CONFIG, &config);
    site.drop("LogRateLimitIntervalSec=1s\nLogRateLimitBurst=1");
    wait::until("lines that are left out", || {
        site.must(&["systemctl", "restart", "gateway"]);
        finding(&doctor(&site, &[]).0, "log-suppressed").map(drop)
    });

    site.drop(
        "ExecStart=\nExecStart=/bin/false\n[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=2",
    );
    let _ = site.systemctl(&["restart", "gateway"]);
    wait::until("the start limit", || {
        (site.property("gateway.service", "ActiveState") == "failed").then_some(())
    });
    let (answer, exit) = doctor(&site, &[]);
    assert!(
        finding(&answer, "start-limit-hit").is_some() && exit == 1,
        "{answer:#}"
    );
    let (answer, _) = doctor(&site, &["--fix"]);
    assert!(
        finding(&answer, "start-limit-hit").is_some_and(|found| found["mended"] == true),
        "{answer:#}"
    );
    assert_eq!(site.property("gateway.service", "ActiveState"), "inactive");
}

#[test]
fn a_forged_entry_of_journald_is_no_finding() {
    let Some(systemd) = ready("forged") else {
        return;
    };
    let app = systemd.add_plain_user("app");
    let site = Site::of_machine(&systemd);
    install(&site, &["--run-as", &app.name]);
    let forged = "Suppressed 5 messages from gateway.service";
    systemd.sh(&format!(
        "runuser -u {} -- logger -t systemd-journald '{forged}'; journalctl --sync; journalctl -q -t systemd-journald | grep -q '{forged}'",
        app.name
    ));
    healthy(&site, "with a forged entry");
}
