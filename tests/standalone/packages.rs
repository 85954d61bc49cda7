//! What `packaging/build` makes, seen without installing it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::gateway::{Setup, said};
use crate::support::{packages, servers, skip};

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
    let doc = root.join("usr/share/doc/gateway");
    for page in ["README.md", "docs/service.md", "docs/recipes/node.md"] {
        assert!(doc.join(page).exists(), "{page}");
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

#[test]
fn the_rpm_is_complete_and_its_scripts_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let Some(package) = packages::rpm(dir.path(), "1").filter(|_| skip::unless_there("cpio"))
    else {
        return;
    };
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let unpack = "set -o pipefail; cd \"$1\" && rpm2cpio \"$2\" | cpio --quiet -idm";
    must(
        "bash",
        &["-c", unpack, "unpack", text(&root), text(&package)],
    );
    // Fedora has licenses in a place of their own.
    let licenses = root.join("usr/share/licenses/gateway/third-party-licenses.gz");
    std::fs::rename(
        licenses,
        root.join("usr/share/doc/gateway/third-party-licenses.gz"),
    )
    .unwrap();
    has_everything(&root, "site-functions");

    let query = |what: &str| must("rpm", &["-qp", "--nosignature", what, text(&package)]);
    let scripts = query("--scripts");
    for part in ["posttrans", "preuninstall", "postuninstall"] {
        let head = format!("{part} scriptlet (using /bin/sh):\n");
        let body = scripts
            .split(&head)
            .nth(1)
            .unwrap_or_else(|| panic!("{scripts}"));
        let body = body.split(" scriptlet (using").next().unwrap();
        // The name of the next one is left at the end.
        let body = body.rsplit_once('\n').map_or(body, |(body, _)| body);
        must("dash", &["-n", "-c", body]);
    }
    assert!(query("--requires").contains("libc.so.6()(64bit)"));
    assert_eq!(
        query("--configfiles"),
        "",
        "what the administrator writes is no part of it"
    );
}

/// `install.sh` with these arguments: whether it succeeded, and what it said.
fn install(dir: &Path, args: &[&str]) -> (bool, String) {
    let output = Command::new("sh")
        .arg(dir.join("install.sh"))
        .args(args)
        .output()
        .unwrap();
    (output.status.success(), said(&output))
}

#[test]
fn the_tarball_is_installed_only_with_the_right_checksum_and_removed_without_a_trace() {
    let dir = tempfile::tempdir().unwrap();
    let Some(tarball) = packages::tarball(dir.path()) else {
        return;
    };
    let (out, prefix) = (dir.path(), dir.path().join("opt"));
    let with = |more: &[&str]| install(out, &[&["--prefix", text(&prefix)], more].concat());
    let checksum = PathBuf::from(format!("{}.sha256", text(&tarball)));
    let right = std::fs::read_to_string(&checksum).unwrap();

    // A download that is broken, one whose checksum is missing, and one that is not the expected one.
    for (wrong, words) in [
        (Some("0".repeat(64)), "the checksum of"),
        (Some("abc".to_owned()), "a SHA-256 checksum has 64 digits"),
        (Some(String::new()), "a SHA-256 checksum has 64 digits"),
        (None, ".sha256 is missing"),
    ] {
        match wrong {
            Some(wrong) => std::fs::write(&checksum, wrong).unwrap(),
            None => std::fs::remove_file(&checksum).unwrap(),
        }
        let (done, said) = with(&[text(&tarball)]);
        assert!(
            !done && said.contains(words) && !prefix.exists(),
            "{words}: {said}"
        );
    }
    let digits = right.split(' ').next().unwrap();
    let (done, said) = with(&["--sha256", digits, text(&tarball)]);
    assert!(done && said.contains("installed gateway "), "{said}");

    // A program that runs is replaced, too.
    std::fs::write(&checksum, &right).unwrap();
    let program = prefix.join("bin/gateway");
    let running = Setup::behind(servers::node()).program(&program).start();
    let (done, said) = with(&[text(&tarball)]);
    assert!(done, "{said}");
    let fresh = running.ctl(["restart", "--fresh"]);
    assert!(fresh.status.success(), "{}", self::said(&fresh));
    assert!(running.stop().success());
    let page = prefix.join("share/man/man8/gatewayctl-install.8.gz");
    assert!(page.exists() && must(text(&program), &["--version"]).contains("gateway"));

    let (done, said) = with(&["--remove"]);
    let left = must("find", &[text(&prefix), "!", "-type", "d"]);
    assert!(done && left.is_empty(), "{said}: {left}");
}

/// Evaluates the service block of a formula, as far as Homebrew's own words are used in it
/// (docs.brew.sh/Formula-Cookbook, "Service block methods").
const SERVICE_OF_A_FORMULA: &str = r##"
require "pathname"
HOMEBREW_PREFIX = Pathname("/brew")
class Service
  def opt_bin = Pathname("/opt/bin")
  def etc = Pathname("/etc")
  def var = Pathname("/var")
  def std_service_path_env = "path"
  def environment_variables(all) = puts("environment_variables: #{all.map { |name, value| "#{name}=#{value}" }.join}")
  %i[run keep_alive process_type working_dir log_path error_log_path].each do |key|
    define_method(key) { |value| puts "#{key}: #{Array(value).join(" ")}" }
  end
end
class Formula
  def self.test = nil
  def self.method_missing(name, *) = nil
  def self.service(&block) = Service.new.instance_eval(&block)
end
load ARGV[0]
"##;

#[test]
fn the_formula_is_ruby_and_names_a_source_with_everything_that_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(formula) = packages::formula(dir.path()) else {
        return;
    };
    must("ruby", &["-c", text(&formula)]);
    let service = must("ruby", &["-e", SERVICE_OF_A_FORMULA, text(&formula)]);
    assert_eq!(
        service.trim(),
        "run: /opt/bin/gateway run --config /etc/gateway/gateway.toml\n\
         keep_alive: true\nprocess_type: interactive\nenvironment_variables: PATH=path\n\
         working_dir: /brew\nlog_path: /var/log/gateway.log\nerror_log_path: /var/log/gateway.log"
    );
    let words = std::fs::read_to_string(&formula).unwrap();
    let value = |key: &str| {
        let line = words.lines().find_map(|line| line.trim().strip_prefix(key));
        line.unwrap_or_else(|| panic!("{key}: {words}"))
            .trim_matches([' ', '"'])
    };
    assert!(!words.contains('@'), "{words}");
    let source = value("url ").strip_prefix("file://").unwrap();
    let sum = must("sha256sum", &[source]);
    assert!(sum.starts_with(value("sha256 ")), "{sum}");
    let files = must("tar", &["-tzf", source]);
    for name in [
        "Cargo.toml",
        "Cargo.lock",
        "man/gateway.8",
        "man/gateway.toml.5",
    ] {
        let path = format!("gateway-{}/{name}\n", value("version "));
        assert!(files.contains(&path), "{path}");
    }
}
