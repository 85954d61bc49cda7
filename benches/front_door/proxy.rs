//! Requests per second of the proxy's own CPU time, beside nginx with the same upstream on the same
//! machine in the same run.

use std::fs;
use std::process::Command;

use nix::unistd::{SysconfVar, sysconf};
use serde_json::{Map, Value, json};

use super::nginx::Nginx;
use super::support::gateway::{Setup, descendants};
use super::support::servers;
use super::{Size, middle_and_most, tenths};

const ANSWER: &str = "thirty-six bytes of a small response";

/// Whose CPU time counts.
#[derive(Clone, Copy)]
enum Processes {
    One(u32),
    /// A process and its present descendants.
    Family(u32),
}

/// One of those that are measured.
struct Side {
    name: &'static str,
    port: u16,
    processes: Processes,
    rounds: Vec<Round>,
}

impl Side {
    fn new(name: &'static str, port: u16, processes: Processes) -> Self {
        Self {
            name,
            port,
            processes,
            rounds: Vec::new(),
        }
    }

    fn middle(&self, of: fn(&Round) -> f64) -> f64 {
        middle_and_most(&mut self.rounds.iter().map(of).collect::<Vec<_>>()).0
    }
}

/// CPU seconds that they used so far.
fn cpu_seconds(processes: Processes) -> f64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap() as f64;
    let (pid, family) = match processes {
        Processes::One(pid) => (pid, Vec::new()),
        Processes::Family(pid) => (pid, descendants(pid)),
    };
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
fn round(port: u16, processes: Processes, seconds: u64) -> Round {
    let before = cpu_seconds(processes);
    let url = format!("http://127.0.0.1:{port}/");
    let output = Command::new("wrk")
        .args(["-t1", "-c64", &format!("-d{seconds}s"), "--latency", &url])
        .output()
        .unwrap();
    let used = cpu_seconds(processes) - before;
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
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let gateways = [
        String::new(),
        format!("[gateway]\naccess_log = \"{}\"\n", log.display()),
        "[gateway]\nrequest_id = false\n".to_owned(),
    ]
    .map(|config| {
        Setup::upstream(([127, 0, 0, 1], upstream.port).into())
            .config(config)
            .start()
    });
    let mut sides = vec![Side::new(
        "nginx",
        nginx.port,
        Processes::Family(nginx.child.id()),
    )];
    let names = [
        "gateway",
        "gateway with an access log",
        "gateway without request ids",
    ];
    for (name, gateway) in names.into_iter().zip(&gateways) {
        let processes = Processes::One(gateway.pid());
        sides.push(Side::new(name, gateway.addr().port(), processes));
    }
    // The first round of each only warms.
    for number in 0..=size.rounds {
        let seconds = if number == 0 { 1 } else { size.seconds };
        for side in &mut sides {
            let measured = round(side.port, side.processes, seconds);
            if number > 0 {
                side.rounds.push(measured);
            }
        }
        // A second of it has some ten megabytes.
        std::fs::File::options()
            .write(true)
            .open(&log)
            .unwrap()
            .set_len(0)
            .unwrap();
    }
    let mut all = Map::new();
    let per_cpu_second = |side: &Side| side.middle(|round| round.per_cpu_second);
    let [nginx, gateway, logging, without_ids] = &sides[..] else {
        unreachable!("four sides");
    };
    for side in &sides {
        let name = side.name;
        let mut add = |what: &str, figure: Value| all.insert(format!("{name}, {what}"), figure);
        add(
            "requests/s",
            side.middle(|round| round.per_second).round().into(),
        );
        add(
            "requests per CPU second",
            per_cpu_second(side).round().into(),
        );
        add("p99 ms", tenths(side.middle(|round| round.p99_ms)));
        add(
            "failed",
            side.rounds
                .iter()
                .map(|round| round.bad)
                .sum::<u64>()
                .into(),
        );
    }
    for (text, side, beside) in [
        ("gateway / nginx", gateway, nginx),
        ("access log / none", logging, gateway),
        ("request ids / none", gateway, without_ids),
    ] {
        let ratio = per_cpu_second(side) / per_cpu_second(beside);
        let ratio = (ratio * 100.0).round() / 100.0;
        all.insert(format!("{text}, per CPU second"), ratio.into());
    }
    Value::Object(all)
}
