//! Which server gets a request, however its host and its path are spelled.

use crate::support::client::{Target, block_on, request};
use crate::support::gateway::Setup;
use crate::support::upstream::Recorder;

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
    let (status, _) = ask(&gateway.target(), absolute, "Host: b\r\n");
    assert_eq!(status, 200);
    assert_eq!(recorder.only().head.get("host"), Some("a.example.org"));
}
