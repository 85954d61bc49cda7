//! New clients, one after the other, until nobody listens any more.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::wait::DEADLINE;

/// The statuses that they got. Panics when one is reset, or hangs, or gets no answer; the one at
/// the very end may be reset where the gateway has no privilege (`last_may_be_reset`).
pub fn until_refused(addr: SocketAddr, last_may_be_reset: bool) -> Vec<u16> {
    let mut statuses = Vec::new();
    let mut reset = None;
    loop {
        let mut client = match TcpStream::connect(addr) {
            Ok(client) => client,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return statuses,
            Err(error) => panic!("client {}: {error}", statuses.len()),
        };
        assert_eq!(reset, None, "not the last one: {statuses:?}");
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut answer = String::new();
        let asked = client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .and_then(|()| client.read_to_string(&mut answer));
        match asked {
            Err(error) if error.kind() == ErrorKind::ConnectionReset && last_may_be_reset => {
                reset = Some(statuses.len());
                continue;
            }
            asked => asked.unwrap_or_else(|error| panic!("{error}, after {statuses:?}")),
        };
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        statuses.push(status.unwrap_or_else(|| panic!("no answer: {answer:?}")));
    }
}
