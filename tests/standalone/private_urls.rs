//! A sidecar's private address is not for clients: answers name the public one, and so does the log.

use std::fs;

use crate::support::client::{self, block_on};
use crate::support::gateway::{READY, Setup};
use crate::support::servers;

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
