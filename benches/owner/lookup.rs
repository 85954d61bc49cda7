//! The holder of a port among so many other processes.

use std::hint::black_box;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use gateway::internals::Listen;
use gateway::internals::{Depth, port_holders};
use serde_json::{Map, Value, json};

use super::middle;
use super::support::gateway::ctl_in;
use super::support::skip;

const CROWDS: [usize; 3] = [10, 1_000, 5_000];

/// Processes that do nothing; ended when dropped, and by themselves after an hour.
struct Crowd(Vec<Child>);

impl Crowd {
    fn grow(&mut self, count: usize) {
        while self.0.len() < count {
            self.0.push(idle(Stdio::null()));
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

fn idle(stdin: Stdio) -> Child {
    Command::new("sleep")
        .arg("3600")
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

pub fn measure(quick: bool) -> Value {
    if !["lsof", "ss", "fuser"]
        .iter()
        .all(|program| skip::unless_there(program))
    {
        return json!({"skipped": "lsof, ss and fuser are needed"});
    }
    let rounds = if quick { 5 } else { 21 };
    let mut crowd = Crowd(Vec::new());
    let mut all = Map::new();
    for count in CROWDS {
        // Half of them are older than the holder, half younger.
        crowd.grow(count / 2);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = Listen::Tcp(listener.local_addr().unwrap());
        let port = listen.port().unwrap();
        let holder = idle(Stdio::from(OwnedFd::from(listener)));
        let pid = holder.id();
        crowd.0.push(holder);
        crowd.grow(count + 1);
        let state = tempfile::tempdir().unwrap();
        let ours = |likely: &[u32]| {
            assert_eq!(
                black_box(port_holders(&listen, likely, Depth::First)).len(),
                1
            )
        };
        let run = |command: &mut Command| {
            let output = command.stdin(Stdio::null()).output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            assert!(
                String::from_utf8_lossy(&said).contains(&pid.to_string()),
                "{command:?}: {}",
                String::from_utf8_lossy(&said)
            );
        };
        let at = format!("sport = :{port}");
        let ways: [(&str, &dyn Fn()); 6] = [
            ("own port", &|| ours(&[pid])),
            ("any port", &|| ours(&[])),
            ("gatewayctl clean --dry-run", &|| {
                run(ctl_in(state.path()).args([
                    "--config",
                    "/dev/null",
                    "clean",
                    "--dry-run",
                    "--port",
                    &port.to_string(),
                ]));
            }),
            ("lsof", &|| {
                run(Command::new("lsof").args([
                    "-nP",
                    &format!("-iTCP:{port}"),
                    "-sTCP:LISTEN",
                    "-t",
                ]))
            }),
            ("ss", &|| run(Command::new("ss").args(["-Hltnp", &at]))),
            ("fuser", &|| {
                run(Command::new("fuser").arg(format!("{port}/tcp")))
            }),
        ];
        let mut times = ways.map(|_| Vec::new());
        for _ in 0..rounds {
            for ((_, way), times) in ways.iter().zip(&mut times) {
                let begun = Instant::now();
                way();
                times.push(begun.elapsed().as_secs_f64() * 1000.0);
            }
        }
        let middles = times.map(|mut times| middle(&mut times));
        for ((name, _), middle) in ways.iter().zip(middles) {
            all.insert(
                format!("{count} others: {name}, ms"),
                json!((middle * 1000.0).round() / 1000.0),
            );
        }
        let [own, any, _, lsof, ss, _] = middles;
        all.insert(
            format!("{count} others: lsof / own port"),
            json!((lsof / own).round()),
        );
        all.insert(
            format!("{count} others: ss / any port"),
            json!((ss / any * 10.0).round() / 10.0),
        );
    }
    Value::Object(all)
}
