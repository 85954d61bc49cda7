//! Random trees of real processes on a port, and `gatewayctl clean` run by one of them: no signal
//! to anything that is not proven stale.
//!
//! What comes of each tree is worked out by a [`model`] of its own, from the tree alone. A process
//! that is to be spared has every signal blocked, or none handled: what the kernel says of it
//! afterwards shows even a single signal.

mod member;
mod model;
mod running;
mod tree;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::random::Random;
use crate::support::skip;
use tempfile::TempDir;
use tree::Tree;

/// The trees are the same each time, so that a failure can be looked at again; TREES_SEED gives
/// others.
const SEED: u64 = 20_261_122;

/// How many trees; TREES gives more.
const TREES: u64 = 200;

/// Most of a tree's time passes in waiting for a silent gateway: three seconds.
const AT_ONCE: usize = 32;

/// Where [`member`] is.
const MODULE: &str = module_path!();

/// Not a test: a member of a tree.
#[test]
#[ignore = "runs as a member of a tree"]
fn member() {
    member::live();
}

/// The programs of all trees, where every user may run them.
struct Programs {
    dir: TempDir,
}

impl Programs {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("trees-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let this = Self { dir };
        let me = std::env::current_exe().unwrap();
        // Beside gatewayctl a member is known as that one's gateway; anywhere else by what is in
        // it.
        fs::create_dir(this.dir.path().join("elsewhere")).unwrap();
        for (from, to) in [
            (Path::new(env!("CARGO_BIN_EXE_gatewayctl")), this.ctl()),
            (&me, this.gateway(true)),
            (&me, this.gateway(false)),
        ] {
            fs::copy(from, &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        }
        this
    }

    fn ctl(&self) -> PathBuf {
        self.dir.path().join("gatewayctl")
    }

    fn gateway(&self, beside: bool) -> PathBuf {
        self.dir.path().join(if beside {
            "gateway"
        } else {
            "elsewhere/server"
        })
    }
}

#[test]
fn no_signal_to_any_real_process_that_is_not_proven_stale() {
    if !nix::unistd::geteuid().is_root() {
        return skip::because("processes of another user take root");
    }
    if !skip::unless_there("setsid") {
        return;
    }
    let me = gateway::internals::Process::read(std::process::id()).unwrap();
    assert!(
        me.is_gateway(),
        "what a gateway is known by stands in this program, too: {me:?}"
    );
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (seed, trees) = (number("TREES_SEED", SEED), number("TREES", TREES));
    let programs = Programs::new();
    let (next, failures, seen) = (
        AtomicU64::new(0),
        Mutex::new(Vec::new()),
        Mutex::new(std::collections::BTreeMap::<String, u32>::new()),
    );
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= trees {
                        return;
                    }
                    let tree = Tree::random(&mut Random::new(
                        seed.wrapping_mul(1_000_003).wrapping_add(index),
                    ));
                    match running::check(&programs, &tree) {
                        Ok(outcomes) => outcomes.into_iter().for_each(|outcome| {
                            *seen.lock().unwrap().entry(outcome).or_default() += 1
                        }),
                        Err(told) => failures
                            .lock()
                            .unwrap()
                            .push(format!("tree {index} of seed {seed}: {told}\n{tree:#?}")),
                    }
                }
            });
        }
    });
    let (failures, seen) = (failures.into_inner().unwrap(), seen.into_inner().unwrap());
    eprintln!("{trees} trees of seed {seed}: {seen:?}");
    assert!(
        failures.is_empty(),
        "{} of {trees} trees:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
    if trees >= TREES {
        for outcome in OUTCOMES {
            assert!(
                seen.contains_key(*outcome),
                "no tree led to `{outcome}`: {seen:?}"
            );
        }
    }
}

/// What the trees must have led to, or they show little.
const OUTCOMES: &[&str] = &[
    "ancestor",
    "protected",
    "other-user",
    "foreign",
    "drains",
    "owns",
    "answers",
    "unknown",
    "silent",
    "named",
    "self",
    "TERM",
    "KILL",
    "free",
    "ours",
    "held",
    "dry run",
];
