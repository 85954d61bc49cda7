//! Another program for a job of launchd, and why one ended, with the simulator in `tests/launchd-sim`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use crate::launchd_daemons::{USER, boot};
use crate::launchd_doctor::codes;
use crate::launchd_gateway::under_load;
use crate::mac::{Mac, some_calls};
use crate::support::site::all_of;
use crate::support::wait;

/// How long a front door is waited for that nobody says has failed.
const NEXT_LIFE: Duration = Duration::from_secs(60);

/// An agent or a daemon whose two programs are in a folder of their own, so that they may be replaced.
struct Programs {
    dir: PathBuf,
    scope: &'static str,
    domain: &'static str,
}

/// Runs a test with an agent that is installed, and with a daemon where this user may install one.
fn in_each_scope(switches: &[&str], test: impl Fn(&Mac, &Programs)) {
    let daemon: &[&str] = &["--run-as", USER];
    for (mac, scope, domain, more) in [
        (Mac::boot(switches), "--user", "gui", &[][..]),
        (boot(switches), "--system", "system", daemon),
    ] {
        let Some(mac) = mac else { continue };
        let programs = Programs::copy(&mac, scope, domain);
        mac.install_by(|line| programs.must(&mac, line), more);
        test(&mac, &programs);
    }
}

impl Programs {
    fn copy(mac: &Mac, scope: &'static str, domain: &'static str) -> Self {
        let dir = mac.root().join("programs");
        fs::create_dir_all(&dir).unwrap();
        for (name, built) in [
            ("gateway", env!("CARGO_BIN_EXE_gateway")),
            ("gatewayctl", env!("CARGO_BIN_EXE_gatewayctl")),
        ] {
            fs::copy(built, dir.join(name)).unwrap();
        }
        Self { dir, scope, domain }
    }

    fn gateway(&self) -> PathBuf {
        self.dir.join("gateway")
    }

    /// Another version: its bytes differ.
    fn next(&self) -> PathBuf {
        let next = self.dir.join("next");
        let mut bytes = fs::read(self.gateway()).unwrap();
        bytes.extend(b"next");
        fs::write(&next, bytes).unwrap();
        fs::set_permissions(&next, fs::metadata(self.gateway()).unwrap().permissions()).unwrap();
        next
    }

    fn ctl(&self, mac: &Mac, args: &[&str]) -> Output {
        mac.run(
            &self.dir.join("gatewayctl"),
            &[&[self.scope], args].concat(),
        )
    }

    fn pid(&self, mac: &Mac) -> i32 {
        mac.pid(self.domain).unwrap()
    }

    fn found(&self, mac: &Mac) -> Vec<String> {
        codes(&self.ctl(mac, &["doctor", "--json"]))
    }

    fn must(&self, mac: &Mac, args: &[&str]) -> String {
        let output = self.ctl(mac, args);
        assert!(output.status.success(), "{args:?}: {}", all_of(&output));
        all_of(&output)
    }
}

fn runs(pid: i32, program: &Path) -> bool {
    let facts = |path: &Path| {
        fs::metadata(path)
            .map(|facts| (facts.dev(), facts.ino()))
            .ok()
    };
    facts(Path::new(&format!("/proc/{pid}/exe"))) == facts(program)
}

#[test]
fn an_update_of_a_job_is_a_new_file_and_an_exit_and_no_client_is_refused() {
    in_each_scope(&[], |mac, programs| {
        let before = programs.pid(mac);
        let next = programs.next();
        let (failed, good) = under_load(mac.port, || {
            let said = programs.must(mac, &["update", next.to_str().unwrap()]);
            assert!(said.contains("updated: gateway"), "{said}");
        });
        assert_eq!(failed, 0, "of {good}");
        let after = programs.pid(mac);
        assert!(after != before && runs(after, &programs.gateway()));
        assert_eq!(
            fs::read(programs.gateway()).unwrap(),
            fs::read(&next).unwrap()
        );
    });
}

/// launchd may start nothing but the program that it saw at the load: then it has to load the job anew.
#[test]
fn an_update_of_a_job_whose_identity_is_noted_loads_it_anew() {
    for pinned in ["pinned=1", "pinned=2"] {
        in_each_scope(&[pinned], |mac, programs| {
            let before = programs.pid(mac);
            let next = programs.next();
            let said = programs.must(mac, &["update", next.to_str().unwrap()]);
            assert!(said.contains("the job is loaded anew"), "{pinned}: {said}");
            let after = programs.pid(mac);
            assert!(
                after != before && runs(after, &programs.gateway()),
                "{said}"
            );

            // Put in place by hand: the gateway does not exit into a start that is refused.
            fs::rename(programs.next(), programs.gateway()).unwrap();
            let status = programs.must(mac, &["status"]);
            assert!(
                status.contains("in-process: the program was replaced"),
                "{status}"
            );
            assert_eq!(programs.found(mac), ["job-identity"]);
            let pid = programs.pid(mac);
            let said = programs.must(mac, &["restart"]);
            assert!(said.contains("restart --force"), "{said}");
            assert_eq!(programs.pid(mac), pid, "nobody is refused for it");
            let said = programs.must(mac, &["restart", "--force"]);
            assert!(said.contains("the job is loaded anew"), "{said}");
            assert!(runs(programs.pid(mac), &programs.gateway()));
            assert!(mac.serves() && programs.found(mac).is_empty());
        });
    }
}

/// It passes the checks and ends at once as a service.
fn broken(programs: &Programs) -> PathBuf {
    let file = programs.dir.join("broken");
    let text = format!(
        "#!/bin/sh\ncase $1 in --version|check) exec {} \"$@\";; esac\necho no >&2; exit 9\n",
        env!("CARGO_BIN_EXE_gateway")
    );
    fs::write(&file, text).unwrap();
    fs::set_permissions(
        &file,
        fs::metadata(programs.gateway()).unwrap().permissions(),
    )
    .unwrap();
    file
}

#[test]
fn an_update_of_a_job_that_fails_is_taken_back() {
    for pinned in ["pinned=0", "pinned=1"] {
        in_each_scope(&[pinned], |mac, programs| {
            let (before, text) = (programs.pid(mac), fs::read(programs.gateway()).unwrap());
            let file = broken(programs);
            let begun = Instant::now();
            let output = programs.ctl(mac, &["update", file.to_str().unwrap()]);
            let said = all_of(&output);
            assert_eq!(output.status.code(), Some(1), "{pinned}: {said}");
            assert!(said.contains("exited with code 9"), "{pinned}: {said}");
            assert!(said.contains("runs it and serves"), "{pinned}: {said}");
            assert!(fs::read(programs.gateway()).unwrap() == text, "{pinned}");
            let after = programs.pid(mac);
            assert!(
                after != before && runs(after, &programs.gateway()),
                "{said}"
            );
            assert!(mac.serves());
            assert!(begun.elapsed() < NEXT_LIFE, "{pinned}: {said}");
        });
    }
}

/// A job that was unloaded for it must not stay so: the next command ends with a job that is loaded and serves.
#[test]
fn an_update_that_was_killed_does_not_leave_the_job_unloaded() {
    in_each_scope(&["pinned=1"], |mac, programs| {
        for calls in some_calls(6) {
            let next = programs.next();
            mac.launchctl(&["simulate", &format!("kill_after={calls}")]);
            let output = programs.ctl(mac, &["update", next.to_str().unwrap()]);
            mac.launchctl(&["simulate", "kill_after=0"]);
            if let Some(code) = output.status.code() {
                assert_eq!(code, 0, "{}", all_of(&output));
                assert!(calls > 5, "it makes more than {calls} calls");
                return;
            }
            programs.ctl(mac, &["status"]);
            wait::until("the job is loaded and serves", || {
                (mac.pid(programs.domain).is_some() && mac.serves()).then_some(())
            });
        }
    });
}
