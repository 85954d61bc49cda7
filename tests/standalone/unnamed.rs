//! A gateway that nobody named is called after its port. Its configuration is still the file that it
//! was started with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::{Target, block_on, get};
use crate::support::gateway::{ctl_in, said, scrub};
use crate::support::{port, servers, wait};

/// A gateway that finds its configuration by itself.
struct Unnamed {
    child: Child,
    dir: TempDir,
    state: PathBuf,
}

impl Unnamed {
    /// Starts it with the Node server on this port, and waits until it serves.
    fn start(port: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.arg("run");
        scrub(&mut command);
        command
            .env("CONFIGURATION_DIRECTORY", dir.path())
            .env("GATEWAY_SUPERVISOR", "none")
            .current_dir(dir.path())
            .stdin(Stdio::null());
        write(dir.path(), &state, port);
        let child = command.spawn().unwrap();
        let this = Self { child, dir, state };
        this.serves(port);
        this
    }

    fn serves(&self, port: u16) {
        let target = Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
        wait::until("it serves", || {
            block_on(get(&target, "/pid"))
                .ok()
                .filter(|answer| answer.status() == 200)
        });
    }

    fn ctl(&self, args: &[&str]) -> Output {
        ctl_in(&self.state).args(args).output().unwrap()
    }

    fn must(&self, args: &[&str]) -> String {
        let output = self.ctl(args);
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        said(&output)
    }

    fn status(&self) -> Value {
        let output = self.ctl(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)))
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        let _ = self.ctl(&["stop"]);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(dir: &Path, state: &Path, port: u16) {
    let text = format!(
        "[gateway]\nlisten = [\"127.0.0.1:{port}\"]\nstate_dir = {state:?}\n[sidecar.web]\ncommand = {:?}\n",
        servers::node()
    );
    fs::write(dir.join("gateway.toml"), text).unwrap();
}

#[test]
fn a_gateway_called_after_its_port_keeps_port_and_server_at_reload_and_restart() {
    if !servers::have("node") {
        return;
    }
    let (first, second) = (port::private(), port::private());
    let gateway = Unnamed::start(first);
    let name = gateway.status()["instance"].clone();
    assert_eq!(name, format!("gateway-{first}"));

    let reloaded = gateway.must(&["reload"]);
    assert!(reloaded.contains("nothing to do"), "{reloaded}");
    for restart in [&["restart"][..], &["restart", "--fresh"]] {
        gateway.must(restart);
        gateway.serves(first);
        assert_eq!(gateway.status()["sidecars"][0]["name"], "web");
    }
    // Another port is no other gateway while it runs.
    write(gateway.dir.path(), &gateway.state, second);
    gateway.must(&["reload"]);
    gateway.serves(second);
    gateway.must(&["restart", "--fresh"]);
    gateway.serves(second);
    assert_eq!(gateway.status()["instance"], name);

    // A file that is gone is no empty one.
    fs::remove_file(gateway.dir.path().join("gateway.toml")).unwrap();
    for (command, code) in [("reload", 78), ("restart", 1)] {
        let refused = gateway.ctl(&[command]);
        assert_eq!(refused.status.code(), Some(code), "{}", said(&refused));
        assert!(
            said(&refused).contains("gateway.toml"),
            "{}",
            said(&refused)
        );
    }
    gateway.serves(second);
}
