//! A measuring program of several parts: its flags, and how it prints.

use serde_json::{Map, Value};

/// A part by name, and what measures it in some size.
pub type Part<S> = (&'static str, fn(S) -> Value);

/// Runs those of `parts` that are asked for, with `full` or, for `--quick`, with `quick`.
pub fn run<S: Copy>(program: &str, full: S, quick: S, parts: &[Part<S>]) {
    let mut size = full;
    let (mut json, mut only) = (false, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => size = quick,
            "--json" => json = true,
            "--only" => only = args.next(),
            // cargo bench passes this one.
            "--bench" => {}
            other => {
                eprintln!("{program}: `{other}`? There are --quick, --json and --only PART");
                return;
            }
        }
    }
    if cfg!(debug_assertions) {
        eprintln!("built for debugging: the figures say little (cargo bench builds for release)");
    }
    let mut all = Map::new();
    for (name, part) in parts {
        if only.as_ref().is_none_or(|only| only == name) {
            eprintln!("{name} …");
            let result = part(size);
            if !json {
                print(name, &result);
            }
            all.insert((*name).to_owned(), result);
        }
    }
    if json {
        println!("{:#}", Value::Object(all));
    }
}

fn print(part: &str, result: &Value) {
    println!("\n{part}");
    for (key, value) in result.as_object().unwrap() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        println!("  {key:<44} {text}");
    }
}
