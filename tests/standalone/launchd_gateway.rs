//! A gateway that launchd runs: what it knows of its job, its restart by exit, and its end. The launchd is the
//! simulator in `tests/launchd-sim`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::mac::Mac;
use crate::support::site::all_of;
use crate::support::wait;

/// A job that somebody else wrote.
const LABEL: &str = "com.acme.api";

/// The longest that a client may wait while a young gateway restarts: far below the rest of the throttle interval,
/// which is some 8 s. It is 0.1 s on a busy machine and was 1.4 s on a starved one.
const STALL: Duration = Duration::from_secs(5);

/// What a client of the load rests between two requests, so that it leaves the CPUs to the other tests.
const PACE: Duration = Duration::from_millis(4);

/// It answers a path of its own after so many seconds, and others at once.
const SERVER: &str = "import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith('/slow'):
            print('a slow one has begun', flush=True)
            time.sleep(60)
        self.send_response(200); self.send_header('Content-Length', '2'); self.end_headers(); self.wfile.write(b'ok')
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
";

/// Writes the property list of a foreign job and has launchd load it.
fn load(mac: &Mac, keys: &str) -> PathBuf {
    let (home, port) = (mac.home(), mac.port);
    let server = home.join("server.py");
    std::fs::write(&server, SERVER).unwrap();
    let state = home.join("state");
    let listen = format!("127.0.0.1:{port}");
    let words = [
        env!("CARGO_BIN_EXE_gateway"),
        "run",
        "--state-dir",
        state.to_str().unwrap(),
        "--listen",
        &listen,
        "--",
        "python3",
        server.to_str().unwrap(),
        "{port}",
    ];
    let words: String = words
        .iter()
        .map(|word| format!("<string>{word}</string>"))
        .collect();
    let log = home.join("gateway.log");
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><plist version=\"1.0\"><dict>\
         <key>Label</key><string>{LABEL}</string><key>ProgramArguments</key><array>{words}</array>\
         <key>StandardErrorPath</key><string>{}</string><key>RunAtLoad</key><true/>{keys}</dict></plist>",
        log.display()
    );
    let plist = home.join(format!("{LABEL}.plist"));
    std::fs::write(&plist, text).unwrap();
    let domain = format!("gui/{}", geteuid());
    let loaded = mac.launchctl(&["bootstrap", &domain, plist.to_str().unwrap()]);
    assert!(loaded.status.success(), "{}", all_of(&loaded));
    log
}

fn sockets(mac: &Mac) -> String {
    format!(
        "<key>Sockets</key><dict><key>gateway</key><array><dict><key>SockFamily</key><string>IPv4</string>\
         <key>SockNodeName</key><string>127.0.0.1</string><key>SockServiceName</key><string>{}</string></dict></array></dict>",
        mac.port
    )
}

fn print(mac: &Mac) -> String {
    let target = format!("gui/{}/{LABEL}", geteuid());
    String::from_utf8(mac.launchctl(&["print", &target]).stdout).unwrap()
}

fn number(print: &str, key: &str) -> Option<u32> {
    let line = print
        .lines()
        .find_map(|line| line.strip_prefix(&format!("\t{key} = ")))?;
    line.parse().ok()
}

fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn ready(mac: &Mac) {
    wait::until("it is ready", || {
        let answer = get(mac.port, "/readyz").ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    });
}

/// What two clients saw that asked without a pause.
pub struct Seen {
    pub failed: u32,
    pub good: u32,
    /// The longest that one of them waited for its answer.
    pub longest: Duration,
}

/// Asks while `work` runs.
pub fn seen_under_load(port: u16, work: impl FnOnce()) -> Seen {
    let stop = AtomicBool::new(false);
    let ask = || {
        let mut seen = Seen {
            failed: 0,
            good: 0,
            longest: Duration::ZERO,
        };
        while !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let answer = get(port, "/");
            seen.longest = seen.longest.max(begun.elapsed());
            match answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                true => seen.good += 1,
                false => seen.failed += 1,
            }
            wait::pause(PACE);
        }
        seen
    };
    std::thread::scope(|scope| {
        let clients = [(); 2].map(|()| scope.spawn(ask));
        // A panic must end them, too.
        let done = std::panic::catch_unwind(AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = done {
            resume_unwind(panic);
        }
        let [one, other] = clients.map(|client| client.join().unwrap());
        Seen {
            failed: one.failed + other.failed,
            good: one.good + other.good,
            longest: one.longest.max(other.longest),
        }
    })
}

/// How often it was not answered with 200 while `work` ran, and how often it was.
pub fn under_load(port: u16, work: impl FnOnce()) -> (u32, u32) {
    let seen = seen_under_load(port, work);
    (seen.failed, seen.good)
}

/// Restarts by exit under load, each into a process that launchd starts.
fn relaunches(count: u32) {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    let first = mac.pid("gui");
    let seen = seen_under_load(mac.port, || {
        for _ in 0..count {
            mac.must(&["restart"]);
        }
    });
    let (good, longest) = (seen.good, seen.longest);
    println!(
        "{count} relaunches: {} failed of {good}, longest wait {longest:?}",
        seen.failed
    );
    assert_eq!(seen.failed, 0, "of {good}");
    assert_ne!(mac.pid("gui"), first);
    let runs = mac.print("gui").and_then(|print| number(&print, "runs"));
    assert_eq!(runs, Some(count + 1), "each was a start of launchd's");
}

#[test]
fn launchd_starts_the_next_process_ten_times_and_no_client_is_refused() {
    relaunches(10);
}

#[test]
#[ignore = "it takes minutes: a hundred of the ten that the suite runs"]
fn launchd_starts_the_next_process_a_hundred_times_and_no_client_is_refused() {
    relaunches(100);
}

#[test]
fn a_restart_exits_launchd_starts_the_next_and_no_client_is_refused() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    let status = mac.must(&["status"]);
    assert!(
        status.contains("exit: launchd holds the listeners and starts the next one"),
        "{status}"
    );
    let mut pids = vec![mac.pid("gui").unwrap()];
    let (failed, good) = under_load(mac.port, || {
        for _ in 0..3 {
            mac.must(&["restart"]);
            pids.push(mac.pid("gui").unwrap());
        }
    });
    assert_eq!(failed, 0, "of {good}");
    assert!(good > 0);
    pids.dedup();
    assert_eq!(pids.len(), 4, "each time another process: {pids:?}");
    let history = mac.must(&["history"]);
    assert!(!history.contains("crash"), "{history}");
}

#[test]
fn a_young_gateway_serves_until_launchd_starts_the_next_at_once() {
    let Some(mac) = Mac::boot(&[]) else { return };
    let keys = "<key>KeepAlive</key><true/><key>ThrottleInterval</key><integer>10</integer>";
    load(&mac, &(keys.to_owned() + &sockets(&mac)));
    ready(&mac);
    let before = number(&print(&mac), "pid");
    let state = mac.home().join("state");
    let seen = seen_under_load(mac.port, || {
        mac.must(&["restart", "--state-dir", state.to_str().unwrap()]);
    });
    assert_eq!(seen.failed, 0, "of {}", seen.good);
    assert!(seen.longest < STALL, "{:?}", seen.longest);
    let after = print(&mac);
    assert_ne!(number(&after, "pid"), before, "{after}");
    assert_eq!(
        number(&after, "simulated throttled starts"),
        Some(0),
        "launchd never had to wait with a start: {after}"
    );
}

#[test]
fn a_job_that_does_not_come_back_or_holds_nothing_restarts_in_its_process() {
    for (keys, held, why) in [
        (
            "<key>KeepAlive</key><true/>",
            false,
            "launchd does not hold the listeners",
        ),
        (
            "<key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>",
            true,
            "launchd does not hold the listeners",
        ),
    ] {
        let Some(mac) = Mac::boot(&[]) else { return };
        let held = if held { sockets(&mac) } else { String::new() };
        load(&mac, &(keys.to_owned() + &held));
        ready(&mac);
        let before = number(&print(&mac), "pid");
        let state = mac.home().join("state");
        let state = ["--state-dir", state.to_str().unwrap()];
        wait::until("it knows its job", || {
            let status = mac.must(&[&["status"][..], &state].concat());
            status.contains(why).then_some(())
        });
        let (failed, good) = under_load(mac.port, || {
            mac.must(&[&["restart"][..], &state].concat());
        });
        assert_eq!(failed, 0, "of {good}");
        assert_eq!(number(&print(&mac), "pid"), before);
    }
}

#[test]
fn a_stop_ends_within_the_exit_timeout_of_the_job_itself() {
    let Some(mac) = Mac::boot(&[]) else { return };
    let keys = "<key>KeepAlive</key><true/><key>ThrottleInterval</key><integer>1</integer>\
                <key>ExitTimeOut</key><integer>8</integer>";
    let log = load(&mac, &(keys.to_owned() + &sockets(&mac)));
    ready(&mac);
    let state = mac.home().join("state");
    wait::until("it knows its job", || {
        let status = mac.must(&["status", "--state-dir", state.to_str().unwrap()]);
        status.contains("exit: launchd holds").then_some(())
    });
    let port = mac.port;
    let slow = std::thread::spawn(move || get(port, "/slow"));
    wait::until("the request is under way", || {
        let said = std::fs::read_to_string(&log).ok()?;
        said.contains("a slow one has begun").then_some(())
    });
    let target = format!("gui/{}/{LABEL}", geteuid());
    let killed = mac.launchctl(&["kickstart", "-k", &target]);
    assert!(killed.status.success(), "{}", all_of(&killed));
    let after = print(&mac);
    assert!(
        after.contains("last exit code = ") && !after.contains("last terminating signal"),
        "it ended before launchd killed it: {after}"
    );
    drop(slow.join());
    let said = std::fs::read_to_string(log).unwrap();
    assert!(said.contains("cutting GET /slow"), "{said}");
}

/// launchd gives 256, which ends a gateway with a hundred clients.
#[test]
fn the_gateway_of_a_job_raises_the_limit_of_files_that_launchd_gives() {
    let Some(mac) = Mac::boot(&[]) else { return };
    mac.must_install(&[]);
    let limit = |pid: &str| {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let words: Vec<&str> = line.unwrap().split_whitespace().collect();
        (words[3].to_owned(), words[4].to_owned())
    };
    let (soft, hard) = limit(&mac.pid("gui").unwrap().to_string());
    assert_eq!(soft, hard);
    assert_ne!(soft, "256");
    let server = limit(&mac.server("gui"));
    assert_eq!(
        server,
        ("256".to_owned(), hard),
        "what servers were given is theirs"
    );
}

/// The manual of launchd does not say what 0 means: older systems started at once, newer ones take it for unset.
#[test]
fn a_job_with_a_throttle_of_zero_restarts_without_a_loss_whatever_that_means() {
    for (switch, throttle) in [("throttle_zero=0", 10), ("throttle_zero=1", 0)] {
        let Some(mac) = Mac::boot(&[switch]) else {
            return;
        };
        let keys = "<key>KeepAlive</key><true/><key>ThrottleInterval</key><integer>0</integer>";
        load(&mac, &(keys.to_owned() + &sockets(&mac)));
        ready(&mac);
        let before = print(&mac);
        assert_eq!(number(&before, "minimum runtime"), Some(throttle));
        let state = mac.home().join("state");
        let seen = seen_under_load(mac.port, || {
            mac.must(&["restart", "--state-dir", state.to_str().unwrap()]);
        });
        assert_eq!(seen.failed, 0, "{switch}: of {}", seen.good);
        let after = print(&mac);
        assert_ne!(number(&after, "pid"), number(&before, "pid"), "{after}");
        let waited = number(&after, "simulated throttled starts");
        assert_eq!(waited, Some(0), "{switch}: {after}");
    }
}

/// What launchd does to some jobs: it asks for the interval that counts now, not for the one that was written.
#[test]
fn a_restart_after_crashes_that_doubled_the_throttle_waits_for_the_live_one() {
    let Some(mac) = Mac::boot(&["exponential=1"]) else {
        return;
    };
    let keys = "<key>KeepAlive</key><true/><key>ThrottleInterval</key><integer>2</integer>";
    load(&mac, &(keys.to_owned() + &sockets(&mac)));
    ready(&mac);
    // Beyond those that it forgives.
    for _ in 0..4 {
        let pid = number(&print(&mac), "pid");
        let gateway = Pid::from_raw(i32::try_from(pid.unwrap()).unwrap());
        kill(gateway, Signal::SIGKILL).unwrap();
        wait::until("launchd starts the next", || {
            number(&print(&mac), "pid").filter(|now| Some(*now) != pid)
        });
    }
    ready(&mac);
    let before = print(&mac);
    assert_eq!(number(&before, "minimum runtime"), Some(4), "{before}");
    let throttled = number(&before, "simulated throttled starts");
    let state = mac.home().join("state");
    let seen = seen_under_load(mac.port, || {
        mac.must(&["restart", "--state-dir", state.to_str().unwrap()]);
    });
    assert_eq!(seen.failed, 0, "of {}", seen.good);
    let after = print(&mac);
    assert_ne!(number(&after, "pid"), number(&before, "pid"), "{after}");
    assert_eq!(
        number(&after, "simulated throttled starts"),
        throttled,
        "launchd did not have to wait: {after}"
    );
    assert_eq!(number(&after, "minimum runtime"), Some(2), "{after}");
}
