//! Runs cells in several gateways side by side.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use crate::cell::{self, Seen};
use crate::expected::{Outcome, expected, words};
use crate::faults::Fault;
use crate::moments::Moment;
use crate::site::{Kind, Site, private_mounts};
use crate::support::{servers, skip};
use crate::table;

/// Most of the time a cell waits for something: so many keep two cores busy.
const LANES: usize = 4;

type Cell = (Fault, Moment);
type Results = HashMap<Cell, Result<Seen, String>>;

/// Runs them all and writes the table.
///
/// # Panics
/// When a cell did not end as expected; the others are run all the same.
pub fn run(mut cells: Vec<Cell>) {
    if !servers::have("node") || !skip::unless_there("prlimit") {
        return;
    }
    let begun = Instant::now();
    cells.sort_by_key(|(_, moment)| Kind::of(*moment));
    let count = cells.len();
    let (queue, results) = (Mutex::new(VecDeque::from(cells)), Mutex::default());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| lane(&queue, &results));
        }
    });
    let results: Results = results.into_inner().unwrap();
    write(&results, count, begun);
    let failed = results.iter().filter_map(|((fault, moment), seen)| {
        let why = seen.as_ref().err()?;
        Some(format!("{} at {}: {why}", fault.name(), moment.name()))
    });
    let failed: Vec<String> = failed.collect();
    assert!(failed.is_empty(), "{}\n", failed.join("\n\n"));
}

fn lane(queue: &Mutex<VecDeque<Cell>>, results: &Mutex<Results>) {
    let disk = private_mounts();
    let mut site: Option<Site> = None;
    loop {
        let Some((fault, moment)) = queue.lock().unwrap().pop_front() else {
            return;
        };
        if fault == Fault::DiskFull && !disk {
            skip::because("a full state directory needs root, to mount a small tmpfs");
            continue;
        }
        let Ok(outcome) = expected(fault, moment) else {
            continue;
        };
        let (kind, begun) = (Kind::of(moment), Instant::now());
        let here = site.take().filter(|site| site.kind == kind);
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let mut here = here.unwrap_or_else(|| Site::start(kind, disk));
            let seen = cell::run(&mut here, fault, moment, outcome);
            (here, seen)
        }));
        let seen = match ran {
            Ok((here, seen)) => {
                // Where many lives ended unplanned, starts are slowed down.
                site = Some(here).filter(|_| seen.outcome != Outcome::Died);
                Ok(seen)
            }
            Err(panic) => Err(message(&*panic)),
        };
        eprintln!(
            "{:5} ms  {} at {}: {}",
            begun.elapsed().as_millis(),
            fault.name(),
            moment.name(),
            word(&seen)
        );
        results.lock().unwrap().insert((fault, moment), seen);
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic".into())
}

fn word(seen: &Result<Seen, String>) -> String {
    match seen {
        Ok(Seen { outcome, lost: 0 }) => outcome.word().to_owned(),
        Ok(Seen { outcome, lost }) => format!("{}, {lost} lost", outcome.word()),
        Err(_) => "FAILED".into(),
    }
}

/// Into the directory of all that is built.
fn write(results: &Results, count: usize, begun: Instant) {
    let table = table::render(|fault, moment| match results.get(&(fault, moment)) {
        Some(seen) => word(seen),
        None if expected(fault, moment).is_ok() => "not run".into(),
        None => words(fault, moment),
    });
    let seconds = begun.elapsed().as_secs();
    let text = format!("{count} cells in {seconds} s.\n\n{table}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    fs::write(target.join("fault-matrix.md"), text).unwrap();
}
