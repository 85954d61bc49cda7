//! The service's user answers at the control socket in the gateway's place, or has another program in
//! the place of the gateway's, and root's gatewayctl runs nothing of it as root.

use std::fs;

use crate::support::site::{Site, all_of, node, prepared};
use crate::support::{servers, wait};

const REFUSED: i32 = 5;

/// Takes the control socket and answers as the gateway did, but names a process of its own, whose
/// arguments ask for a start of the commands in a configuration of its own.
const IMPOSTOR: &str = r#"
import shutil, subprocess
home = os.getcwd()
path = "/run/gateway/gateway/control.sock"
real = socket.socket(socket.AF_UNIX)
real.connect(path)
real.sendall(b'{"type":"req","id":"1","method":"status","params":null}\n')
status = json.loads(real.makefile().readline())["payload"]
program = home + "/gateway"
shutil.copy(os.path.realpath("/proc/self/exe"), program)
os.chmod(program, 0o755)
with open("run", "w") as script:
    script.write("import time\ntime.sleep(1000)\n")
with open("evil.toml", "w") as config:
    config.write('[sidecar.evil]\ncommand = ["sh", "-c", "id -u > /tmp/ran-by-$(id -u)"]\n')
named = subprocess.Popen([program, "run", "--start", "--config", home + "/evil.toml"])
status.update(pid=named.pid, program=program, config=home + "/evil.toml", stateDir=home)
os.rename(path, path + ".old")
answer(path, status, listening=lambda: open("/tmp/taken", "w").close())
"#;

/// A program that notes who has its configuration checked.
const NOTING: &str =
    "#!/bin/sh\n[ \"$1\" = check ] && id > /tmp/checked-by\nexec /usr/local/bin/gateway \"$@\"\n";

#[test]
fn a_sidecar_in_the_place_of_its_gateway_gets_nothing_from_roots_update() {
    let Some(systemd) = prepared("impostor").filter(|_| servers::have("python3")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let app = systemd.add_plain_user("app");
    site.install(&["--run-as", &app.name]);
    let before = fs::read(systemd.path("/usr/local/bin/gateway")).unwrap();

    // A new program, where only root can reach it, is tried as the user of the service.
    systemd.write("/root/next", NOTING);
    systemd.sh("chmod 755 /root/next; chmod 700 /root");
    let output = site.run(&["gatewayctl", "update", "--check", "/root/next"]);
    assert!(output.status.success(), "{}", all_of(&output));
    let who = systemd.read("/tmp/checked-by").unwrap();
    assert!(who.starts_with(&format!("uid={}(", app.uid)), "{who}");
    assert!(!who.contains("(root)"), "{who}");

    systemd.write("/srv/impostor.py", &[servers::IMPOSTOR, IMPOSTOR].concat());
    let script = "cd $(mktemp -d) && exec python3 /srv/impostor.py";
    let as_app = [
        "setpriv",
        "--reuid",
        &app.name,
        "--regid",
        &app.name,
        "--init-groups",
    ];
    let mut impostor = systemd
        .command(&[&as_app[..], &["sh", "-c", script]].concat())
        .spawn()
        .unwrap();
    wait::until("the socket is taken", || systemd.read("/tmp/taken").ok());
    systemd.sh("rm /tmp/checked-by");
    for args in [
        &["update", "--check", "/root/next"][..],
        &["update", "/root/next"],
    ] {
        let output = site.run(&[&["gatewayctl"], args].concat());
        let said = all_of(&output);
        assert_eq!(output.status.code(), Some(REFUSED), "{said}");
        assert!(said.contains("gateway.service runs pid"), "{said}");
    }
    site.run(&["gatewayctl", "restart"]);
    site.run(&["gatewayctl", "doctor", "--fix"]);
    impostor.kill().unwrap();
    impostor.wait().unwrap();
    assert!(
        systemd.read("/tmp/checked-by").is_err(),
        "nothing was tried"
    );
    assert!(
        systemd.read("/tmp/ran-by-0").is_err(),
        "nothing ran as root"
    );
    let after = fs::read(systemd.path("/usr/local/bin/gateway")).unwrap();
    assert!(before == after, "the program is as it was");
}

/// Notes who runs it, what it was told, and whether it has a terminal.
const REPLACED: &str = "#!/bin/sh
id -u >> /tmp/ran-by
env >> /tmp/ran-with
exit 1
";

#[test]
fn a_program_that_the_services_user_put_there_is_not_run_by_roots_restart() {
    let Some(systemd) = prepared("replaced") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let app = systemd.add_plain_user("app");
    let bin = format!("/home/{}/bin", app.name);
    systemd.sh(&format!(
        "chmod 755 /home/{0}; mkdir {bin}; cp /usr/local/bin/gateway /usr/local/bin/gatewayctl {bin}; chown -R {0}: {bin}",
        app.name
    ));
    let ctl = format!("{bin}/gatewayctl");
    let flags = [
        "install",
        "--now",
        "--run-as",
        &app.name,
        "--sandbox",
        "off",
    ];
    let output = site.run(&[&[ctl.as_str()], &flags[..], &node()].concat());
    let said = all_of(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("its user can replace it"), "{said}");
    let output = site.run(&["gatewayctl", "doctor"]);
    assert!(
        all_of(&output).contains("program-writable"),
        "{}",
        all_of(&output)
    );

    systemd.write(&format!("{bin}/next"), REPLACED);
    systemd.sh(&format!(
        "chmod 755 {bin}/next; chown {}: {bin}/next; mv {bin}/next {bin}/gateway",
        app.name
    ));
    for (before, restart) in [
        ("true", &["restart", "--force"][..]),
        ("systemctl stop gateway", &["restart"]),
    ] {
        systemd.sh(before);
        systemd.sh("rm -f /tmp/ran-by /tmp/ran-with; touch /tmp/ran-by /tmp/ran-with; chmod 666 /tmp/ran-*");
        let args = [&["env", "ROOTS_SECRET=1", "gatewayctl"], restart].concat();
        let output = site.run(&args);
        let said = all_of(&output);
        assert_eq!(output.status.code(), Some(REFUSED), "{said}");
        let ran_by = systemd.read("/tmp/ran-by").unwrap();
        assert_eq!(ran_by.trim(), app.uid.to_string(), "{said}");
        let ran_with = systemd.read("/tmp/ran-with").unwrap();
        assert!(!ran_with.contains("ROOTS_SECRET"), "{ran_with}");
    }
}
