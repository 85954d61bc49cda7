//! A gateway that nobody named is called after its port. Its configuration is still the file that it
//! was started with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::{Target, block_on, get};
use crate::support::gateway::{ctl_in, said, scrub};
use crate::support::{port, servers, skip, wait};

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
    assert_eq!(gateway.status()["generation"], 1, "nothing was built");
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
    for (command, code) in [("reload", 78), ("restart", 78)] {
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

/// `gateway` without a word, as a newcomer types it, where there is no configuration.
fn bare(dir: &Path) -> Command {
    let mut command = Command::new("script");
    scrub(&mut command);
    command
        .args([
            "--quiet",
            "--return",
            "--command",
            env!("CARGO_BIN_EXE_gateway"),
        ])
        .arg(dir.join("typescript"))
        .env("CONFIGURATION_DIRECTORY", dir)
        .env("GATEWAY_STATE_DIR", dir.join("state"))
        .current_dir(dir)
        .stdin(Stdio::null());
    command
}

#[test]
fn with_nothing_to_serve_who_types_gateway_is_told_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display().to_string();
    let says_what = |text: &str| {
        text.contains(&format!(
            "nothing to serve: no command after --, and no configuration in {place}/gateway"
        )) && text.contains("gateway run -- COMMAND…")
            && text.contains("gatewayctl install --now -- COMMAND…")
    };
    if skip::unless_there("script") {
        let output = bare(dir.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(says_what(&said(&output)), "{}", said(&output));
        assert!(!dir.path().join("state").exists(), "it began nothing");
    }

    // Without a terminal the door is opened all the same: a service whose file is lost for a while
    // keeps its port. What is missing comes first.
    let port = port::private();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    scrub(&mut command);
    let log = dir.path().join("log");
    let mut child = command
        .args(["--listen", &port.to_string(), "--state-dir"])
        .arg(dir.path().join("state"))
        .env("CONFIGURATION_DIRECTORY", dir.path())
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let text = wait::until("the door is open", || {
        let text = fs::read_to_string(&log).unwrap();
        text.contains("http server listening").then_some(text)
    });
    assert!(
        says_what(&text) && text.starts_with("[gateway] warning: nothing to serve"),
        "{text}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}
