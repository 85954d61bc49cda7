//! A release is a directory, and a link says which one serves: a restart follows the link.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::{servers, skip};

/// Makes release `number` the current one, as deployments do: a rename, so that there is always a link.
fn deploy(app: &Path, number: u32) {
    let release = app.join(format!("releases/{number}"));
    fs::create_dir_all(&release).unwrap();
    fs::write(release.join("version"), number.to_string()).unwrap();
    let next = app.join("next");
    symlink(&release, &next).unwrap();
    fs::rename(next, app.join("current")).unwrap();
}

fn version(gateway: &Gateway) -> String {
    let answer = block_on(client::get(&gateway.target(), "/version")).unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.text()
}

#[test]
fn a_restart_serves_the_release_to_which_the_link_leads_now() {
    if !servers::have("python3") || !skip::unless_there("sh") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path();
    deploy(app, 1);
    let shell = app.join("start");
    let script = format!(
        "#!/bin/sh\ncd {}/current && exec {} \"$@\"\n",
        app.display(),
        env!("CARGO_BIN_EXE_gateway")
    );
    fs::write(&shell, script).unwrap();
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
    let server = "python3 -m http.server --bind 127.0.0.1 {port}".split(' ');
    let mut gateway = Setup::behind(server).program(&shell).start();
    assert_eq!(version(&gateway), "1");
    for (number, restart) in [
        (2, &["restart"][..]),
        (3, &["restart", "--fresh"]),
        (4, &["restart"]),
        (5, &["restart", "--fresh"]),
    ] {
        deploy(app, number);
        fs::remove_dir_all(app.join(format!("releases/{}", number - 1))).unwrap();
        let output = gateway.ctl(restart);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(version(&gateway), number.to_string());
    }
    // Without a release the old one serves on.
    fs::remove_file(app.join("current")).unwrap();
    let output = gateway.ctl(["restart"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("current does not exist"),
        "{}",
        said(&output)
    );
    assert_eq!(version(&gateway), "5");
    gateway.terminate();
}
