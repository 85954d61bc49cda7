//! A sidecar's private address is not for clients: answers name the public one, and so does the log.

use std::fs;

use crate::support::client::{self, block_on};
use crate::support::gateway::{READY, Setup, said};
use crate::support::{schema, servers};

/// nginx sends a client that leaves out the last slash to the port that it listens at itself.
#[test]
fn nginx_redirects_to_the_address_that_the_client_used() {
    if !servers::have("nginx") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    let gateway = Setup::behind(servers::nginx(dir.path())).start();
    let public = gateway.addr();
    let location = |host: &str, more: &str| {
        let text = format!("GET /dir HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n");
        let answer = block_on(client::request(&gateway.target(), &text)).unwrap();
        assert_eq!(answer.status(), 301, "{}", answer.text());
        answer.head.get("location").unwrap().to_owned()
    };
    let loopback = public.to_string();
    for host in [
        loopback.as_str(),
        "localhost:8080",
        "example.test",
        "example.test:81",
    ] {
        assert_eq!(location(host, ""), format!("http://{host}/dir/"));
    }
    let https = location("example.test", "X-Forwarded-Proto: https\r\n");
    assert_eq!(https, "https://example.test/dir/");
    let line = gateway.wait_line(READY);
    let port = gateway.status()["sidecars"][0]["port"].clone();
    let expected = format!(" at 127.0.0.1:{port}, clients use http://{public}, up ");
    assert!(line.contains(&expected), "{line}");
}

/// Jupyter prints a token with which somebody must log in.
#[test]
fn a_one_time_token_is_hidden_in_the_log_and_shown_to_its_owner() {
    if !servers::have("python3") {
        return;
    }
    let script = "import http.server, sys\n\
        print('open http://127.0.0.1:' + sys.argv[1] + '/lab?token=0ne71me5ecret', flush=True)\n\
        http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()";
    let gateway = Setup::behind(["python3", "-u", "-c", script, "{port}"]).start();
    let line = gateway.wait_line("[main] open http://127.0.0.1:");
    assert!(line.ends_with("/lab?token=***"), "{line}");
    let shown = gateway.ctl(["logs", "--show-secrets"]);
    assert!(
        said(&shown).contains("/lab?token=0ne71me5ecret\n"),
        "{}",
        said(&shown)
    );
    let shown = gateway.ctl(["logs", "--show-secrets", "--sidecar", "main", "--json"]);
    let json = schema::object(&shown, "secrets");
    assert_eq!(json["lines"][0]["sidecar"], "main");
    let unknown = gateway.ctl(["logs", "--show-secrets", "--sidecar", "web"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", said(&unknown));
    gateway.wait_line("the secrets in the output of main are shown to uid ");
    assert!(!gateway.stderr().contains("0ne71me5ecret"));
}
