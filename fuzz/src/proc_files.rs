//! Files of /proc: stat, cmdline and cgroup of a process, and the tables of sockets.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;

use gateway::internals::{
    Listen, Process, Socket, Stat, arguments_in, group_in, is_within, stat_in, table,
};

fn stat(line: &[u8]) {
    if let Some(stat) = stat_in(line) {
        assert_eq!(stat_in(stat_line(&stat).as_bytes()), Some(stat));
    }
    // A process chooses its name itself, and nothing in it moves another field.
    let stat = Stat {
        name: String::from_utf8_lossy(line).into_owned(),
        state: 'S',
        parent: 7,
        group: 8,
        start_time: u64::MAX,
    };
    assert_eq!(stat_in(stat_line(&stat).as_bytes()), Some(stat));
}

fn stat_line(stat: &Stat) -> String {
    let (name, state) = (&stat.name, stat.state);
    let (parent, group, start) = (stat.parent, stat.group, stat.start_time);
    let between = "0 ".repeat(16);
    format!("42 ({name}) {state} {parent} {group} {between}{start} 0 0\n")
}

fn arguments(line: &[u8]) {
    let words = arguments_in(line);
    assert!(words.iter().all(|word| !word.contains('\0')));
    let again: String = words.iter().map(|word| format!("{word}\0")).collect();
    assert_eq!(arguments_in(again.as_bytes()), words);
}

fn group(text: &str) {
    let group = group_in(text);
    if group.is_empty() {
        return;
    }
    assert!(
        text.split('\n')
            .any(|line| line.ends_with(&format!(":{group}")))
    );
    // A container of a host with both hierarchies is at the root of one, and its own group in the other.
    let expected = if group == "/" { "/other" } else { &group };
    assert_eq!(
        group_in(&format!("1:name=systemd:{group}\n0::/other\n")),
        expected
    );
    let process = Process {
        pid: 1,
        start_time: 0,
        uid: 0,
        program: None,
        name: String::new(),
        arguments: Vec::new(),
        group: group.clone(),
        suspended: false,
        is_user_manager: false,
    };
    if let Some(service) = process.service() {
        assert!(group.starts_with(service) && service.ends_with(".service"));
        assert!(is_within(&group, service), "{group} is in {service}");
        assert!(!service.rsplit('/').next().unwrap().starts_with("user@"));
    }
}

/// The line of /proc/net/tcp, tcp6 or unix about a socket that listens.
fn table_line(socket: &Socket) -> Vec<u8> {
    let inode = socket.inode;
    match &socket.listen {
        Listen::Tcp(address) => {
            let octets = match address.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let words = octets.chunks_exact(4);
            let words = words.map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
            let words: String = words.map(|word| format!("{word:08X}")).collect();
            let (port, uid) = (address.port(), socket.uid.unwrap_or_default());
            format!(
                "   0: {words}:{port:04X} {}:0000 0A 00000000:00000000 00:00000000 00000000 {uid:5} 0 {inode} 1 0000000000000000 100 0 0 10 0",
                "0".repeat(words.len()),
            )
            .into_bytes()
        }
        Listen::Unix(path) => {
            let front = format!("0000000000000000: 00000002 00000000 00010000 0001 01 {inode:5} ");
            [front.as_bytes(), path.as_os_str().as_bytes()].concat()
        }
    }
}

fn tcp_sockets(line: &str) {
    let Some(socket) = table::inet(line) else {
        return;
    };
    assert!(socket.is_in_the_way_of(&socket.listen));
    let uid = Some(socket.uid.unwrap_or_default());
    let again = String::from_utf8(table_line(&socket)).unwrap();
    assert_eq!(table::inet(&again), Some(Socket { uid, ..socket }));
}

fn unix_sockets(line: &[u8]) {
    // A line with this name, as the kernel writes it: only a path is one, and the whole of it.
    let name = String::from_utf8_lossy(line);
    let mut named = b"0000000000000000: 00000002 00000000 00010000 0001 01 42 ".to_vec();
    named.extend(line);
    match table::local(&named) {
        None => assert!(!line.starts_with(b"/"), "{name}"),
        Some(socket) => {
            let path = Listen::Unix(OsStr::from_bytes(line).into());
            assert_eq!((socket.listen, socket.inode), (path, 42), "{name}");
        }
    }
    if let Some(socket) = table::local(line) {
        assert!(matches!(&socket.listen, Listen::Unix(path) if path.is_absolute()));
        assert_eq!(table::local(&table_line(&socket)), Some(socket));
    }
}

/// Whatever a process may put into its files, what is understood is the same when it is told again
/// in the kernel's form. Each input is tried as each of the files.
pub fn proc_files(input: &[u8]) {
    stat(input);
    arguments(input);
    let text = String::from_utf8_lossy(input);
    group(&text);
    text.lines().for_each(tcp_sockets);
    input.split(|byte| *byte == b'\n').for_each(unix_sockets);
}
