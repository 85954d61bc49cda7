//! The service's user answers at the control socket in the gateway's place, and root's gatewayctl runs
//! and replaces nothing that it names.

use std::fs;

use crate::support::site::{Site, all_of, prepared};
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
