//! Which tokens control the gateway, which read, and which only open its pages: one that others may know
//! is worth no more than it was before there was a control protocol behind it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::Value;

use crate::control_ws::{Client, refused, token_of, with_token};
use crate::support::client::{block_on, request};
use crate::support::gateway::{Gateway, Setup};
use crate::support::ws::WebSocket;

/// What a token opens: the status of the pages, and of a request for the control protocol.
async fn opens(gateway: &Gateway, token: &str) -> (u16, u16) {
    let page = format!(
        "GET /_gateway/metrics HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    let page = request(&gateway.target(), &page).await.unwrap().status();
    let opened = WebSocket::open_by(&gateway.target(), &with_token(token)).await;
    let control = match opened {
        Ok(_) => 101,
        Err((_, head)) => head.unwrap().status(),
    };
    (page, control)
}

/// A gateway with this text and mode of a file for each token.
fn gateway_with(dir: &Path, files: &[(&str, &str, u32)]) -> Gateway {
    let mut config = String::from("[gateway]\n");
    for (key, text, mode) in files {
        let file = dir.join(key);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(*mode)).unwrap();
        config += &format!("{key} = {:?}\n", file.to_str().unwrap());
    }
    Setup::new().config(config).start()
}

#[test]
fn a_token_that_others_can_read_opens_the_pages_and_neither_follows_nor_controls() {
    const TOKEN: &str = "canary-token-of-some-length";
    let dir = tempfile::tempdir().unwrap();
    let gateway = gateway_with(dir.path(), &[("token_file", TOKEN, 0o644)]);
    gateway.wait_line("token_file has mode 0644");
    block_on(async { assert_eq!(opens(&gateway, TOKEN).await, (200, 403)) });
    assert!(!gateway.stderr().contains(TOKEN));
    let reader = token_of(gateway.state_dir(), "reader-token");
    block_on(async { assert_eq!(opens(&gateway, &reader).await, (200, 101)) });
}

#[test]
fn a_file_behind_a_link_gives_a_token_for_the_pages_alone() {
    const TOKEN: &str = "canary-token-of-some-length";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("real");
    fs::write(&file, TOKEN).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let link = dir.path().join("link");
    symlink(&file, &link).unwrap();
    let config = format!("[gateway]\ntoken_file = {:?}\n", link.to_str().unwrap());
    let gateway = Setup::new().config(config).start();
    gateway.wait_line("is a symbolic link");
    block_on(async { assert_eq!(opens(&gateway, TOKEN).await, (200, 403)) });
}

#[test]
fn a_readers_token_that_others_can_read_follows_nothing_and_makes_no_owner() {
    const OWN: &str = "canary-token-of-the-owner";
    const SHARED: &str = "canary-token-of-everybody";
    let dir = tempfile::tempdir().unwrap();
    let files = [
        ("token_file", OWN, 0o600),
        ("reader_token_file", SHARED, 0o644),
    ];
    let gateway = gateway_with(dir.path(), &files);
    gateway.wait_line("reader_token_file has mode 0644");
    block_on(async {
        assert_eq!(opens(&gateway, OWN).await, (200, 101));
        assert_eq!(opens(&gateway, SHARED).await, (200, 403));
    });
    // The owner's token stands in a file that others can read.
    let dir = tempfile::tempdir().unwrap();
    let files = [
        ("token_file", SHARED, 0o600),
        ("reader_token_file", SHARED, 0o644),
    ];
    let gateway = gateway_with(dir.path(), &files);
    gateway.wait_line("reader_token_file has mode 0644");
    block_on(async { assert_eq!(opens(&gateway, SHARED).await, (200, 403)) });
}

#[test]
fn a_token_that_can_be_guessed_opens_the_pages_alone_and_one_that_cannot_be_sent_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = gateway_with(dir.path(), &[("token_file", "x\n", 0o600)]);
    gateway.wait_line("has fewer than 16 characters");
    block_on(async { assert_eq!(opens(&gateway, "x").await, (200, 403)) });
    for unsendable in [
        "canary-token-of-two\nlines-of-text\n",
        "canary-tokén-of-a-language",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let gateway = gateway_with(dir.path(), &[("token_file", unsendable, 0o600)]);
        let line = gateway.wait_line("no bearer token");
        assert!(line.contains("token_file: "), "{line}");
        assert!(!gateway.stderr().contains("canary"), "{line}");
    }
}

#[test]
fn a_token_in_the_state_directory_that_others_can_read_controls_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let token = {
        let gateway = Setup::new().state_dir(&state).start();
        let token = token_of(&state, "token");
        gateway.stop();
        token
    };
    let file = state.join("token");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let gateway = Setup::new().state_dir(&state).start();
    gateway.wait_line("token has mode 0640");
    block_on(async {
        assert_eq!(opens(&gateway, &token).await, (200, 403));
        let mut reader = Client::open(&gateway, "reader-token").await;
        assert_eq!(reader.ask("status", Value::Null).await["ok"], true);
    });
    assert_eq!(refused(&gateway, "token"), 1);
}
