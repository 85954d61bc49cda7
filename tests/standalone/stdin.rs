//! Servers that exit when their standard input ends, as esbuild does.

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::{servers, wait};

/// It serves until its standard input ends.
fn until_the_end_of_input() -> Setup {
    let server = "python3 -m http.server --bind 127.0.0.1 \"$1\" & cat; kill $!; wait; exit 7";
    Setup::behind(["sh", "-c", server, "sh", "{port}"])
}

fn get(gateway: &Gateway) -> u16 {
    let answer = block_on(client::get(&gateway.target(), "/"));
    answer.unwrap().status()
}

#[test]
fn a_server_that_exits_at_the_end_of_its_input_serves_with_one_that_is_held() {
    if !servers::have("python3") {
        return;
    }
    let mut empty = until_the_end_of_input().spawn();
    assert_eq!(empty.exit_code(wait::DEADLINE), 1);
    assert!(
        empty.stderr().contains("exited with code 7"),
        "{}",
        empty.stderr()
    );

    let mut held = until_the_end_of_input().flag("--stdin=hold").start();
    assert_eq!(get(&held), 200);
    let first = held.sidecar_pid("main");
    let output = held.ctl(["restart", "--drained"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_ne!(held.sidecar_pid("main"), first);
    assert_eq!(get(&held), 200);
    held.terminate();
}
