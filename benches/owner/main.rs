//! Who has a port: what it takes us and others to tell, measured in one run, in alternation.
//!
//! ```sh
//! cargo bench --bench owner                      # all of it, some minutes
//! cargo bench --bench owner -- --quick           # fewer rounds
//! cargo bench --bench owner -- --only lookup --json
//! ```
//!
//! Parts: `lookup` (the holder of a port among 10, 1,000 and 5,000 other processes, by the library, by `gatewayctl clean --dry-run`, by
//! lsof, ss and fuser; those four are whole processes, as a script would start them), `restart` (`gatewayctl restart --force` in five
//! situations under a real systemd, against a script of lsof, kill and systemctl; needs root).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lookup;
mod restart;
#[path = "../../tests/support/mod.rs"]
mod support;

use serde_json::{Map, Value};

type Part = fn(bool) -> Value;

const PARTS: [(&str, Part); 2] = [("lookup", lookup::measure), ("restart", restart::measure)];

fn main() {
    let (mut quick, mut json, mut only) = (false, false, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => quick = true,
            "--json" => json = true,
            "--only" => only = args.next(),
            // cargo bench passes this one.
            "--bench" => {}
            other => {
                eprintln!("owner: `{other}`? There are --quick, --json and --only PART");
                return;
            }
        }
    }
    if cfg!(debug_assertions) {
        eprintln!("built for debugging: ours would be faster (cargo bench builds for release)");
    }
    let mut all = Map::new();
    for (name, part) in PARTS {
        if only.as_ref().is_none_or(|only| only == name) {
            eprintln!("{name} …");
            let result = part(quick);
            if !json {
                print(name, &result);
            }
            all.insert(name.to_owned(), result);
        }
    }
    if json {
        println!("{:#}", Value::Object(all));
    }
}

fn print(part: &str, result: &Value) {
    println!("\n{part}");
    for (key, value) in result.as_object().unwrap() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        println!("  {key:<44} {text}");
    }
}

/// The middle of some measurements.
fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
