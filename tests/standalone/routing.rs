//! Which server gets a request, however its host and its path are spelled, and what becomes of one that
//! comes back.

use std::process::Command;
use std::sync::Mutex;

use crate::support::client::{Conn, get};
use crate::support::client::{Target, block_on, request};
use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::Recorder;
use crate::support::upstream::{Upstream, receive};
use crate::support::{port, servers};

/// The status and the body of a request with this target and these fields.
fn ask(target: &Target, path: &str, fields: &str) -> (u16, String) {
    let text = format!("GET {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    let answer = block_on(request(target, &text)).unwrap();
    (answer.status(), answer.text())
}

fn named(name: &'static str) -> Recorder {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
        name.len()
    );
    Recorder::answering(move |_| answer.clone().into_bytes())
}

#[test]
fn every_spelling_of_a_path_and_a_host_meets_its_rule_and_is_forwarded_as_it_came() {
    let (root, jobs, admin) = (named("root"), named("jobs"), named("admin"));
    let gateway = Setup::upstream(root.addr())
        .config(format!(
            "[[route]]\npath = \"/jobs\"\nto = \"http://{}\"\n\
             [[route]]\nhost = \"admin.example.org\"\nto = \"http://{}\"\n",
            jobs.addr(),
            admin.addr()
        ))
        .start();
    let spellings = [
        "/jobs",
        "/jobs/7?x=/../y",
        "//jobs",
        "/%6aobs",
        "/%6Aobs/7",
        "/x/../jobs",
        "/x/%2e%2e/jobs",
        "/./jobs",
        "/x/..%2fjobs",
        "/../jobs",
    ];
    for path in spellings {
        let told = ask(&gateway.target(), path, "Host: h\r\n");
        assert_eq!(told, (200, "jobs".to_owned()), "{path}");
    }
    let seen: Vec<String> = jobs
        .seen()
        .iter()
        .map(|got| got.target().to_owned())
        .collect();
    assert_eq!(seen, spellings);
    for path in [
        "/jobsx",
        "/jobs/..",
        "/Jobs",
        "/%256aobs",
        "/x//..",
        "/jobs/../x",
    ] {
        let told = ask(&gateway.target(), path, "Host: h\r\n");
        assert_eq!(told, (200, "root".to_owned()), "{path}");
    }
    let hosts = [
        "admin.example.org.",
        "ADMIN.Example.org",
        "admin.example.org:80",
        "admin.example.org.:18789",
    ];
    for host in hosts {
        let told = ask(&gateway.target(), "/", &format!("Host: {host}\r\n"));
        assert_eq!(told, (200, "admin".to_owned()), "{host}");
    }
    let seen = admin.seen();
    let seen: Vec<&str> = seen.iter().filter_map(|got| got.head.get("host")).collect();
    assert_eq!(seen, hosts);
}

#[test]
fn a_host_that_is_none_is_refused_and_reaches_no_server() {
    let recorder = Recorder::ok();
    let gateway = Setup::upstream(recorder.addr()).start();
    for fields in [
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: ../../etc\r\n",
        "Host: a, b\r\n",
        "Host: a..b\r\n",
        "Host: .\r\n",
        "Host: a:b\r\n",
        "Host: u@a\r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost:\r\n",
        "",
    ] {
        let (status, text) = ask(&gateway.target(), "/", fields);
        assert_eq!(status, 400, "{fields}");
        assert!(
            text.starts_with("gateway: ") && text.contains("Host"),
            "{fields}: {text}"
        );
    }
    // The authority of an absolute URI decides, but its Host field must be one all the same.
    let absolute = "http://a.example.org/";
    let (status, _) = ask(&gateway.target(), absolute, "Host: a b\r\n");
    assert_eq!(status, 400);
    assert!(recorder.seen().is_empty());
    gateway.wait_line("refused with 400: ");
    assert_eq!(gateway.metric("gateway_refused_total{status=\"400\"}"), 12);
    let (status, _) = ask(&gateway.target(), absolute, "Host: b\r\n");
    assert_eq!(status, 200);
    assert_eq!(recorder.only().head.get("host"), Some("a.example.org"));
}

const HOP: &str = "x-gateway-hop";

#[test]
fn a_route_to_the_front_door_itself_is_refused_by_the_check() {
    let port = port::private();
    for to in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("g.toml");
        let text = format!("[[route]]\nto = \"http://{to}:{port}\"\n");
        std::fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_gateway"))
            .args([
                "check",
                "--listen",
                &format!("127.0.0.1:{port}"),
                "--config",
            ])
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(78), "{to}");
        let said = crate::support::gateway::said(&output);
        assert!(
            said.contains("g.toml:2:1: ") && said.contains("leads to this gateway itself"),
            "{said}"
        );
    }
}

/// A proxy that sends every request to another address and adds nothing.
fn mirror(to: impl Fn() -> Target + Send + Sync + 'static) -> Upstream {
    let to = std::sync::Arc::new(to);
    Upstream::serve(move |mut from: Conn| {
        let to = std::sync::Arc::clone(&to);
        async move {
            while let Ok(got) = receive(&mut from).await {
                let fields: String = (got.head.headers.iter())
                    .filter(|(name, _)| !name.eq_ignore_ascii_case("connection"))
                    .map(|(name, value)| format!("{name}: {value}\r\n"))
                    .collect();
                let text = format!("{}\r\n{fields}Connection: close\r\n\r\n", got.head.first);
                let mut next = Conn::open(&to()).await.unwrap();
                let answer = next.exchange(&text).await.unwrap();
                let text = format!(
                    "{}\r\nContent-Length: {}\r\n\r\n{}",
                    answer.head.first,
                    answer.body.len(),
                    answer.text()
                );
                if from.send(text).await.is_err() {
                    return;
                }
            }
        }
    })
}

#[test]
fn a_request_that_comes_back_is_answered_508_before_it_takes_the_descriptors() {
    // An inet_aton(3) spelling, which only the resolver knows, and another proxy in between.
    let port = port::private();
    let back: std::sync::Arc<Mutex<Option<Target>>> = std::sync::Arc::default();
    let there = std::sync::Arc::clone(&back);
    let mirror = mirror(move || there.lock().unwrap().clone().unwrap());
    let gateway = Setup::new()
        .port(port)
        .config(format!(
            "[[route]]\npath = \"/direct\"\nto = \"http://127.1:{port}\"\n\
             [[route]]\npath = \"/around\"\nto = \"http://{}\"\n",
            mirror.addr()
        ))
        .start();
    *back.lock().unwrap() = Some(gateway.target());
    for path in ["/direct", "/around"] {
        let answer = block_on(get(&gateway.target(), path)).unwrap();
        assert_eq!(answer.status(), 508, "{path}");
        let told = answer.text();
        assert!(
            !told.contains("127.") && !told.contains(&port.to_string()),
            "{told}"
        );
    }
    gateway.wait_line(&format!("answered 508: a request came back to this gateway: its route, to http://127.1:{port}, leads here again"));
    assert!(gateway.fds() < 300, "{}", gateway.fds());
    assert_eq!(gateway.metric("gateway_refused_total{status=\"508\"}"), 2);
    assert_eq!(
        block_on(get(&gateway.target(), "/healthz"))
            .unwrap()
            .status(),
        200
    );
}

#[test]
fn a_mark_that_a_client_makes_up_is_passed_on() {
    let recorder = Recorder::ok();
    let gateway = Setup::upstream(recorder.addr()).start();
    let (status, _) = ask(&gateway.target(), "/", "Host: h\r\nX-Gateway-Hop: 1, 2\r\n");
    assert_eq!(status, 200);
    assert_eq!(ask(&gateway.target(), "/", "Host: h\r\n").0, 200);
    let marks: Vec<_> = (recorder.seen().iter())
        .map(|got| got.head.get(HOP).map(str::to_owned))
        .collect();
    assert_eq!(marks, [Some("1, 2".to_owned()), None]);
}

#[test]
fn the_only_sidecar_keeps_what_no_route_takes_and_one_that_gets_nothing_is_a_warning() {
    if !servers::have("python3") {
        return;
    }
    let recorder = Recorder::ok();
    let port = port::private();
    let route = |path: &str| {
        format!(
            "[[route]]\npath = \"{path}\"\nto = \"http://{}\"\n",
            recorder.addr()
        )
    };
    let gateway = Setup::behind(HTTP_SERVER)
        .flag("--app-port")
        .flag(port.to_string())
        .config(route("/api"))
        .start();
    let paths = ["/", "/api/x", "/README"];
    let told = paths.map(|path| ask(&gateway.target(), path, "Host: h\r\n").0);
    assert_eq!(
        told,
        [200, 200, 404],
        "the directory, the other server, and no such file"
    );
    assert_eq!(recorder.only().target(), "/api/x");
    // Now a route takes everything from it.
    std::fs::write(
        gateway.config_file(),
        format!("{}{}", read(&gateway), route("/")),
    )
    .unwrap();
    let output = gateway.ctl(["config", "check"]);
    let warning = "no route leads to sidecar main";
    let said = crate::support::gateway::said(&output);
    // The sidecar is that of the command line, which the check finds with the gateway that runs.
    assert!(output.status.success() && said.contains(warning), "{said}");
    let output = gateway.ctl(["reload"]);
    assert!(output.status.success());
    gateway.wait_line(warning);

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("g.toml");
    let text = format!("[sidecar.app]\ncommand = [\"true\"]\n{}", route("/"));
    std::fs::write(&file, text).unwrap();
    for (program, words) in [
        (env!("CARGO_BIN_EXE_gateway"), &["check"][..]),
        (env!("CARGO_BIN_EXE_gatewayctl"), &["config", "check"]),
    ] {
        let output = Command::new(program)
            .args(words)
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap();
        let said = crate::support::gateway::said(&output);
        assert!(
            output.status.success() && said.contains("is valid"),
            "{said}"
        );
        assert!(said.contains("no route leads to sidecar app"), "{said}");
    }
}

/// It listens at every address, unless it is told not to.
const HTTP_SERVER: [&str; 4] = ["python3", "-m", "http.server", "{port}"];

fn read(gateway: &Gateway) -> String {
    std::fs::read_to_string(gateway.config_file()).unwrap()
}

#[test]
fn a_server_that_is_reached_past_the_front_door_is_named_once_a_generation() {
    if !servers::have("python3") {
        return;
    }
    let gateway = Setup::behind(HTTP_SERVER).start();
    let line = gateway.wait_line("past the front door");
    let status = gateway.wait_status("what is exposed", |status| {
        status["sidecars"][0]["exposed"].as_array().is_some()
    });
    let place = status["sidecars"][0]["exposed"][0]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(place.starts_with("0.0.0.0:"), "{place}");
    assert!(
        line.contains(&format!("sidecar main listens on {place}")),
        "{line}"
    );
    assert!(line.ends_with("--bind 127.0.0.1"), "{line}");
    let shown = crate::support::gateway::said(&gateway.ctl(["status"]));
    assert!(
        shown.contains(&format!("listens on {place}: it is reached past")),
        "{shown}"
    );
    let shown = crate::support::gateway::said(&gateway.ctl(["doctor"]));
    assert!(
        shown.contains("sidecar-exposed") && shown.contains("--bind 127.0.0.1"),
        "{shown}"
    );
    // Its next process is the same server.
    let first = gateway.sidecar_pid("main");
    crate::support::handover::signal(first, nix::sys::signal::Signal::SIGKILL);
    gateway.wait_status("another process", |status| {
        let sidecar = &status["sidecars"][0];
        sidecar["state"] == "ready" && sidecar["pid"] != first && sidecar["exposed"][0] != *place
    });
    assert_eq!(gateway.stderr().matches("past the front door").count(), 1);
    assert!(gateway.restart().status.success());
    gateway.wait_nth_line("past the front door", 1);
    let quiet = Setup::behind(HTTP_SERVER.into_iter().chain(["--bind", "127.0.0.1"])).start();
    quiet.wait_status("ready", |status| status["stage"] == "ready");
    assert!(!quiet.stderr().contains("past the front door"));
}
