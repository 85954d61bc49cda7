//! What the fd store of a service has no room for is said, not lost in silence.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::site::{FRONT, Site, back, prepared};
use crate::support::wait;

/// One descriptor is the listener's.
const STORE: usize = 8;
const KEPT: usize = 12;

/// Whether a kept connection gets an answer to its next request.
fn answered(mut client: &TcpStream) -> bool {
    let mut answer = [0; 12];
    client
        .write_all(b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
        .and_then(|()| client.read_exact(&mut answer))
        .is_ok_and(|()| answer == *b"HTTP/1.1 200")
}

/// Reads the rest of an answer that came at once.
fn read_rest(mut client: &TcpStream) {
    client
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    while client.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {}
    client.set_read_timeout(Some(wait::DEADLINE)).unwrap();
}

#[test]
fn silent_clients_and_listeners_beyond_the_fd_store_are_counted_and_the_rest_lives_on() {
    let Some(systemd) = prepared("fd-store") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let app = systemd.add_plain_user("app");
    site.install(&["--run-as", &app.name]);
    let config = site.systemd.read(&site.config()).unwrap();
    let exit = format!("{config}\n[restart]\nmode = \"exit\"\n");
    systemd.write(&site.config(), &exit);
    site.drop(&format!("FileDescriptorStoreMax={STORE}"));
    site.must_systemctl(&["restart", "gateway"]);
    site.settled();

    let clients: Vec<TcpStream> = (0..KEPT)
        .map(|_| systemd.in_netns(|| TcpStream::connect(FRONT).unwrap()))
        .collect();
    for client in &clients {
        assert!(answered(client));
        read_rest(client);
    }
    // By the signal: `gatewayctl restart` probes the front door, and a probe that has just
    // connected is one more silent client.
    let pid = site.main_pid();
    site.must(&["kill", "-USR1", &pid.to_string()]);
    back(&site, pid);
    site.settled();
    let journal = site.journal();
    let room = STORE - 1;
    for line in [
        format!("{room} silent clients wait for the next start"),
        format!("{} silent clients are closed: the fd store", KEPT - room),
    ] {
        assert!(journal.contains(&line), "`{line}` in:\n{journal}");
    }
    let alive = clients.iter().filter(|client| answered(client)).count();
    assert_eq!(alive, room, "{}", site.journal());

    let more: Vec<String> = (1..=STORE)
        .map(|port| format!("127.0.0.1:{}", 28_800 + port))
        .collect();
    let many = format!(
        "{exit}[gateway]\nlisten = [\"{FRONT}\", \"{}\"]\n",
        more.join("\", \"")
    );
    systemd.write(&site.config(), &many);
    site.must_systemctl(&["restart", "gateway"]);
    wait::until("what is not kept is named", || {
        let named = format!("systemd keeps {STORE} of {} listeners", STORE + 1);
        site.journal().contains(&named).then_some(())
    });
}
