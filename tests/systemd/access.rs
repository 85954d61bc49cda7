//! Who a service runs as, and what that user cannot do, as install says before it writes anything.

use crate::support::servers;
use crate::support::site::{all_of, expect, prepared};
use crate::support::systemd_box::SystemdBox;

/// A server that writes to its directory at each request, and says what came of it.
const WRITER: &str = r#"
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            open("data.db", "a").write("x")
            said = "written"
        except OSError as error:
            said = error.strerror
        body = f"{said} {os.getuid()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

fn with_site(name: &str, site: &str) -> Option<SystemdBox> {
    let systemd = prepared(name).filter(|_| servers::have("python3"))?;
    systemd.write(&format!("{site}/server.py"), WRITER);
    Some(systemd)
}

fn install_in(systemd: &SystemdBox, dir: &str, flags: &str) -> std::process::Output {
    let script =
        format!("cd {dir} && exec gatewayctl install --now {flags} -- python3 server.py {{port}}");
    systemd.run(&["sh", "-c", &script])
}

fn answer(systemd: &SystemdBox) -> String {
    systemd.must(&["curl", "-sSf", "http://127.0.0.1:18789/"])
}

fn nothing_is_there(systemd: &SystemdBox) {
    assert_eq!(systemd.sh("find /etc /run /var/lib -name '*gateway*'"), "");
}

#[test]
fn a_server_in_roots_home_is_refused_by_component_with_commands_that_work() {
    let Some(systemd) = with_site("inroot", "/root/site") else {
        return;
    };
    systemd.must(&["chmod", "700", "/root"]);
    let refused = install_in(&systemd, "/root/site", "");
    expect(
        &refused,
        1,
        &[
            "the service's temporary user cannot enter /root (mode 700, root:root), on the way to /root/site: the working directory of the server main",
            "nothing was changed",
            "the same command with --run-as root",
            "mv /root/site /srv/site",
        ],
    );
    nothing_is_there(&systemd);
    expect(
        &install_in(&systemd, "/root/site", "--run-as root"),
        0,
        &["installed and ready"],
    );
    assert_eq!(answer(&systemd), "written 0");
    systemd.must(&["gatewayctl", "uninstall"]);
    systemd.must(&["mv", "/root/site", "/srv/site"]);
    expect(
        &install_in(&systemd, "/srv/site", ""),
        0,
        &["installed and ready", "cannot write to /srv/site"],
    );
    let said = answer(&systemd);
    assert!(said.starts_with("Permission denied "), "{said}");
    let doctor = systemd.run(&["gatewayctl", "doctor"]);
    expect(
        &doctor,
        0,
        &["cwd-read-only", "cannot write to /srv/site", "--writable"],
    );
    systemd.must(&["gatewayctl", "uninstall"]);
}

#[test]
fn a_service_runs_as_the_owner_of_its_directory_and_writes_there() {
    let Some(systemd) = prepared("owner").filter(|_| servers::have("python3")) else {
        return;
    };
    let ada = systemd.add_plain_user("ada");
    let site = format!("/home/{}/site", ada.name);
    systemd.write(&format!("{site}/server.py"), WRITER);
    systemd.sh(&format!(
        "chown -R {0}: {site}; chmod 750 /home/{0}",
        ada.name
    ));
    expect(
        &install_in(&systemd, &site, ""),
        0,
        &["installed and ready"],
    );
    assert_eq!(answer(&systemd), format!("written {}", ada.uid));
    let doctor = systemd.run(&["gatewayctl", "doctor"]);
    assert!(
        !all_of(&doctor).contains("cwd-read-only"),
        "{}",
        all_of(&doctor)
    );
    systemd.must(&["gatewayctl", "uninstall"]);

    // Another user is named with the way to it, and the one who may.
    let bob = systemd.add_plain_user("bob");
    expect(
        &install_in(&systemd, &site, &format!("--run-as {}", bob.name)),
        1,
        &[
            &format!("{} cannot enter /home/{} (mode 750", bob.name, ada.name),
            &format!("the same command with --run-as {}", ada.name),
        ],
    );
    // A directory of the application's own, where the sandbox lets nobody write.
    systemd.must(&["install", "-d", "-o", &ada.name, "/srv/data"]);
    let strict = format!("--run-as {} --sandbox strict", ada.name);
    expect(
        &install_in(&systemd, &site, &format!("{strict} --writable /srv/gone")),
        2,
        &[
            "--writable /srv/gone",
            &format!("install -d -o {}", ada.name),
        ],
    );
    expect(
        &install_in(
            &systemd,
            &site,
            &format!("--run-as {} --writable /srv", bob.name),
        ),
        1,
        &[&format!("{} cannot write to /srv (mode", bob.name)],
    );
    nothing_is_there(&systemd);
    expect(
        &install_in(&systemd, &site, &format!("{strict} --writable .")),
        0,
        &["installed and ready"],
    );
    assert_eq!(answer(&systemd), format!("written {}", ada.uid));
    // It stays until it is taken back.
    expect(
        &install_in(&systemd, &site, "--set COLOR=blue"),
        0,
        &["as before: --run-as, --writable, --sandbox"],
    );
    assert_eq!(answer(&systemd), format!("written {}", ada.uid));
    expect(
        &install_in(&systemd, &site, "--unset writable"),
        0,
        &["cannot write to"],
    );
    assert!(
        answer(&systemd).starts_with("Read-only"),
        "{}",
        answer(&systemd)
    );
    systemd.must(&["gatewayctl", "uninstall"]);
}

#[test]
fn a_command_of_a_version_manager_finds_the_programs_beside_it() {
    let Some(systemd) = prepared("nvm").filter(|_| servers::have("python3")) else {
        return;
    };
    let ada = systemd.add_plain_user("ada");
    // As nvm has it: a script whose interpreter is found by PATH, in a directory that sudo's PATH lacks.
    let bin = format!("/home/{}/.nvm/versions/node/v20/bin", ada.name);
    systemd.write(&format!("{bin}/npm"), "#!/usr/bin/env node20\nimport http.server, sys\nhttp.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')\n");
    systemd.sh(&format!(
        "ln -s /usr/bin/python3 {bin}/node20; chmod 755 {bin}/npm; chown -R {0}: /home/{0}",
        ada.name
    ));
    let install = |path: &str, command: &str| {
        let script = format!(
            "cd /home/{0} && exec env {path} SUDO_USER={0} gatewayctl install --now -- {command} {{port}}",
            ada.name
        );
        systemd.run(&["sh", "-c", &script])
    };
    expect(
        &install("", "npm-of-nobody"),
        1,
        &["sudo env \"PATH=$PATH\" gatewayctl install"],
    );
    expect(
        &install("", &format!("{bin}/npm")),
        0,
        &["installed and ready"],
    );
    systemd.must(&["gatewayctl", "uninstall"]);
    let path = format!("PATH={bin}:/usr/local/bin:/usr/bin:/bin");
    expect(&install(&path, "npm"), 0, &["installed and ready"]);
    systemd.must(&["gatewayctl", "uninstall"]);
}
