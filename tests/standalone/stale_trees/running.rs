//! A tree that runs: started, cleaned, compared with the model, and ended.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use gateway::internals::{Drainer, Owner, boot_id};
use gateway::internals::{PidFd, Stat};
use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::Programs;
use super::member::{NOBODY, Orders, Said, There, put, take};
use super::model::Who;
use super::tree::{Kind, Mood, Start, Tree, Until};
use crate::support::{port, wait};

/// Another test may have the port at one of the addresses.
const TRIES: usize = 5;

/// Some hundred processes start at once on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A tree's processes; ended when dropped, in whatever way that comes about.
struct Running<'a> {
    tree: &'a Tree,
    orders: Orders,
    home: TempDir,
    members: Vec<Option<(There, PidFd)>>,
    first: Option<Child>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Those that came up meanwhile, too.
        self.find();
        for (_, pidfd) in self.members.iter().flatten() {
            let _ = pidfd.signal(Signal::SIGKILL);
        }
        if let Some(mut first) = self.first.take() {
            let _ = first.kill();
            let _ = first.wait();
        }
    }
}

/// Runs a tree; what came of it by its words, or what was wrong.
pub fn check(programs: &Programs, tree: &Tree) -> Result<Vec<String>, String> {
    for _ in 0..TRIES {
        let mut running = Running::start(programs, tree);
        if running.up()? {
            running.record();
            let said = running.clean(programs)?;
            return running.compare(&said).map_err(|told| {
                format!(
                    "{told}\n{}\n{}\n{}",
                    said.stdout,
                    said.stderr,
                    running.log()
                )
            });
        }
    }
    Err("no free port".to_owned())
}

impl<'a> Running<'a> {
    fn start(programs: &Programs, tree: &'a Tree) -> Self {
        let home = tempfile::Builder::new().prefix("tree-").tempdir().unwrap();
        let dir = home.path().join("members");
        for (path, mode) in [
            (home.path(), 0o755),
            // As /tmp: a control socket may lie in a directory below it.
            (&dir, 0o1777),
            (&home.path().join("state"), 0o755),
        ] {
            fs::create_dir_all(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let orders = Orders {
            port: port::private(),
            members: tree.members.clone(),
            shared: tree.shared,
            caller: tree.caller,
            leaks: tree.leaks,
            gateways: [programs.gateway(false), programs.gateway(true)],
            dir,
        };
        put(&orders.dir.join("orders.json"), &orders);
        fs::set_permissions(
            orders.dir.join("orders.json"),
            fs::Permissions::from_mode(0o644),
        )
        .unwrap();
        fs::write(orders.dir.join("log"), "").unwrap();
        fs::set_permissions(orders.dir.join("log"), fs::Permissions::from_mode(0o666)).unwrap();
        let mut this = Self {
            tree,
            members: tree.members.iter().map(|_| None).collect(),
            home,
            orders,
            first: None,
        };
        this.first = Some(this.orders.start(0, None));
        this
    }

    /// Takes hold of those that are there by now.
    fn find(&mut self) {
        for (number, slot) in self.members.iter_mut().enumerate() {
            if slot.is_none()
                && let Some(there) = take::<There>(&self.orders.there(number))
                && let Ok(pidfd) = PidFd::open(there.pid)
                && Stat::read(there.pid).is_some_and(|stat| stat.start_time == there.start_time)
            {
                *slot = Some((there, pidfd));
            }
        }
    }

    /// Waits until all are what they are to be; false when the port is somebody else's.
    fn up(&mut self) -> Result<bool, String> {
        let up = wait::within(LIMIT, || {
            self.find();
            if self.orders.taken().exists() {
                return Some(false);
            }
            self.tree
                .members
                .iter()
                .zip(&self.members)
                .all(|(member, slot)| {
                    let Some(stat) = slot.as_ref().and_then(|(there, _)| Stat::read(there.pid))
                    else {
                        return false;
                    };
                    match (member.kind, member.mood) {
                        (Kind::Foreign, _) => stat.name == "sleep",
                        (_, Mood::Stopped) => stat.state == 'T',
                        _ => true,
                    }
                })
                .then_some(true)
        });
        up.ok_or_else(|| format!("the tree does not come up: {}", self.log()))
    }

    fn there(&self, number: usize) -> &There {
        &self.members[number].as_ref().unwrap().0
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.orders.dir.join("log")).unwrap_or_default()
    }

    /// Writes what is on record.
    fn record(&self) {
        let start = |number: usize, start: Start| match start {
            Start::Right => self.there(number).start_time,
            Start::Unknown => 0,
            Start::Wrong => self.there(number).start_time + 1,
        };
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap();
        let drainer = |&(number, when, until): &(usize, Start, Until)| Drainer {
            pid: self.there(number).pid,
            start_time: start(number, when),
            until_ms: match until {
                Until::Never => None,
                Until::Later => Some(now + 3_600_000),
                Until::Passed => Some(now - 1),
            },
        };
        let state = self.state();
        if let Some((owner, when)) = self.tree.owner {
            let owner = Owner {
                pid: self.there(owner).pid,
                start_time: start(owner, when),
                boot_id: if self.tree.this_boot {
                    boot_id()
                } else {
                    "of another boot".into()
                },
                port: Some(self.orders.port),
                instance: "gateway".into(),
                generation: 1,
                drainers: self.tree.drainers.iter().map(drainer).collect(),
                listeners: vec![],
                command: String::new(),
                program: String::new(),
                variables: Default::default(),
                directory: None,
                output: None,
            };
            owner.write(&state).unwrap();
        }
        if self.tree.nobodys_state {
            for path in [state.clone(), state.join("owner.json")] {
                // There may be no record.
                let _ = chown(path, Some(NOBODY), Some(NOBODY));
            }
        }
    }

    /// Has the caller run gatewayctl.
    fn clean(&self, programs: &Programs) -> Result<Said, String> {
        let pid = |number: usize| self.there(number).pid.to_string();
        let path = |path: &Path| path.display().to_string();
        let mut words = vec![
            path(&programs.ctl()),
            "--json".into(),
            "--config".into(),
            "/dev/null".into(),
        ];
        words.extend([
            "--state-dir".into(),
            path(&self.state()),
            "clean".into(),
            "--port".into(),
            self.orders.port.to_string(),
        ]);
        words.extend(self.tree.dry_run.then(|| "--dry-run".into()));
        words.extend(
            self.tree
                .protected
                .iter()
                .flat_map(|number| ["--protect".into(), pid(*number)]),
        );
        words.extend(
            self.tree
                .named
                .into_iter()
                .flat_map(|number| ["--force".into(), "--pid".into(), pid(number)]),
        );
        put(&self.orders.go(), &words);
        fs::set_permissions(self.orders.go(), fs::Permissions::from_mode(0o644)).unwrap();
        wait::within(LIMIT, || take(&self.orders.said()))
            .ok_or_else(|| format!("gatewayctl does not end: {}", self.log()))
    }

    /// Compares all that is so with what the model says.
    fn compare(&self, said: &Said) -> Result<Vec<String>, String> {
        let wanted = self.tree.outcome();
        let answer: Value =
            serde_json::from_str(&said.stdout).map_err(|error| format!("no JSON: {error}"))?;
        let report = answer.get("clean").unwrap_or(&answer);
        let who = |entry: &Value| {
            let pid = entry["pid"]
                .as_u64()
                .and_then(|pid| u32::try_from(pid).ok())?;
            let member = (0..self.members.len()).find(|number| self.there(*number).pid == pid);
            member
                .map(Who::Member)
                .or_else(|| (pid == said.ctl).then_some(Who::Ctl))
        };
        let list = |name: &str, word: &str| -> BTreeMap<Option<Who>, String> {
            let entries = report[name].as_array().into_iter().flatten();
            entries
                .map(|entry| {
                    (
                        who(entry),
                        entry[word].as_str().unwrap_or_default().to_owned(),
                    )
                })
                .collect()
        };
        let wished = |map: &BTreeMap<Who, &str>| {
            map.iter()
                .map(|(who, word)| (Some(*who), (*word).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        for (name, word, wanted) in [
            ("killed", "proof", &wanted.killed),
            ("kept", "reason", &wanted.kept),
        ] {
            let (found, wished) = (list(name, word), wished(wanted));
            if found != wished {
                return Err(format!("{name}: {found:?} instead of {wished:?}"));
            }
        }
        if (report["state"].as_str(), said.exit) != (Some(wanted.state), Some(wanted.exit)) {
            return Err(format!(
                "{} and exit {:?} instead of {} and {}",
                report["state"], said.exit, wanted.state, wanted.exit
            ));
        }
        for number in 0..self.members.len() {
            let ended = !self.tree.dry_run && wanted.killed.contains_key(&Who::Member(number));
            self.look_at(number, ended)?;
        }
        let signals = list("killed", "signal");
        for (who, signal) in &signals {
            let Some(Who::Member(number)) = who else {
                continue;
            };
            let member = &self.tree.members[*number];
            let took_kill =
                member.stubborn || member.mood == Mood::Stopped && member.kind != Kind::Foreign;
            let right = if self.tree.dry_run {
                signal.is_empty()
            } else if took_kill {
                signal == "KILL"
            } else {
                !signal.is_empty()
            };
            if !right {
                return Err(format!("member {number} took `{signal}`"));
            }
        }
        let words = wanted
            .killed
            .values()
            .chain(wanted.kept.values())
            .map(|word| (*word).to_owned());
        let dry_run = self.tree.dry_run.then(|| "dry run".to_owned());
        Ok(words
            .chain(signals.into_values().filter(|signal| !signal.is_empty()))
            .chain([wanted.state.to_owned()])
            .chain(dry_run)
            .collect())
    }

    /// Whether a member ended, or lives and never got a signal.
    fn look_at(&self, number: usize, ended: bool) -> Result<(), String> {
        let (there, pidfd) = self.members[number].as_ref().unwrap();
        let gone = poll(
            &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
            PollTimeout::ZERO,
        )
        .unwrap()
            > 0;
        if gone || ended {
            return if gone == ended {
                Ok(())
            } else {
                Err(format!(
                    "member {number} (pid {}) ended: {gone}, and not {ended}",
                    there.pid
                ))
            };
        }
        let member = &self.tree.members[number];
        let status = fs::read_to_string(format!("/proc/{}/status", there.pid)).unwrap_or_default();
        let pending = ["SigPnd:", "ShdPnd:"].map(|field| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(field))
                .map(str::trim)
        });
        let pending: Vec<&str> = pending
            .into_iter()
            .flatten()
            .filter(|set| set.chars().any(|digit| digit != '0'))
            .collect();
        let stopped = Stat::read(there.pid).is_some_and(|stat| stat.state == 'T');
        let meant = member.mood == Mood::Stopped && member.kind != Kind::Foreign;
        if !pending.is_empty() || stopped != meant {
            return Err(format!(
                "member {number} (pid {}) got a signal: {pending:?}, stopped: {stopped}",
                there.pid
            ));
        }
        Ok(())
    }
}
