//! The units that install renders, judged by a real systemd.

use crate::support::servers;
use crate::support::systemd_box::SystemdBox;
use gateway::internals::Sandbox;
use gateway::internals::Scope;
use gateway::internals::{RunAs, UnitPlan, UnitSubject, default_socket};

fn prepared(name: &str) -> Option<SystemdBox> {
    let systemd = SystemdBox::boot_or_skip(name)?;
    systemd.install_programs();
    Some(systemd)
}

fn verify(systemd: &SystemdBox, files: &[&str]) {
    clean(
        &systemd.run(&[&["systemd-analyze", "verify", "--man=no"], files].concat()),
        files,
    );
}

fn clean(output: &std::process::Output, files: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{files:?}: {said}"
    );
}

#[test]
fn every_unit_is_clean_and_shut_in_as_promised() {
    let Some(systemd) = prepared("units") else {
        return;
    };
    let app = systemd.add_user("app");
    let local = UnitPlan {
        bin_dir: "/usr/local/bin".into(),
        ..UnitPlan::default()
    };
    let (dynamic, static_user, root) = (
        RunAs::Dynamic,
        RunAs::User(app.name.clone()),
        RunAs::User("root".into()),
    );
    for (sandbox, run_as, low_port, most) in [
        (Sandbox::App, &dynamic, false, 2.5),
        (Sandbox::App, &static_user, false, 2.5),
        // Who asks for root gets root, without its capabilities.
        (Sandbox::App, &root, false, 2.6),
        (Sandbox::App, &static_user, true, 2.5),
        (Sandbox::Strict, &dynamic, false, 2.0),
        (Sandbox::Strict, &static_user, false, 2.0),
        (Sandbox::Off, &static_user, true, 10.0),
    ] {
        let plan = UnitPlan {
            sandbox,
            run_as: run_as.clone(),
            low_port,
            ..local.clone()
        };
        let file = "/etc/systemd/system/gateway.service";
        systemd.write(file, &plan.service().unwrap());
        verify(&systemd, &[file]);
        let score = systemd.exposure(&["--offline=true", file]);
        assert!(
            score <= most,
            "{sandbox} as {run_as:?}, low port {low_port}: {score}"
        );
    }

    let socket = UnitPlan {
        sockets: default_socket().sockets,
        ..local.clone()
    };
    systemd.write(
        "/etc/systemd/system/gateway.service",
        &socket.service().unwrap(),
    );
    systemd.write(
        "/etc/systemd/system/gateway.socket",
        &socket.socket().unwrap(),
    );
    verify(
        &systemd,
        &[
            "/etc/systemd/system/gateway.service",
            "/etc/systemd/system/gateway.socket",
        ],
    );

    let template = UnitPlan {
        subject: UnitSubject::Template,
        ..local.clone()
    };
    systemd.write(
        "/etc/systemd/system/gateway@.service",
        &template.service().unwrap(),
    );
    verify(&systemd, &["/etc/systemd/system/gateway@web-1.service"]);

    for sandbox in [Sandbox::App, Sandbox::Strict, Sandbox::Off] {
        let plan = UnitPlan {
            scope: Scope::User,
            sandbox,
            ..local.clone()
        };
        systemd.write(
            "/etc/systemd/user/gateway.service",
            &plan.service().unwrap(),
        );
        let file = "/etc/systemd/user/gateway.service";
        clean(
            &systemd.run_as_user(
                &app,
                &["systemd-analyze", "--user", "verify", "--man=no", file],
            ),
            &[file],
        );
    }
    let shipped = systemd
        .sh("journalctl --no-pager -o cat | grep -i 'unknown key\\|failed to parse' || true");
    assert_eq!(shipped, "");
}

#[test]
fn hostile_directories_users_and_ports_are_installed_too() {
    let Some(systemd) = prepared("hostile").filter(|_| servers::have("python3")) else {
        return;
    };
    let app = systemd.add_plain_user("app");
    let dir = "/opt/my $HOME 100%i größer";
    systemd.must(&["mkdir", "-p", dir]);
    systemd.must(&[
        "cp",
        "/usr/local/bin/gateway",
        "/usr/local/bin/gatewayctl",
        dir,
    ]);
    systemd.must(&["rm", "/usr/local/bin/gateway", "/usr/local/bin/gatewayctl"]);
    let ctl = format!("{dir}/gatewayctl");
    let environment = format!("{dir}/vari ables");
    systemd.write(&environment, "GATEWAY_RESTART_DRAIN=7s\n");

    // The caller of sudo is the service's user, and a port below 1024 needs no root.
    let server = "import http.server, os, sys\n\
        class Handler(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        self.send_response(200); self.end_headers()\n        \
        self.wfile.write(f'{os.getuid()} {os.getcwd()} {sys.argv[2]} {os.environ[\"COLOR\"]}'.encode())\n\
        http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()\n";
    systemd.write(&format!("{dir}/server.py"), server);
    let argument = "a b\"c\\d$HOME%i'e";
    let install = format!("cd '{dir}' && exec env SUDO_USER={} \"$@\"", app.name);
    let said = systemd.must(&[
        "sh",
        "-c",
        &install,
        "sh",
        &ctl,
        "install",
        "--now",
        "--listen",
        "80",
        "--env-file",
        "vari ables",
        "--set",
        "COLOR=blue $x %i",
        "--",
        "python3",
        "server.py",
        "{port}",
        argument,
    ]);
    assert!(
        said.contains("installed and ready on 127.0.0.1:80"),
        "{said}"
    );
    let body = systemd.must(&["curl", "-sSf", "http://127.0.0.1/"]);
    assert_eq!(body, format!("{} {dir} {argument} blue $x %i", app.uid));
    systemd.must(&["systemctl", "reload", "gateway"]);
    assert_eq!(
        systemd
            .must(&["stat", "-c", "%a %U %G", "/etc/gateway/gateway.toml"])
            .trim(),
        format!("640 root {}", app.name)
    );
    assert_eq!(
        systemd
            .must(&["systemctl", "show", "--value", "-p", "User", "gateway"])
            .trim(),
        app.name
    );
    systemd.must(&[&ctl, "uninstall"]);
    assert_eq!(systemd.sh("find /etc /run /var/lib -name '*gateway*'"), "");
}
