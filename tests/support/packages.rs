//! Packages of the programs under test, made by `packaging/build`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::gateway::said;
use super::skip;

/// Builds a package into `out`; none, and the test is skipped, where one of `tools` is missing.
pub fn build(kind: &str, tools: &[&str], out: &Path, more: &[&str]) -> Option<PathBuf> {
    if !tools.iter().all(|tool| skip::unless_there(tool)) {
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = Path::new(env!("CARGO_BIN_EXE_gateway")).parent().unwrap();
    let output = Command::new(root.join("packaging/build"))
        .arg("--programs")
        .arg(programs)
        .arg("--out")
        .arg(out)
        .args(more)
        .args(["--quick", kind])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    Some(PathBuf::from(text.lines().last().unwrap()))
}

/// A package for dpkg.
pub fn deb(out: &Path, revision: &str) -> Option<PathBuf> {
    let tools = ["dpkg-deb", "dpkg-shlibdeps", "strip"];
    build("deb", &tools, out, &["--revision", revision])
}

/// A package for rpm.
pub fn rpm(out: &Path, revision: &str) -> Option<PathBuf> {
    let tools = ["rpmbuild", "rpm", "strip"];
    build("rpm", &tools, out, &["--revision", revision])
}

/// A tarball; its checksum and the program that installs it lie beside it.
pub fn tarball(out: &Path) -> Option<PathBuf> {
    build("tarball", &["strip", "sha256sum"], out, &[])
}

/// An image for container engines, as an OCI archive.
pub fn image(out: &Path) -> Option<PathBuf> {
    build("image", &["strip", "buildah"], out, &[])
}

/// A formula for Homebrew; its source lies beside it.
pub fn formula(out: &Path) -> Option<PathBuf> {
    build("formula", &["git", "ruby"], out, &[])
}
