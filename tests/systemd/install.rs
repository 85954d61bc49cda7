//! What `gatewayctl install` writes, keeps, refuses and puts back, seen from outside under a real
//! systemd.

use crate::support::report::Part;
use crate::support::servers;
use crate::support::site::{
    MIRROR, Site, all_of, expect, load_on_front, node, prepared, with_mirror,
};
use crate::support::systemd_box::{BoxUser, SystemdBox};
use crate::support::wait;
use serde_json::Value;

/// New connections a second while addresses change hands.
const RATE: f64 = 80.0;

/// Who comes while addresses change hands: a second of them, where it takes a tenth of that on an
/// idle machine.
const MOST_REFUSED: u64 = 80;

/// Every character that means something to systemd, to a shell or to TOML.
const HOSTILE: [&str; 24] = [
    "",
    " ",
    "a b",
    "  two  blanks  ",
    "tab\there",
    "\"double\"",
    "'single'",
    "\\",
    "back\\slash\\",
    "\\n\\x41\\u0041",
    "%n %i %% %",
    "$HOME ${HOME} $$ $",
    "`id`",
    "$(id)",
    ";",
    "; rm -rf /",
    "# no comment",
    "größe 中文 😀 \u{a0}",
    "a=b=c",
    "--flag",
    "*?[a]{b,c}~",
    "'''\"\"\"",
    "<&>|",
    "{ports} {PORT} {port",
];

fn mirror(systemd: &SystemdBox, port: u16) -> Value {
    serde_json::from_str(&systemd.must(&["curl", "-sSf", &format!("http://127.0.0.1:{port}/")]))
        .unwrap()
}

/// Some hundred values that no person would write; always the same ones.
fn generated() -> Vec<String> {
    const ALPHABET: [&str; 24] = [
        " ", "\t", "\"", "'", "\\", "%", "$", "`", ";", "#", "{", "}", "=", "n", "x41", "u00e9",
        "ü", "中", "😀", "(", "~", "!", "a", "0",
    ];
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % 1009).unwrap()
    };
    (0..300)
        .map(|_| {
            (0..=next() % 12)
                .map(|_| ALPHABET[next() % ALPHABET.len()])
                .collect()
        })
        .collect()
}

fn arrives(site: &Site<'_>, port: u16) {
    let dir = "/opt/a b \"c\" 'd' %n $HOME ;back\\slash größe 中 #x";
    site.systemd.must(&["mkdir", "-p", dir]);
    let mut install: Vec<String> = [
        "sh",
        "-c",
        "cd \"$1\" && shift && exec \"$@\"",
        "sh",
        dir,
        "gatewayctl",
        "install",
        "--now",
        "--listen",
    ]
    .map(str::to_owned)
    .into();
    install.push(port.to_string());
    let mut variables: Vec<(String, String)> = Vec::new();
    for (number, value) in HOSTILE
        .iter()
        .map(|value| (*value).to_owned())
        .chain(generated())
        .enumerate()
    {
        // By turns in the configuration and in the file of secrets.
        let key = if number % 2 == 0 {
            format!("VALUE_{number}")
        } else {
            format!("API_TOKEN_{number}")
        };
        install.extend(["--set".to_owned(), format!("{key}={value}")]);
        variables.push((key, value));
    }
    install.extend(
        [
            "--",
            "python3",
            MIRROR,
            "{port}",
            "x{port}y",
            "several\nlines\n",
            "bell\u{7}",
        ]
        .map(str::to_owned),
    );
    install.extend(HOSTILE.map(str::to_owned));
    let words: Vec<&str> = install.iter().map(String::as_str).collect();
    let said = site.must(&words);
    assert!(said.contains("is installed and ready"), "{said}");

    let seen = mirror(site.systemd, port);
    assert_eq!(seen["cwd"], dir);
    let argv: Vec<&str> = seen["argv"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    let own_port = seen["env"]["PORT"].as_str().unwrap();
    assert_eq!(
        argv[..3],
        [&format!("x{own_port}y"), "several\nlines\n", "bell\u{7}"]
    );
    assert_eq!(argv[3..], HOSTILE);
    for (key, value) in &variables {
        assert_eq!(seen["env"][key].as_str(), Some(value.as_str()), "{key}");
    }
    // A restart and a reload do not lose them, and the same command again changes nothing.
    site.must(&["gatewayctl", "restart"]);
    let again = mirror(site.systemd, port);
    assert_ne!(again["pid"], seen["pid"]);
    assert_eq!(
        (&again["cwd"], &again["env"]["API_TOKEN_11"]),
        (&seen["cwd"], &seen["env"]["API_TOKEN_11"])
    );
    let said = site.must(&words);
    assert!(said.contains("already installed"), "{said}");
    let unit = site.property("gateway.service", "FragmentPath");
    let analyze: &[&str] = if site.user.is_some() {
        &["systemd-analyze", "--user", "verify"]
    } else {
        &["systemd-analyze", "verify"]
    };
    let verified = site.run(&[analyze, &["--man=no", &unit]].concat());
    assert!(
        verified.status.success() && verified.stderr.is_empty(),
        "{}",
        all_of(&verified)
    );
    site.must(&["gatewayctl", "uninstall"]);
}

#[test]
fn hostile_values_arrive_as_they_were_typed() {
    let Some(systemd) = with_mirror("values") else {
        return;
    };
    let app = systemd.add_user("app");
    let before = systemd.sh("find /etc /run /var/lib /home -name '*gateway*'");
    let site = Site::of_machine(&systemd);
    arrives(&site, 18801);
    arrives(&Site::of_user(&systemd, app), 18802);
    assert_eq!(
        systemd.sh("find /etc /run /var/lib /home -name '*gateway*'"),
        before,
        "uninstall leaves nothing"
    );
}

#[test]
fn what_cannot_come_back_as_it_was_is_refused() {
    let Some(systemd) = with_mirror("unsayable") else {
        return;
    };
    let ctl = |args: &[&str]| {
        systemd.run(
            &[
                &["gatewayctl", "install"],
                args,
                &["--", "python3", MIRROR, "{port}"],
            ]
            .concat(),
        )
    };
    expect(
        &ctl(&["--set", "COLOR=two\nlines"]),
        2,
        &["--set COLOR", "'\\n'", "one line"],
    );
    expect(
        &ctl(&["--set", "API_TOKEN=two\nlines"]),
        2,
        &["--set API_TOKEN", "'\\n'"],
    );
    expect(
        &ctl(&["--set", "API_TOKEN=x{port}"]),
        2,
        &["--set API_TOKEN", "{port}", "$PORT"],
    );
    expect(
        &ctl(&["--set", "no name=x"]),
        2,
        &["no name", "letters, digits and _"],
    );
    expect(&ctl(&["--set", "COLOR"]), 2, &["a name and a value"]);
    for name in ["a b", "a/b", "../x", "%n", "$HOME", "a\nb", ".x", ""] {
        let output = ctl(&["--instance", name]);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{name:?}: {}",
            all_of(&output)
        );
    }
    systemd.write("/srv/a\nb/vars", "X=1\n");
    expect(
        &ctl(&["--env-file", "/srv/a\nb/vars"]),
        2,
        &["control character"],
    );
    let script = "cd '/srv/a\nb' && exec gatewayctl install -- python3 /srv/mirror.py {port}";
    expect(
        &systemd.run(&["sh", "-c", script]),
        2,
        &["control character", "rename"],
    );
    assert_eq!(
        systemd.sh("find /etc /run /var/lib -name '*gateway*'"),
        "",
        "nothing was changed"
    );
}

#[test]
fn secrets_are_kept_where_nobody_reads_them_and_survive() {
    let Some(systemd) = with_mirror("secrets") else {
        return;
    };
    let file = "/etc/gateway/gateway.secrets.env";
    let (canary, url) = ("canary-4711 \"x\" $y", "postgres://u:canary-pw@db/x");
    let install = |more: &[&str]| {
        systemd.run(
            &[
                &["gatewayctl", "install", "--now"],
                more,
                &["--", "python3", MIRROR, "{port}"],
            ]
            .concat(),
        )
    };
    let (token, database) = (format!("API_TOKEN={canary}"), format!("DATABASE_URL={url}"));
    let named = [
        "--set",
        "DB_PASS=canary-pass",
        "--set",
        "SMTP_PWD=canary-pwd",
        "--set",
        "JWT=canary-jwt",
        "--set",
        "SENTRY_DSN=https://canary-dsn@localhost/1",
        "--set",
        "COLOR=blue",
    ];
    let first = install(&[&["--set", &token, "--set", &database][..], &named].concat());
    expect(
        &first,
        0,
        &[
            "writing /etc/gateway/gateway.secrets.env",
            "installed and ready",
        ],
    );
    let holds = |value: &Value| {
        (
            value["env"]["API_TOKEN"].clone(),
            value["env"]["DATABASE_URL"].clone(),
            value["env"]["COLOR"].clone(),
        )
    };
    assert_eq!(
        holds(&mirror(&systemd, 18789)),
        (canary.into(), url.into(), "blue".into())
    );
    assert_eq!(
        systemd.must(&["stat", "-c", "%a %U %G", file]).trim(),
        "600 root root"
    );
    // Nobody but root: neither another user nor the service's own files.
    let someone = systemd.add_plain_user("someone");
    assert!(
        !systemd
            .run_as_user(&someone, &["cat", file])
            .status
            .success()
    );
    let open = systemd.run_as_user(
        &someone,
        &[
            "sh",
            "-c",
            "grep -rs canary /etc/gateway /etc/systemd /run/gateway /run/systemd 2>/dev/null; gatewayctl config show | grep canary",
        ],
    );
    assert_eq!(all_of(&open).lines().skip(1).collect::<String>(), "");
    assert!(
        !systemd
            .read("/etc/gateway/gateway.toml")
            .unwrap()
            .contains("COLOR"),
        "which of the values are secrets is not guessed"
    );

    // Without --set the variables stay, even when the command changes; with it one changes, and the
    // service has it at once.
    let other = install(&["--overwrite", "--set", "COLOR=red", "--ready", "/"]);
    expect(&other, 0, &["updated and ready"]);
    assert_eq!(
        holds(&mirror(&systemd, 18789)),
        (canary.into(), url.into(), "red".into())
    );
    let changed = [
        "--set",
        "API_TOKEN=canary-short",
        "--set",
        "COLOR=red",
        "--ready",
        "/",
    ];
    for flag in ["--diff", "--dry-run"] {
        let shown = install(&[&[flag][..], &changed].concat());
        expect(&shown, 0, &["API_TOKEN=*** (another value)"]);
        assert!(!all_of(&shown).contains("canary"), "{}", all_of(&shown));
    }
    let pid = mirror(&systemd, 18789)["pid"].clone();
    expect(
        &install(&changed),
        0,
        &["restarting gateway.service", "updated and ready"],
    );
    let now = mirror(&systemd, 18789);
    assert_ne!(now["pid"], pid);
    assert_eq!(now["env"]["API_TOKEN"], "canary-short");
    // Nothing was ever printed or logged.
    for text in [
        all_of(&first),
        all_of(&other),
        systemd.sh("journalctl --no-pager -o cat -u gateway.service"),
    ] {
        assert!(!text.contains("canary"), "{text}");
    }

    // Edited by hand: kept as it is, never written over unasked, and still there for the service.
    systemd.sh(&format!("echo 'MORE_SECRET=canary-more' >> {file}"));
    expect(
        &install(&["--set", "COLOR=red", "--ready", "/"]),
        0,
        &["already installed"],
    );
    let refused = install(&[
        "--set",
        "API_TOKEN=canary-next",
        "--set",
        "COLOR=red",
        "--ready",
        "/",
    ]);
    expect(
        &refused,
        5,
        &[
            "gateway.secrets.env was changed since",
            "API_TOKEN=***",
            "--overwrite",
        ],
    );
    assert!(!all_of(&refused).contains("canary"), "{}", all_of(&refused));
    expect(
        &install(&[
            "--overwrite",
            "--set",
            "API_TOKEN=canary-next",
            "--set",
            "COLOR=red",
            "--ready",
            "/",
        ]),
        0,
        &["is kept in", "updated"],
    );
    let now = mirror(&systemd, 18789);
    assert_eq!(
        (&now["env"]["API_TOKEN"], &now["env"]["MORE_SECRET"]),
        (&"canary-next".into(), &"canary-more".into())
    );
    assert_eq!(
        systemd
            .must(&["stat", "-c", "%a", &format!("{file}.edited")])
            .trim(),
        "600"
    );
    // Set to nothing, the variable is empty and its secret gone.
    expect(
        &install(&["--set", "API_TOKEN=", "--set", "COLOR=red", "--ready", "/"]),
        0,
        &["updated and ready"],
    );
    assert_eq!(mirror(&systemd, 18789)["env"]["API_TOKEN"], "");
    assert!(!systemd.read(file).unwrap().contains("API_TOKEN"));

    let said = systemd.must(&["gatewayctl", "uninstall"]);
    assert!(said.contains("gateway.secrets.env.edited stays"), "{said}");
    systemd.must(&["rm", &format!("{file}.edited")]);
    assert_eq!(
        systemd.sh("find /etc /run /var/lib -name '*gateway*' -not -name gateway"),
        ""
    );
}

#[test]
fn another_command_is_shown_and_applied_only_when_asked() {
    let Some(systemd) = with_mirror("command") else {
        return;
    };
    let install = |more: &[&str], last: &str| {
        systemd.run(
            &[
                &["gatewayctl", "install", "--now"],
                more,
                &["--", "python3", MIRROR, "{port}", last],
            ]
            .concat(),
        )
    };
    expect(&install(&[], "one"), 0, &["installed and ready"]);
    let pid = mirror(&systemd, 18789)["pid"].clone();
    for flags in [&[][..], &["--dry-run"], &["--set", "COLOR=blue"]] {
        expect(
            &install(flags, "two"),
            5,
            &[
                "another command; nothing was changed",
                "-command = ",
                "+command = ",
                "\"two\"",
                "--overwrite",
                "--instance NAME",
            ],
        );
    }
    expect(&install(&["--diff"], "two"), 0, &["+command = "]);
    let elsewhere = systemd.run(&[
        "sh",
        "-c",
        "cd /usr && exec gatewayctl install --now -- python3 /srv/mirror.py {port} one",
    ]);
    expect(&elsewhere, 5, &["another command", "+cwd = \"/usr\""]);
    assert_eq!(mirror(&systemd, 18789)["pid"], pid, "it runs as before");
    let json = install(&["--json"], "two");
    let object: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&object["ok"], &object["exit"]),
        (&false.into(), &5.into()),
        "{object}"
    );
    expect(&install(&["--overwrite"], "two"), 0, &["updated and ready"]);
    assert_eq!(mirror(&systemd, 18789)["argv"][0], "two");
    // The same command with other flags is no other command.
    expect(
        &install(&["--set", "COLOR=blue"], "two"),
        0,
        &["updated and ready"],
    );
}

#[test]
fn one_address_has_one_owner() {
    let Some(systemd) = with_mirror("owners") else {
        return;
    };
    let (app, other) = (systemd.add_user("app"), systemd.add_user("other"));
    let command = ["--", "python3", MIRROR, "{port}"];
    let system =
        |more: &[&str]| systemd.run(&[&["gatewayctl", "install"], more, &command].concat());
    let user = |who: &BoxUser, more: &[&str]| {
        systemd.run_as_user(who, &[&["gatewayctl", "install"], more, &command].concat())
    };

    // Two scopes: a system service with the address of a user's own, and the other way round;
    // running or not.
    expect(&user(&app, &["--user"]), 0, &["is installed"]);
    // What a user claims stops nothing of root's, who is told.
    expect(
        &system(&["--dry-run"]),
        0,
        &[
            "127.0.0.1:18789 is claimed by gateway.service",
            &format!("/home/{}/", app.name),
            "gateway.toml",
        ],
    );
    expect(&system(&["--listen", "18790"]), 0, &["is installed"]);
    let said = user(&other, &["--user", "--listen", "18790"]);
    expect(
        &said,
        5,
        &[
            "127.0.0.1:18790 belongs to gateway.service (system scope), by /etc/gateway/gateway.toml",
            "gatewayctl uninstall --system",
        ],
    );
    let said = user(&other, &["--user", "--listen", "18791"]);
    expect(
        &said,
        0,
        &[
            "gateway.service (system scope) has the same name",
            "--user or --system",
        ],
    );
    // Two instances of one scope.
    let web = ["--instance", "web", "--listen", "18790"];
    expect(
        &system(&web),
        5,
        &[
            "127.0.0.1:18790 belongs to gateway.service (system scope)",
            "another address for web",
        ],
    );
    expect(
        &system(&["--instance", "web", "--listen", "18792"]),
        0,
        &["gateway@web.service is installed"],
    );
    expect(
        &system(&["--instance", "web", "--listen", "18790"]),
        5,
        &["belongs to"],
    );
    expect(
        &system(&["--instance", "web", "--listen", "18793"]),
        0,
        &["is updated"],
    );

    // A service of a user that runs is named with its scope, whoever meets it and how.
    expect(
        &systemd.run_as_user(&app, &["gatewayctl", "start", "--user"]),
        0,
        &["started"],
    );
    let runs = format!("uid {}) of gateway.service (user scope)", app.uid);
    expect(
        &system(&["--instance", "fourth", "--now", "--listen", "18789"]),
        5,
        &[
            "127.0.0.1:18789 is taken by gateway (pid ",
            &runs,
            &format!(
                "gatewayctl --user stop --instance gateway   (as uid {}; ",
                app.uid
            ),
        ],
    );
    let second = [
        "gateway",
        "run",
        "--instance",
        "fifth",
        "--",
        "python3",
        MIRROR,
        "{port}",
    ];
    expect(
        &systemd.run(&second),
        1,
        &[
            &runs,
            "`gatewayctl list --user` names it",
            "another address with --listen",
        ],
    );
    systemd.run_as_user(&app, &["gatewayctl", "stop", "--user"]);

    // A gateway that somebody started by hand, and a stranger.
    let by_hand = [
        "systemd-run",
        "--scope",
        "--unit=session-9",
        "--quiet",
        "gateway",
        "run",
        "--instance",
        "hand",
        "--listen",
        "18795",
    ];
    let mut hand = systemd.command(&by_hand).spawn().unwrap();
    wait::until("the gateway listens", || {
        systemd
            .run(&["curl", "-sf", "http://127.0.0.1:18795/healthz"])
            .status
            .success()
            .then_some(())
    });
    let third = ["--instance", "third", "--now", "--listen", "18795"];
    expect(
        &system(&third),
        5,
        &[
            "127.0.0.1:18795 is taken by a gateway that was started by hand, gateway (pid ",
            "gatewayctl stop --instance hand",
        ],
    );
    expect(
        &system(&["--instance", "web", "--now", "--listen", "18795"]),
        5,
        &["127.0.0.1:18795 is taken by a gateway"],
    );
    systemd.must(&["gatewayctl", "stop", "--instance", "hand"]);
    assert!(hand.wait().unwrap().success());
    expect(
        &system(&["--instance", "third", "--now", "--listen", "18795"]),
        0,
        &["installed and ready"],
    );
    let moved = system(&["--instance", "web", "--now", "--listen", "18795"]);
    expect(&moved, 5, &["belongs to gateway@third.service"]);
}

#[test]
fn addresses_change_hands_only_with_consent() {
    let Some(systemd) = prepared("consent").filter(|_| servers::have("node")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let install =
        |flags: &[&str]| systemd.run(&[&["gatewayctl", "install"], flags, &node()].concat());
    expect(&install(&["--now"]), 0, &["installed and ready"]);
    let pid = site.main_pid();
    expect(
        &install(&["--now", "--socket"]),
        2,
        &[
            "must stop for a moment",
            "to its socket unit",
            "nobody could be asked",
            "--yes",
        ],
    );
    expect(
        &install(&["--socket"]),
        2,
        &["must stop for a moment", "--now --yes", "gatewayctl stop"],
    );
    expect(
        &install(&["--now", "--socket", "--dry-run"]),
        0,
        &["stop gateway.service for a moment"],
    );
    // Asked on a terminal: no is no, and yes is yes.
    let asked = |answer: &str, flags: &str| {
        let command = format!(
            "gatewayctl install --now {flags} -- node {} {{port}}",
            crate::support::site::NODE_APP
        );
        systemd.run(&[
            "sh",
            "-c",
            &format!("printf '{answer}\\n' | script -qefc '{command}' /dev/null"),
        ])
    };
    expect(
        &asked("n", "--socket"),
        5,
        &["Go on? [y/N]", "nothing was changed"],
    );
    assert_eq!(site.main_pid(), pid);
    assert!(!systemd.path("/etc/systemd/system/gateway.socket").exists());

    for (flags, socket) in [
        (&["--now", "--socket", "--yes"][..], "active"),
        (&["--now", "--unset", "socket", "--yes"], "inactive"),
    ] {
        let load = load_on_front(&systemd, RATE);
        load.flows(Part::New, 20);
        let before = site.main_pid();
        expect(&install(flags), 0, &["updated and ready"]);
        assert_ne!(
            site.main_pid(),
            before,
            "{flags:?}: the old process went on\n{}",
            site.journal()
        );
        load.flows(Part::New, 20);
        let report = load.stop();
        // One stop: who comes meanwhile is refused, or reset in the queue of the listener that is
        // closed; nobody gets half an answer, and it is short.
        let (refused, reset) = (report.failures_of("refused"), report.failures_of("reset"));
        println!("{flags:?}: {report}");
        assert_eq!(
            report.failures(),
            refused + reset,
            "{flags:?}: {report}\n{}",
            site.journal()
        );
        assert!(
            refused + reset < MOST_REFUSED,
            "{flags:?}: {report}\n{}",
            site.journal()
        );
        assert_eq!(site.property("gateway.socket", "ActiveState"), socket);
        let at_boot = site.systemctl(&["is-enabled", "gateway.socket"]);
        assert_eq!(
            at_boot.status.success(),
            socket == "active",
            "{flags:?}: {}",
            all_of(&at_boot)
        );
    }
    assert!(asked("y", "--socket").status.success());
    assert_eq!(site.property("gateway.socket", "ActiveState"), "active");
    // Its own socket unit, still up, is nobody else.
    systemd.must(&["systemctl", "stop", "gateway.service"]);
    assert_eq!(site.property("gateway.socket", "ActiveState"), "active");
    expect(&install(&["--now", "--socket"]), 0, &["and ready"]);
    // A service that is down need not be asked about.
    systemd.must(&["gatewayctl", "stop"]);
    expect(
        &install(&["--now", "--unset", "socket"]),
        0,
        &["updated and ready"],
    );
    systemd.must(&["gatewayctl", "uninstall"]);
    assert_eq!(systemd.sh("find /etc /run /var/lib -name '*gateway*'"), "");
}

#[test]
fn uninstall_puts_back_what_install_wrote_over_and_drop_ins_stay() {
    let Some(systemd) = with_mirror("restores") else {
        return;
    };
    let app = systemd.add_plain_user("app");
    let (unit, config) = (
        "/etc/systemd/system/gateway.service",
        "/etc/gateway/gateway.toml",
    );
    let foreign = "[Unit]\nDescription=mine\n[Service]\nExecStart=/usr/local/bin/gateway run --listen 18799\n[Install]\nWantedBy=multi-user.target\n";
    systemd.write(unit, foreign);
    systemd.write(config, "# my own words\n[gateway]\nlisten = [\"18789\"]\n");
    systemd.must(&["chown", &format!("root:{}", app.name), config]);
    systemd.must(&["chmod", "640", config]);
    systemd.write(
        "/etc/systemd/system/gateway.service.d/mine.conf",
        "[Service]\nEnvironment=FROM_DROP_IN=yes\n",
    );
    let all = || {
        systemd.sh(&format!(
            "stat -c '%n %a %U %G' {unit}* {config}*; cat {unit} {config}"
        ))
    };
    let before = all();
    let install = |flags: &[&str]| {
        systemd.run(
            &[
                &["gatewayctl", "install", "--now"],
                flags,
                &["--", "python3", MIRROR, "{port}"],
            ]
            .concat(),
        )
    };

    expect(
        &install(&[]),
        5,
        &[
            "was not written by gatewayctl",
            "--overwrite",
            "systemctl edit gateway.service",
            "drop-in",
        ],
    );
    assert_eq!(all(), before);
    // A failed install puts everything back at once: bytes, bits and owner.
    let failing = [
        "gatewayctl",
        "install",
        "--now",
        "--overwrite",
        "--",
        "sh",
        "-c",
        "exit 3",
    ];
    expect(&systemd.run(&failing), 1, &["does not start as a service"]);
    assert_eq!(all(), before);

    let said = install(&["--overwrite"]);
    expect(
        &said,
        0,
        &[
            "and ready",
            "gateway.service said before is kept in",
            "gateway.toml.before-gatewayctl",
        ],
    );
    assert_eq!(mirror(&systemd, 18789)["env"]["FROM_DROP_IN"], "yes");
    assert_eq!(
        systemd
            .must(&[
                "stat",
                "-c",
                "%a %U %G",
                "/etc/gateway/gateway.toml.before-gatewayctl"
            ])
            .trim(),
        format!("640 root {}", app.name)
    );
    // Over a reinstall the drop-in holds.
    expect(
        &install(&["--set", "COLOR=blue"]),
        0,
        &["updated and ready"],
    );
    assert_eq!(mirror(&systemd, 18789)["env"]["FROM_DROP_IN"], "yes");
    // Edited since: refused, and with --overwrite kept.
    systemd.sh(&format!("echo '# edited' >> {unit}"));
    expect(
        &install(&["--sandbox", "off"]),
        5,
        &["was changed since", "-# edited", "systemctl edit"],
    );
    expect(
        &install(&["--sandbox", "off", "--overwrite"]),
        0,
        &["gateway.service.edited"],
    );
    expect(
        &systemd.run(&["gatewayctl", "uninstall", "--dry-run"]),
        0,
        &[
            "would:",
            "put back what /etc/systemd/system/gateway.service said",
        ],
    );

    let said = systemd.run(&["gatewayctl", "uninstall"]);
    expect(
        &said,
        0,
        &[
            "is again what it was before install",
            "enable --now gateway.service",
            "gateway.service.d is kept",
            "gateway.service.edited stays",
        ],
    );
    systemd.must(&["rm", &format!("{unit}.edited")]);
    assert_eq!(all(), before);
}
