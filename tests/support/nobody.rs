//! The user nobody, who may do only what everybody may.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::skip;

pub const UID: u32 = 65_534;

/// Whether commands can be run as nobody here; if not, the test is skipped.
pub fn can_be() -> bool {
    if !nix::unistd::geteuid().is_root() {
        skip::because("only root can become another user");
        return false;
    }
    skip::unless_there("setpriv")
}

/// Copies both programs to a directory where every user can run them.
pub fn copy_programs(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    for program in [
        env!("CARGO_BIN_EXE_gateway"),
        env!("CARGO_BIN_EXE_gatewayctl"),
    ] {
        let name = Path::new(program).file_name().unwrap();
        fs::copy(program, dir.join(name)).unwrap();
    }
}

/// Gives a directory to nobody.
pub fn own(dir: &Path) {
    std::os::unix::fs::chown(dir, Some(UID), Some(UID)).unwrap();
}

/// A command of nobody, without any privilege.
pub fn command(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        &format!("--reuid={UID}"),
        &format!("--regid={UID}"),
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ]);
    command
        .arg(program)
        .args(args)
        .env("HOME", "/nonexistent")
        .env_remove("XDG_RUNTIME_DIR")
        .stdin(Stdio::null());
    command
}

/// `gateway run` of nobody, with nothing behind it.
pub fn gateway(programs: &Path, state: &Path, listen: &str) -> Command {
    let state = state.to_str().unwrap();
    let args = ["run", "--config", "/dev/null", "--state-dir", state];
    command(
        &programs.join("gateway"),
        &[&args[..], &["--listen", listen]].concat(),
    )
}
