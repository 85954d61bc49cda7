//! Sessions that live in the memory of the copy that made them, as those of socket.io do.

use std::fs;
use std::time::Duration;

use crate::support::client::{self, Conn, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::{servers, wait};

/// Where the value of a session is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Cookie,
    Query,
}

impl Place {
    fn key(self) -> &'static str {
        match self {
            Self::Cookie => "cookie = \"io\"",
            Self::Query => "query = \"sid\"",
        }
    }

    /// The head of a request of a session.
    fn request(self, method: &str, session: &str) -> String {
        let (target, cookie) = match self {
            Self::Cookie => ("/".to_owned(), format!("Cookie: a=1; io={session}\r\n")),
            Self::Query => (format!("/?EIO=4&sid={session}"), String::new()),
        };
        format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{cookie}Content-Length: 0\r\n")
    }
}

/// A gateway before the server of sessions.
struct Site {
    gateway: Gateway,
    place: Place,
    dir: tempfile::TempDir,
}

/// A session, and the process that made it.
struct Session {
    value: String,
    pid: u32,
}

impl Site {
    fn start(place: Place, sticky: &str, setup: Setup) -> Option<Self> {
        if !servers::have("python3") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/sessions.py");
        let command = ["python3", script, "{port}", dir.path().to_str().unwrap()];
        let text = format!("[sidecar.main]\ncommand = {command:?}\n{sticky}\n");
        let gateway = setup.config(text).start();
        Some(Self {
            gateway,
            place,
            dir,
        })
    }

    /// With `sticky` and this time of silence.
    fn sticky(place: Place, idle: &str, setup: Setup) -> Option<Self> {
        let sticky = format!("sticky = {{ {}, idle = \"{idle}\" }}", place.key());
        Self::start(place, &sticky, setup)
    }

    fn begin_session(&self) -> Session {
        let answer = block_on(client::get(&self.gateway.target(), "/")).unwrap();
        let text = answer.text();
        let json: serde_json::Value = serde_json::from_str(&text[1..]).unwrap();
        let pid = json["pid"].as_str().unwrap().parse().unwrap();
        let value = json["sid"].as_str().unwrap().to_owned();
        Session { value, pid }
    }

    /// Asks with the value of a session: the status, and the process that answered.
    fn ask(&self, method: &str, value: &str) -> (u16, u32) {
        let text = self.place.request(method, value) + "Connection: close\r\n\r\n";
        let answer = block_on(client::request(&self.gateway.target(), &text)).unwrap();
        (answer.status(), answer.text().parse().unwrap_or_default())
    }
}

/// Before, during and after the drain of the copy that made it.
fn a_session_stays(place: Place) {
    let Some(site) = Site::sticky(place, "2s", Setup::new()) else {
        return;
    };
    let kept = site.begin_session();
    let old = site.gateway.sidecar_pid("main");
    assert_eq!(kept.pid, old);
    assert_eq!(site.ask("GET", &kept.value), (200, old));
    // Nobody asked for it before the restart.
    let fresh = site.begin_session();
    site.gateway.restart();
    let new = site.gateway.sidecar_pid("main");
    assert_ne!(new, old);
    for session in [&kept, &fresh] {
        for method in ["GET", "POST"] {
            assert_eq!(site.ask(method, &session.value), (200, old), "{method}");
        }
    }
    assert_eq!(site.ask("GET", "made-up"), (400, new));
    let next = site.begin_session();
    assert_eq!(next.pid, new);
    assert_eq!(site.ask("POST", &next.value), (200, new));
    let status = site.gateway.status();
    let blockers = status["drainers"][0]["blockers"].to_string();
    assert!(
        blockers.contains("main: its sessions, unless none asks within"),
        "{blockers}"
    );

    let through = block_on(client::within(wait::DEADLINE, async {
        let mut conn = Conn::open(&site.gateway.target()).await?;
        let upgrade = "Connection: Upgrade\r\nUpgrade: told\r\n\r\n";
        conn.send(site.place.request("GET", &kept.value) + upgrade)
            .await?;
        assert_eq!(conn.head().await?.status(), 101);
        conn.line().await
    }));
    assert_eq!(through.unwrap(), old.to_string(), "a tunnel of the session");

    // Nobody asks any more.
    site.gateway.wait_line("generation 1 is gone after ");
    assert_eq!(site.ask("GET", &kept.value), (400, new));
    assert_eq!(site.ask("GET", &next.value), (200, new));
}

#[test]
fn a_session_of_a_cookie_stays_with_its_copy_while_that_drains() {
    a_session_stays(Place::Cookie);
}

#[test]
fn a_session_of_a_query_parameter_stays_with_its_copy_while_that_drains() {
    a_session_stays(Place::Query);
}

/// socket.io by polling alone: each restart ended its session at once.
#[test]
fn without_sticky_a_session_is_lost_at_once() {
    let Some(site) = Site::start(Place::Query, "", Setup::new()) else {
        return;
    };
    let session = site.begin_session();
    site.gateway.restart();
    let new = site.gateway.sidecar_pid("main");
    assert_eq!(site.ask("GET", &session.value), (400, new));
}

/// It asks again and again: the drain ends all the same.
#[test]
fn a_session_that_never_rests_goes_to_the_new_copy_at_the_end_of_the_drain() {
    let setup = Setup::new().env("GATEWAY_RESTART_DRAIN", "2s");
    let Some(site) = Site::sticky(Place::Query, "30s", setup) else {
        return;
    };
    let session = site.begin_session();
    site.gateway.restart();
    let new = site.gateway.sidecar_pid("main");
    let mut stayed = 0;
    let end = wait::until("the drain ends", || {
        let answer = site.ask("GET", &session.value);
        stayed += u32::from(answer == (200, session.pid));
        (answer != (200, session.pid)).then_some(answer)
    });
    assert_eq!(end, (400, new));
    assert!(stayed > 5, "{stayed}");
    let gone = site.gateway.gone_after(1);
    assert!(gone >= Duration::from_secs(1), "{gone:?}");
}

/// Those of the requests for /.
fn generations_in_log(log: &str) -> Vec<u64> {
    let begins = |line: &'_ str| line.find('{').map(|at| line[at..].to_owned());
    let entries = log.lines().filter_map(begins);
    let entries = entries.filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
    let of_server = entries.filter(|entry| entry["path"] == "/" && entry["sidecar"] == "main");
    of_server
        .filter_map(|entry| entry["generation"].as_u64())
        .collect()
}

/// Two restarts, three copies: each session stays with its own.
#[test]
fn sessions_of_two_older_copies_stay_with_theirs_and_force_ends_them() {
    let log = Setup::new().config("[gateway]\naccess_log = \"stderr\"\n");
    let Some(site) = Site::sticky(Place::Cookie, "30s", log) else {
        return;
    };
    let first = site.begin_session();
    site.gateway.restart();
    let second = site.begin_session();
    site.gateway.restart();
    let third = site.begin_session();
    for session in [&first, &second, &third] {
        assert_eq!(site.ask("GET", &session.value), (200, session.pid));
    }
    assert_ne!(first.pid, second.pid);
    // Each line names the generation whose copy answered.
    wait::until("they are in the log", || {
        let generations = generations_in_log(&site.gateway.stderr());
        (generations == [1, 2, 3, 1, 2, 3]).then_some(())
    });
    let forced = site.gateway.ctl(["restart", "--force"]);
    assert!(forced.status.success(), "{}", said(&forced));
    let new = site.gateway.sidecar_pid("main");
    assert_eq!(site.ask("GET", &third.value), (400, new));
}

/// The new copy dies while the old one still has its sessions: they never noticed.
#[test]
fn sessions_outlive_a_restart_whose_new_copy_dies() {
    let setup = Setup::new().env("GATEWAY_RESTART_WATCH", "200s");
    let Some(site) = Site::sticky(Place::Query, "30s", setup) else {
        return;
    };
    let session = site.begin_session();
    site.gateway.restart();
    let new = site.gateway.sidecar_pid("main");
    assert_eq!(site.ask("GET", &session.value), (200, session.pid));
    fs::write(site.dir.path().join(new.to_string()), "").unwrap();
    let _ = block_on(client::get(&site.gateway.target(), "/"));
    site.gateway.wait_line("generation 1 serves on");
    assert_eq!(site.ask("GET", &session.value), (200, session.pid));
    assert_eq!(site.begin_session().pid, session.pid);
}
