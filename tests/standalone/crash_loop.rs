//! A server that dies again and again, as when it eats its memory: it is started ever later, it is
//! shown, somebody is alerted, and whoever mends it does not wait.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::{servers, wait};

const FAILED: i32 = 1;

/// So many deaths make a sidecar failing.
const FAILING: usize = 5;

/// The Node server, unless the file `ill` is there, and a command that notes alerts in `alerts`.
fn setup(dir: &Path) -> Setup {
    let script = format!("[ ! -e '{}/ill' ] || exit 4; exec \"$@\"", dir.display());
    let shell = ["sh", "-c", &script, "sh"].map(str::to_owned);
    let note = format!(
        "echo \"$GATEWAY_ALERT_RUNG: $GATEWAY_ALERT_REASON\" >> '{}/alerts'",
        dir.display()
    );
    Setup::behind(shell.into_iter().chain(servers::node())).config(format!(
        "[recovery]\non_give_up = ['sh', '-c', '''{note}''']\n"
    ))
}

fn alerts(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("alerts")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Kills the server and waits until the next one is ready.
fn die(gateway: &Gateway) {
    let pid = gateway.sidecar_pid("main");
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    gateway.wait_status("the next server is ready", |status| {
        let main = &status["sidecars"][0];
        main["state"] == "ready" && main["pid"] != pid
    });
}

fn stage(gateway: &Gateway) -> String {
    gateway.status()["stage"].as_str().unwrap().to_owned()
}

#[test]
fn a_server_that_dies_for_the_fifth_time_is_failing_though_it_serves_and_somebody_is_alerted_once()
{
    if !servers::have("node") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let gateway = setup(dir.path()).start();
    for _ in 1..FAILING {
        die(&gateway);
        assert_eq!(stage(&gateway), "ready");
    }
    assert!(alerts(dir.path()).is_empty());
    die(&gateway);
    let status = gateway.ctl(["status"]);
    assert_eq!(status.status.code(), Some(FAILED), "{}", said(&status));
    assert!(
        said(&status).contains("has died 5 times"),
        "{}",
        said(&status)
    );
    for words in [
        "it serves now",
        "after 10 min of that",
        "gatewayctl recover",
    ] {
        assert!(said(&status).contains(words), "{words}: {}", said(&status));
    }
    // All of it is ready, which is what is waited for.
    let waited = gateway.ctl(["wait", "--ready", "--timeout", "20s"]);
    assert!(waited.status.success(), "{}", said(&waited));
    let get = |path: &str| block_on(client::get(&gateway.target(), path)).unwrap();
    assert_eq!(get("/").status(), 200);
    let ready = get("/readyz");
    assert_eq!(ready.status(), 200, "it serves: {}", ready.text());
    assert!(ready.text().contains("fails again"), "{}", ready.text());
    let ready = gateway.get_with_token("/readyz");
    assert!(
        ready.text().contains("has died 5 times"),
        "{}",
        ready.text()
    );
    let history = gateway.ctl(["history"]);
    let text = said(&history);
    assert!(text.contains("sidecar main failing"), "{text}");
    let log = gateway.stderr();
    let long = log.lines().find(|line| line.chars().count() > 160);
    assert_eq!(long, None, "no line is wider than a terminal");
    wait::until("an alert", || {
        (!alerts(dir.path()).is_empty()).then_some(())
    });
    die(&gateway);
    let alerts = alerts(dir.path());
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert!(
        alerts[0].starts_with("sidecar-failing: sidecar main has died 5 times"),
        "{alerts:?}"
    );
    // Somebody has looked.
    let recover = gateway.ctl(["recover"]);
    assert!(recover.status.success(), "{}", said(&recover));
    let text = said(&recover);
    assert!(
        text.contains("the earlier deaths of main no longer count"),
        "{text}"
    );
    assert_eq!(stage(&gateway), "ready");
    die(&gateway);
    assert_eq!(stage(&gateway), "ready");
}

#[test]
fn whoever_mends_a_server_that_waits_long_for_its_next_start_does_not_wait() {
    if !servers::have("node") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let gateway = setup(dir.path()).start();
    fs::write(dir.path().join("ill"), "").unwrap();
    kill(
        Pid::from_raw(gateway.sidecar_pid("main") as i32),
        Signal::SIGKILL,
    )
    .unwrap();
    let line = gateway.wait_nth_line("starting it again in ", FAILING + 1);
    let (_, wait) = line.split_once("starting it again in ").unwrap();
    let wait: u64 = wait.strip_suffix(" ms").unwrap().parse().unwrap();
    assert!(wait > 4000, "{line}");
    fs::remove_file(dir.path().join("ill")).unwrap();
    let asked = Instant::now();
    let recover = gateway.ctl(["recover"]);
    assert!(recover.status.success(), "{}", said(&recover));
    // Two lines; the break between them was shown as an escape.
    let text = said(&recover);
    assert!(
        text.contains("\n  next: gatewayctl wait") && !text.contains("\\n"),
        "{text}"
    );
    let got = block_on(client::get(&gateway.target(), "/")).unwrap();
    assert_eq!(got.status(), 200, "{}", got.text());
    let took = asked.elapsed();
    assert!(took < Duration::from_millis(wait), "{took:?} of {wait} ms");
    assert_eq!(stage(&gateway), "ready");
}

/// A control group with little memory, removed again.
struct Small(PathBuf);

impl Small {
    /// None without the right to make one or a limit to set.
    fn new() -> Option<Self> {
        let list = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        list.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let root = match controllers {
                "" => "/sys/fs/cgroup",
                "memory" => "/sys/fs/cgroup/memory",
                _ => return None,
            };
            let name = format!("gateway-crash-loop-{}", std::process::id());
            let dir = Path::new(&format!("{root}{path}")).join(name);
            fs::create_dir(&dir).ok()?;
            let group = Self(dir);
            let limits = ["memory.max", "memory.limit_in_bytes"].map(|name| group.0.join(name));
            let limit = limits.iter().find(|file| file.exists())?;
            fs::write(limit, "268435456").ok()?;
            Some(group)
        })
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_server_that_dies_for_want_of_memory_is_named_the_first_time() {
    if !servers::have("node") {
        return;
    }
    let Some(group) = Small::new() else {
        println!("skipped: no control group with a limit on memory can be made here");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let hungry = dir.path().join("hungry");
    let script = format!(
        "if [ -e '{0}' ]; then rm '{0}'; exec tail /dev/zero; fi; exec \"$@\"",
        hungry.display()
    );
    let shell = ["sh", "-c", &script, "sh"].map(str::to_owned);
    let gateway = Setup::behind(shell.into_iter().chain(servers::node())).start();
    fs::write(group.0.join("cgroup.procs"), gateway.pid().to_string()).unwrap();
    fs::write(&hungry, "").unwrap();
    die(&gateway);
    assert!(!hungry.exists());
    let text = said(&gateway.ctl(["status"]));
    assert!(text.contains("because memory ran out"), "{text}");
    let text = said(&gateway.ctl(["history"]));
    assert!(text.contains("sidecar main out of memory"), "{text}");
}
