//! What `packaging/build` makes, seen without installing it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::gateway::said;
use crate::support::{packages, skip};

/// Runs a program that must succeed; what it printed.
fn must(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        said(&output)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The names of all man pages of the repository that stand in one of its sections.
fn pages() -> Vec<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let names = std::fs::read_dir(dir).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.ends_with(|last: char| last.is_ascii_digit()))
        .collect()
}

/// What every package for a distribution has below its root.
fn has_everything(root: &Path, zsh: &str) {
    for page in pages() {
        let section = page.rsplit('.').next().unwrap();
        let file = root.join(format!("usr/share/man/man{section}/{page}.gz"));
        let unpacked = must("gzip", &["-dc", text(&file)]);
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("man")
            .join(&page);
        assert_eq!(unpacked, std::fs::read_to_string(source).unwrap(), "{page}");
    }
    for program in ["gateway", "gatewayctl"] {
        let version = must(text(&root.join("usr/bin").join(program)), &["--version"]);
        assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
        let read = |name: String| std::fs::read_to_string(root.join("usr/share").join(name));
        let bash = read(format!("bash-completion/completions/{program}")).unwrap();
        assert!(bash.lines().any(|line| line.ends_with(program)), "{bash}");
        let fish = read(format!("fish/vendor_completions.d/{program}.fish")).unwrap();
        assert!(fish.contains(&format!("complete -c {program} ")), "{fish}");
        let zsh = read(format!("zsh/{zsh}/_{program}")).unwrap();
        assert!(zsh.starts_with(&format!("#compdef {program}\n")), "{zsh}");
    }
    let licenses = root.join("usr/share/doc/gateway/third-party-licenses.gz");
    let licenses = must("gzip", &["-dc", text(&licenses)]);
    for words in ["\ntokio 1.", "of hyper\n", "Permission is hereby granted"] {
        assert!(licenses.contains(words), "{words}");
    }
    let unit = "usr/lib/systemd/system/gateway@.service";
    let units = root.join("usr/lib/systemd/system");
    let names: Vec<_> = std::fs::read_dir(units).unwrap().collect();
    // Any other would look like an installed gateway.
    assert!(root.join(unit).exists() && names.len() == 1, "{names:?}");
}

fn deb(dir: &Path) -> Option<PathBuf> {
    std::fs::create_dir(dir).unwrap();
    packages::deb(dir, "1")
}

#[test]
fn the_deb_is_complete_reproducible_and_without_errors_of_lintian() {
    let dir = tempfile::tempdir().unwrap();
    let Some(first) = deb(&dir.path().join("1")).filter(|_| skip::unless_there("lintian")) else {
        return;
    };
    must(
        "lintian",
        &["--allow-root", "--fail-on", "error", text(&first)],
    );
    let root = dir.path().join("root");
    must("dpkg-deb", &["-x", text(&first), text(&root)]);
    has_everything(&root, "vendor-completions");
    let scripts = dir.path().join("scripts");
    must("dpkg-deb", &["-e", text(&first), text(&scripts)]);
    for script in ["postinst", "prerm", "postrm"] {
        must("dash", &["-n", text(&scripts.join(script))]);
    }
    let depends = must("dpkg-deb", &["-f", text(&first), "Depends"]);
    assert!(depends.contains("libc6 (>= "), "{depends}");

    let second = deb(&dir.path().join("2")).unwrap();
    let same = std::fs::read(first).unwrap() == std::fs::read(second).unwrap();
    assert!(same, "the same commit gives the same package");
}
