//! After a restart the gateway itself asks what a client would get: the readiness request of each new
//! sidecar, through the front door. What came of it is a part of the verdict, and counts among no
//! client's.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::servers;

/// How many requests the clients make during a restart.
const REQUESTS: u64 = 20;

/// Each way to a next generation of this server: what is asked, with the line of its configuration.
const WAYS: [(&[&str], &str); 3] = [
    (&["restart"], ""),
    (&["restart", "--fresh"], ""),
    (&["restart"], "reload = { signal = \"HUP\" }"),
];

/// A gateway before a server that does with the gateway's own requests what it is told.
struct Site {
    gateway: Gateway,
    dir: tempfile::TempDir,
}

fn server(dir: &Path) -> [String; 4] {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/passages.py");
    let dir = dir.to_str().unwrap();
    ["python3", script, "{port}", dir].map(str::to_owned)
}

impl Site {
    /// With these lines for the sidecar, and these beside it.
    fn start(sidecar: &str, rest: &str) -> Option<Self> {
        if !servers::have("python3") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let command = server(dir.path());
        let log = dir.path().join("access");
        let text = format!(
            "[gateway]\naccess_log = {log:?}\n[sidecar.main]\ncommand = {command:?}\n{sidecar}\n{rest}\n"
        );
        let gateway = Setup::new().config(text).start();
        Some(Self { gateway, dir })
    }

    /// What the server does with the gateway's own requests.
    fn tell(&self, how: &str) {
        std::fs::write(self.how(), how).unwrap();
    }

    fn how(&self) -> PathBuf {
        self.dir.path().join("how")
    }

    fn restart(&self, way: &[&str]) -> (Option<i32>, Value) {
        let output = self.gateway.ctl([way, &["--json"]].concat());
        (output.status.code(), answer(&output))
    }

    /// Each request by a client of its own.
    fn ask(&self) {
        for _ in 0..REQUESTS {
            let response = block_on(client::get(&self.gateway.target(), "/")).unwrap();
            assert_eq!(response.status(), 200);
        }
    }
}

fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(output)))
}

/// The only passage, without its times.
fn passage(answer: &Value) -> Value {
    let mut passages = answer["passages"].clone();
    let passages = passages.as_array_mut().unwrap();
    assert_eq!(passages.len(), 1, "{answer}");
    let mut passage = passages.remove(0);
    passage.as_object_mut().unwrap().remove("tookMs");
    passage
}

#[test]
fn a_restart_says_what_a_client_would_get_and_counts_it_among_none() {
    for (way, sidecar) in WAYS {
        let Some(site) = Site::start(sidecar, "") else {
            return;
        };
        let (code, answer) = site.restart(way);
        assert_eq!(code, Some(0), "{answer}");
        let expected =
            json!({"sidecar": "main", "request": "HEAD /", "result": "answered", "status": 200});
        assert_eq!(passage(&answer), expected);
        assert_eq!(answer["clients"]["answered"], 0, "{answer}");
        let line = "through the front door: main answered HEAD / with 200 in ";
        site.gateway.wait_line(line);
        let said = said(&site.gateway.ctl(way));
        assert!(said.contains(line), "{said}");
        site.gateway.stop();
        let log = std::fs::read_to_string(site.dir.path().join("access")).unwrap();
        assert!(!log.contains("gateway-probe"), "{way:?}: {log}");
    }
}

#[test]
fn a_server_that_is_ready_and_gives_clients_no_answer_fails_the_restart() {
    for (how, result) in [("hang", "unanswered"), ("close", "failed")] {
        for (way, sidecar) in WAYS {
            let Some(site) = Site::start(sidecar, "") else {
                return;
            };
            site.tell(how);
            let (code, answer) = site.restart(way);
            assert_eq!(code, Some(1), "{answer}");
            assert_eq!(
                (&answer["ok"], &answer["outcome"]),
                (&json!(false), &json!("done"))
            );
            let passage = passage(&answer);
            assert_eq!(passage["result"], result, "{passage}");
            if result == "failed" {
                let why = passage["why"].as_str().unwrap();
                assert!(why.starts_with("502, 127.0.0.1:"), "{why}");
            }
            assert_eq!(answer["clients"]["failed"], json!({}), "{answer}");
            for command in ["status", "history"] {
                let text = said(&site.gateway.ctl([command]));
                let words = "through the front door: HEAD / got no answer of main";
                assert!(text.contains(words), "{command}: {text}");
            }
        }
    }
}

#[test]
fn a_server_that_answers_clients_with_500_is_told_of_and_the_restart_is_done() {
    for (way, sidecar) in WAYS {
        let Some(site) = Site::start(sidecar, "") else {
            return;
        };
        site.tell("500");
        let output = site.gateway.ctl(way);
        let text = said(&output);
        assert!(output.status.success(), "{text}");
        let words = "through the front door: main answered HEAD / with 500";
        assert!(text.contains(words), "{text}");
        let status = said(&site.gateway.ctl(["status"]));
        assert!(status.contains(words), "{status}");
    }
}

/// The requests that clients make after the switch, and before the verdict, are in it: those of a
/// successor, too.
#[test]
fn what_the_next_generation_answered_before_the_verdict_is_counted_to_the_request() {
    for (way, sidecar) in WAYS {
        let Some(site) = Site::start(sidecar, "") else {
            return;
        };
        site.tell("hang");
        let restart = site.gateway.ctl_aside([way, &["--json"]].concat());
        site.gateway.wait_line("asked HEAD / by 127.0.0.1:");
        site.ask();
        std::fs::remove_file(site.how()).unwrap();
        let output = restart.join().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let answer = answer(&output);
        assert_eq!(answer["clients"]["answered"], REQUESTS, "{way:?}: {answer}");
        assert_eq!(answer["clients"]["failed"], json!({}), "{way:?}: {answer}");
    }
}

#[test]
fn a_server_that_answers_clients_before_the_gateway_itself_fails_nothing() {
    for (way, sidecar) in WAYS {
        let Some(site) = Site::start(sidecar, "") else {
            return;
        };
        site.tell("hang");
        let restart = site.gateway.ctl_aside([way, &["--json"]].concat());
        site.gateway.wait_line("asked HEAD / by 127.0.0.1:");
        site.ask();
        let output = restart.join().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(passage(&answer(&output))["result"], "behind", "{way:?}");
    }
}

/// Also where the gateway answers clients in its place.
#[test]
fn the_path_of_ready_is_asked_for_by_a_host_that_leads_there() {
    let host = "[[route]]\nhost = \"*.example.org\"\nto = \"main\"\n";
    for (rest, asked) in [
        ("", "asked GET /readyz?full=1 by 127.0.0.1:"),
        (host, "asked GET /readyz?full=1 by www.example.org"),
    ] {
        let Some(site) = Site::start("ready = { http = \"/readyz?full=1\" }", rest) else {
            return;
        };
        let (code, answer) = site.restart(&["restart"]);
        assert_eq!(code, Some(0), "{answer}");
        assert_eq!(passage(&answer)["request"], "GET /readyz");
        assert_eq!(passage(&answer)["result"], "answered");
        site.gateway.wait_line(asked);
    }
}

#[test]
fn what_no_client_can_ask_is_not_asked_and_said_to_be() {
    let elsewhere = "[[route]]\npath = \"/api\"\nto = \"main\"\n";
    for (sidecar, rest, request, why) in [
        (
            "",
            elsewhere,
            None,
            "HEAD / is not on its routes, which is no fault",
        ),
        (
            "ready = { http = \"/up\" }",
            elsewhere,
            None,
            "GET /up is not on its routes, which is no fault",
        ),
        (
            "ready = { http = \"/api/up\" }",
            elsewhere,
            Some("GET /api/up"),
            "",
        ),
        (
            "ready = \"tcp\"",
            "",
            None,
            "its `ready` asks for no request",
        ),
    ] {
        let Some(site) = Site::start(sidecar, rest) else {
            return;
        };
        let (code, answer) = site.restart(&["restart"]);
        assert_eq!(code, Some(0), "{answer}");
        let expected = match request {
            Some(request) => {
                json!({"sidecar": "main", "request": request, "result": "answered", "status": 200})
            }
            None => json!({"sidecar": "main", "result": "not-asked", "why": why}),
        };
        assert_eq!(passage(&answer), expected);
    }
}

#[test]
fn a_reload_asks_those_that_it_restarted_and_no_others() {
    let Some(site) = Site::start("", "") else {
        return;
    };
    let (code, answer) = site.restart(&["reload"]);
    assert_eq!((code, &answer["outcome"]), (Some(0), &json!("unchanged")));
    assert_eq!(answer["passages"], Value::Null, "{answer}");
    let other = tempfile::tempdir().unwrap();
    let command = server(other.path());
    let file = site.gateway.config_file();
    let text = std::fs::read_to_string(&file).unwrap();
    let more =
        format!("[sidecar.api]\ncommand = {command:?}\n[[route]]\npath = \"/api\"\nto = \"api\"\n");
    std::fs::write(&file, format!("{text}\n{more}")).unwrap();
    let (code, answer) = site.restart(&["reload"]);
    assert_eq!(code, Some(0), "{answer}");
    let expected = json!({"sidecar": "api", "result": "not-asked", "why": "HEAD / is not on its routes, which is no fault"});
    assert_eq!(passage(&answer), expected);
}
