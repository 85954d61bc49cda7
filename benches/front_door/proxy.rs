//! Requests per second of the proxy's own CPU time, beside nginx with the same upstream on the same
//! machine in the same run.

use std::fs;
use std::process::Command;

use nix::unistd::{SysconfVar, sysconf};
use serde_json::{Value, json};

use super::nginx::Nginx;
use super::support::gateway::{Setup, descendants};
use super::support::servers;
use super::{Size, middle_and_most, tenths};

const ANSWER: &str = "thirty-six bytes of a small response";

/// CPU seconds that a process and its present descendants used so far; `alone` leaves the
/// descendants out.
fn cpu_seconds(pid: u32, alone: bool) -> f64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap() as f64;
    let family = if alone { Vec::new() } else { descendants(pid) };
    let used = family.iter().map(|(pid, _)| *pid).chain([pid]).map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<f64> = stat
            .rsplit_once(')')
            .map(|(_, rest)| {
                rest.split_whitespace()
                    .map(|field| field.parse().unwrap_or(0.0))
                    .collect()
            })
            .unwrap_or_default();
        // Fields 14 and 15, utime and stime; the state is the third.
        fields.get(11).unwrap_or(&0.0) + fields.get(12).unwrap_or(&0.0)
    });
    used.sum::<f64>() / ticks
}

struct Round {
    per_second: f64,
    per_cpu_second: f64,
    p99_ms: f64,
    bad: u64,
}

/// 64 kept connections from one wrk thread.
fn round(port: u16, pid: u32, alone: bool, seconds: u64) -> Round {
    let before = cpu_seconds(pid, alone);
    let url = format!("http://127.0.0.1:{port}/");
    let output = Command::new("wrk")
        .args(["-t1", "-c64", &format!("-d{seconds}s"), "--latency", &url])
        .output()
        .unwrap();
    let used = cpu_seconds(pid, alone) - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let find = |needle: &str| {
        text.lines()
            .find(|line| line.contains(needle))
            .map(str::trim)
    };
    let requests: f64 = find(" requests in ")
        .and_then(|line| line.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("wrk said: {text}"));
    let bad = find("Non-2xx")
        .and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0);
    let socket_errors = find("Socket errors").map_or(0, |line| {
        line.split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse::<u64>().ok())
            .sum::<u64>()
    });
    Round {
        per_second: requests / seconds as f64,
        per_cpu_second: requests / used.max(0.01),
        p99_ms: find("99%")
            .and_then(|line| milliseconds(line.rsplit(' ').next()?))
            .unwrap_or(f64::NAN),
        bad: bad + socket_errors,
    }
}

fn milliseconds(text: &str) -> Option<f64> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let number: f64 = number.parse().ok()?;
    Some(match unit {
        "us" => number / 1000.0,
        "ms" => number,
        "s" => number * 1000.0,
        _ => return None,
    })
}

pub fn measure(size: Size) -> Value {
    for program in ["wrk", "nginx"] {
        if !servers::have(program) {
            return json!({ "skipped": format!("{program} is not installed") });
        }
    }
    let upstream = Nginx::start(
        1,
        &format!("server {{ listen 127.0.0.1:PORT; location / {{ return 200 \"{ANSWER}\"; }} }}"),
    );
    let nginx = Nginx::start(
        2,
        &format!(
            "upstream up {{ server 127.0.0.1:{}; keepalive 64; keepalive_requests 1000000000; }}\n\
             server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host; \
             proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto http; proxy_set_header X-Forwarded-Host $http_host; }} }}",
            upstream.port
        ),
    );
    let gateway = Setup::upstream(([127, 0, 0, 1], upstream.port).into()).start();
    let mut rows: [Vec<Round>; 2] = [Vec::new(), Vec::new()];
    // The first round of each only warms.
    for number in 0..=size.rounds {
        let seconds = if number == 0 { 1 } else { size.seconds };
        let measured = [
            round(nginx.port, nginx.child.id(), false, seconds),
            round(gateway.addr().port(), gateway.pid(), true, seconds),
        ];
        if number > 0 {
            for (row, measured) in rows.iter_mut().zip(measured) {
                row.push(measured);
            }
        }
    }
    let middle = |row: &[Round], of: fn(&Round) -> f64| {
        middle_and_most(&mut row.iter().map(of).collect::<Vec<_>>()).0
    };
    let [theirs, ours] = &rows;
    let (their_cpu, our_cpu) = (
        middle(theirs, |round| round.per_cpu_second),
        middle(ours, |round| round.per_cpu_second),
    );
    json!({
        "nginx, requests/s": middle(theirs, |round| round.per_second).round(),
        "gateway, requests/s": middle(ours, |round| round.per_second).round(),
        "nginx, requests per CPU second": their_cpu.round(),
        "gateway, requests per CPU second": our_cpu.round(),
        "gateway / nginx, per CPU second": (our_cpu / their_cpu * 100.0).round() / 100.0,
        "nginx, p99 ms": tenths(middle(theirs, |round| round.p99_ms)),
        "gateway, p99 ms": tenths(middle(ours, |round| round.p99_ms)),
        "failed, nginx / gateway": format!(
            "{} / {}",
            theirs.iter().map(|round| round.bad).sum::<u64>(),
            ours.iter().map(|round| round.bad).sum::<u64>()
        ),
    })
}
