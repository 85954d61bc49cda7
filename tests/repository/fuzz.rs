//! A short run of every fuzz target: the inputs that are kept in `fuzz/`, and fixed changes of
//! them. `fuzz/README.md` says how to run the targets for long.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use targets::{TARGETS, Target};

/// Texts and numbers at which parsers turn.
const WORDS: [&[u8]; 24] = [
    b"\0",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\"",
    b"'",
    b"\\",
    b"\\\n",
    b"=",
    b"#",
    b"%",
    b"$",
    b"[",
    b"]",
    b"{",
    b"}",
    b"(",
    b")",
    b"/",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"99999999999999999999",
    b"\xef\xbf\xbf",
    b"\xe2\x80\xa8",
];

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The inputs in a directory, with their paths, by name.
fn inputs(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = fuzz_dir().join(kind).join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let read = |path: PathBuf| (path.clone(), fs::read(path).unwrap());
    files.into_iter().map(read).collect()
}

/// The same numbers in each run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % limit.max(1)
    }

    /// One to four changes of an input; some with a piece of another one.
    fn change(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut changed = input.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(changed.len() + 1);
            let end = (at + self.below(1 + changed.len().min(40))).min(changed.len());
            let from = self.below(other.len());
            let piece = &other[from..(from + self.below(60)).min(other.len())];
            match self.below(7) {
                0 if at < changed.len() => changed[at] ^= 1 << self.below(8),
                1 if at < changed.len() => changed[at] = u8::try_from(self.below(256)).unwrap(),
                2 => drop(changed.drain(at..end)),
                3 => changed.truncate(at),
                4 => {
                    let twice = changed[at..end].to_vec();
                    changed.splice(at..at, twice);
                }
                5 => drop(changed.splice(at..end, piece.to_vec())),
                _ => drop(changed.splice(at..at, WORDS[self.below(WORDS.len())].to_vec())),
            }
        }
        changed
    }
}

/// Runs a target, and shows the input with which it panics.
fn run(name: &str, target: Target, input: &[u8], from: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        let file = std::env::temp_dir().join(format!("gateway-fuzz-{name}"));
        fs::write(&file, input).unwrap();
        panic!(
            "{name}, with {from}: keep {} in fuzz/regressions/{name}/; the input: {:?}",
            file.display(),
            String::from_utf8_lossy(input)
        );
    }
}

/// Runs a target with what is kept and with `count` changed inputs.
fn short_run(name: &str, count: usize) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let seeds = inputs("seeds", name);
    assert!(
        seeds.len() > 2,
        "fuzz/seeds/{name} holds {} inputs",
        seeds.len()
    );
    let kept: Vec<(PathBuf, Vec<u8>)> = seeds
        .into_iter()
        .chain(inputs("regressions", name))
        .collect();
    run(name, *target, b"", "an empty input");
    for (path, input) in &kept {
        run(name, *target, input, &path.display().to_string());
    }
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..count {
        let (path, input) = &kept[numbers.below(kept.len())];
        let other = &kept[numbers.below(kept.len())].1;
        let changed = numbers.change(input, other);
        let from = format!("change {round}, of {}", path.display());
        run(name, *target, &changed, &from);
    }
}

macro_rules! short_runs {
    ($($name:ident: $count:literal,)+) => {
        $(
            #[test]
            fn $name() {
                short_run(stringify!($name), $count);
            }
        )+

        const TESTED: &[&str] = &[$(stringify!($name)),+];
    };
}

// As many as fit into about a second of a debug build.
short_runs!(
    control_frames: 400,
    http_progress: 2000,
    netlink: 20_000,
    proc_files: 20_000,
    property_list: 10_000,
    proxy_header: 20_000,
    quoting: 2000,
    toml_config: 10_000,
    websocket: 20_000,
);

#[test]
fn every_target_has_a_program_inputs_and_a_short_run() {
    let names = |dir: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz_dir().join(dir)).unwrap();
        let name = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
        entries.map(|entry| name(entry.unwrap().path())).collect()
    };
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let tested: BTreeSet<String> = TESTED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(tested, targets);
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("seeds"), targets);
    assert!(names("regressions").is_subset(&targets));
    let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap();
    for name in targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")));
    }
}
