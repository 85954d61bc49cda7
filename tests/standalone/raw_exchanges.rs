//! The table of raw exchanges, `tests/data/raw_exchanges.txt`: what a client sends, what the server must see, what the
//! client must get, and what nginx does with the same. Its head tells the columns.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use crate::support::gateway::Setup;
use crate::support::raw::{Answer, LAST, Script, Seen, Wire, field, server};
use crate::support::{port, servers, wait};

const TABLE: &str = include_str!("../data/raw_exchanges.txt");

/// The answer of the server where a row has none.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

struct Row {
    name: &'static str,
    send: Vec<u8>,
    /// Whether the client closes its sending side then.
    half_closes: bool,
    answer: Answer,
    sees: &'static str,
    gets: &'static str,
    nginx: &'static str,
}

/// The rows; those last of which the server may see something when they are over.
fn rows() -> Vec<Row> {
    let lines = TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut rows: Vec<Row> = lines.map(row).collect();
    rows.sort_by_key(|row| row.sees == "?");
    rows
}

fn row(line: &'static str) -> Row {
    let columns: Vec<&str> = line.split(" | ").collect();
    let [name, send, answer, sees, gets, nginx, why @ ..] = &columns[..] else {
        panic!("columns are missing: {line}");
    };
    assert_eq!(
        *nginx == "=",
        why.is_empty(),
        "what differs has a reason, and only that: {line}"
    );
    let ended = |text: &'static str| match text.strip_suffix("\\q") {
        Some(text) => (bytes(text), true),
        None => (bytes(text), false),
    };
    let (send, half_closes) = ended(send);
    let answer = match *answer {
        "-" => Answer {
            bytes: OK.to_vec(),
            ..Answer::default()
        },
        text => {
            let early = text.strip_prefix("EARLY");
            let (bytes, closes) = ended(early.unwrap_or(text));
            Answer {
                bytes,
                closes,
                early: early.is_some(),
            }
        }
    };
    Row {
        name,
        send,
        half_closes,
        answer,
        sees,
        gets,
        nginx,
    }
}

/// The bytes that a column means.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == '{'
            && let Some(((unit, count), after)) = rest[1..]
                .split_once('}')
                .and_then(|(inner, after)| Some((inner.rsplit_once('*')?, after)))
            && let Ok(count) = count.parse::<usize>()
        {
            out.extend_from_slice(&bytes(unit).repeat(count));
            rest = after;
            continue;
        }
        rest = &rest[first.len_utf8()..];
        if first != '\\' {
            out.extend_from_slice(first.to_string().as_bytes());
            continue;
        }
        let escape = rest.chars().next().expect("an escape");
        rest = &rest[1..];
        match escape {
            'n' => out.extend_from_slice(b"\r\n"),
            'l' => out.push(b'\n'),
            'c' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'p' => out.push(b'|'),
            '\\' => out.push(b'\\'),
            'x' => {
                out.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                rest = &rest[2..];
            }
            other => panic!("no escape: {other}"),
        }
    }
    out
}

fn shown(bytes: &[u8]) -> String {
    let mut out = String::new();
    for &byte in bytes.iter().take(2_000) {
        let _ = write!(out, "{}", byte.escape_ascii());
    }
    out
}

// --- The client

/// What a client got: the statuses, the bytes without Date, and whether the connection was open and in step then.
struct Got {
    statuses: Vec<String>,
    bytes: Vec<u8>,
    end: &'static str,
}

/// Sends a row, and reads so many answers; with `open`, one further request must be answered.
fn exchange(addr: SocketAddr, row: &Row, answers: usize, open: bool) -> Result<Got, String> {
    let mut wire = Wire::new(TcpStream::connect(addr).unwrap());
    // Who refuses a large head may not read all of it.
    let _ = wire.stream.write_all(&row.send);
    if row.half_closes {
        let _ = wire.stream.shutdown(Shutdown::Write);
    }
    let mut got = Got {
        statuses: Vec::new(),
        bytes: Vec::new(),
        end: "close",
    };
    let to_head = row.send.starts_with(b"HEAD ");
    if open {
        for _ in 0..answers {
            got.answer(&mut wire, to_head)?;
        }
        wire.stream
            .write_all(LAST)
            .map_err(|error| error.to_string())?;
    }
    loop {
        match wire.more() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            // Something was not read at the other side, which is as good.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => return Err(format!("{error} after {}", shown(&got.bytes))),
        }
    }
    if open {
        let rest = String::from_utf8_lossy(&wire.read).to_ascii_lowercase();
        if !rest.starts_with("http/1.1 200 ok\r\n") || !rest.contains("\r\nx-end: 1\r\n") {
            return Err(format!("out of step: {}", shown(&wire.read)));
        }
        got.end = "open";
        return Ok(got);
    }
    while !wire.read.is_empty() {
        got.answer(&mut wire, to_head)?;
    }
    Ok(got)
}

impl Got {
    /// Reads one answer; at the end of the connection, what there is of it.
    fn answer(&mut self, wire: &mut Wire, to_head: bool) -> Result<(), String> {
        let Ok(head) = wire.through(b"\r\n\r\n") else {
            return self.rest(wire);
        };
        let text = String::from_utf8_lossy(&head).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.get(..3));
        let Some(status) = status.filter(|_| text.starts_with("HTTP/1.")) else {
            wire.read.splice(0..0, head);
            return self.rest(wire);
        };
        self.statuses.push(status.to_owned());
        let date = text.to_ascii_lowercase().find("\r\ndate: ");
        match date.and_then(|from| Some((from, text[from + 2..].find("\r\n")? + from + 2))) {
            Some((from, to)) => {
                self.bytes.extend_from_slice(&head[..from]);
                self.bytes.extend_from_slice(&head[to..]);
            }
            None => self.bytes.extend_from_slice(&head),
        }
        if to_head || status.starts_with('1') || matches!(status, "204" | "304") {
            return Ok(());
        }
        let length = field(&head, "content-length").and_then(|length| length.parse().ok());
        if field(&head, "transfer-encoding").is_some() {
            let Ok(body) = wire.through(b"0\r\n") else {
                return self.rest(wire);
            };
            self.bytes.extend(body);
            loop {
                let Ok(line) = wire.through(b"\r\n") else {
                    return self.rest(wire);
                };
                self.bytes.extend(&line);
                if line == b"\r\n" {
                    break;
                }
            }
        } else if let Some(length) = length {
            match wire.take(length) {
                Ok(body) => self.bytes.extend(body),
                Err(_) => return self.rest(wire),
            }
        } else {
            return self.rest(wire);
        }
        Ok(())
    }

    /// Takes what is left, at the end of the connection.
    fn rest(&mut self, wire: &mut Wire) -> Result<(), String> {
        match wire.more() {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) => {}
            Ok(()) => return self.rest(wire),
            Err(error) => return Err(format!("{error} after {}", shown(&self.bytes))),
        }
        self.bytes.append(&mut wire.read);
        Ok(())
    }
}

/// The number of answers in a column, and whether the connection stays open.
fn ending(text: &str) -> (usize, bool) {
    (statuses(text).len(), text.ends_with("open"))
}

/// The statuses in "200 400 close", or in the answers themselves.
fn statuses(text: &str) -> Vec<&str> {
    if text.contains("HTTP/1.") {
        let answers = text.split("HTTP/1.").skip(1);
        return answers.map(|answer| &answer[2..5]).collect();
    }
    let is_status = |word: &&str| word.len() == 3 && word.bytes().all(|byte| byte.is_ascii_digit());
    text.split(' ').filter(is_status).collect()
}

fn run(
    addr: SocketAddr,
    script: &Mutex<Script>,
    row: &Row,
    answers: usize,
    open: bool,
) -> Result<(Got, Vec<Seen>), String> {
    *script.lock().unwrap() = Script {
        answer: row.answer.clone(),
        seen: Vec::new(),
    };
    let got = exchange(addr, row, answers, open)?;
    let seen = script.lock().unwrap().seen.clone();
    match seen.iter().any(|seen| seen.line().ends_with(b"/smuggled")) {
        true => Err("a request came out of a body".to_owned()),
        false => Ok((got, seen)),
    }
}

/// What of a row is not as it says.
fn fault(row: &Row, got: &Got, seen: &[Seen]) -> Option<String> {
    let sent: Vec<u8> = seen.iter().flat_map(Seen::bytes).collect();
    let sees = match row.sees {
        "-" => Vec::new(),
        sees => bytes(sees),
    };
    if row.sees != "?" && sent != sees {
        return Some(format!("the server sees {}", shown(&sent)));
    }
    let right = match row.gets.rsplit_once(' ') {
        Some((answers, end)) if answers.contains("HTTP/1.") => {
            got.bytes == bytes(answers) && got.end == end
        }
        _ => got.statuses == statuses(row.gets) && row.gets.ends_with(got.end),
    };
    (!right).then(|| format!("the client gets {} {}", shown(&got.bytes), got.end))
}

#[test]
fn every_exchange_of_the_table_is_as_it_says() {
    let (upstream, script) = server();
    let gateway = Setup::upstream(upstream)
        .config(
            "[gateway]\nrequest_id = false\nkeep_header_case = true\n[limits]\nheader_size = 32768",
        )
        .start();
    let rows = rows();
    assert!(rows.len() >= 200, "{} rows", rows.len());
    check(&rows, gateway.addr(), &script);
}

/// hyper is not given all lines of a head, unless it keeps their case.
#[test]
fn a_head_of_many_lines_is_passed_on_whole() {
    let (upstream, script) = server();
    let gateway = Setup::upstream(upstream)
        .config("[gateway]\nrequest_id = false\n[limits]\nheader_size = 32768")
        .start();
    let mut rows = rows();
    rows.retain(|row| row.name.contains("lines"));
    assert!(rows.len() >= 15, "{} rows", rows.len());
    check(&rows, gateway.addr(), &script);
}

/// Exchanges the `rows` with a gateway.
fn check(rows: &[Row], gateway: SocketAddr, script: &Mutex<Script>) {
    let mut faults = Vec::new();
    for row in rows {
        let (answers, open) = ending(row.gets);
        let wrong = match run(gateway, script, row, answers, open) {
            Ok((got, seen)) => fault(row, &got, &seen),
            Err(why) => Some(why),
        };
        faults.extend(wrong.map(|why| format!("{}: {why}", row.name)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Unless `keep_header_case` is set.
const WRITTEN_AS_MOST: &str = r#"names in any case | GET / HTTP/1.1\nhOST: h\nx-lower: 1\nX-MIXED-name: 2\n\n | HTTP/1.1 200 OK\nCONTENT-length: 2\nETag: "e"\n\nok | GET / HTTP/1.1\nHost: h\nX-Lower: 1\nX-Mixed-Name: 2\n\n | HTTP/1.1 200 OK\nContent-Length: 2\nEtag: "e"\n\nok open | ="#;

#[test]
fn names_of_header_fields_are_written_as_most_programs_write_them() {
    let (upstream, script) = server();
    let gateway = Setup::upstream(upstream)
        .config("[gateway]\nrequest_id = false")
        .start();
    let row = row(WRITTEN_AS_MOST);
    let (answers, open) = ending(row.gets);
    let (got, seen) = run(gateway.addr(), &script, &row, answers, open).unwrap();
    assert_eq!(fault(&row, &got, &seen), None);
}

// --- nginx

/// The version that the column of the table is about.
const NGINX: &str = "nginx/1.22.";

struct Nginx {
    child: Child,
    addr: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Nginx {
    fn start(upstream: SocketAddr) -> Self {
        let dir = tempfile::Builder::new().prefix("gw-").tempdir().unwrap();
        let addr = SocketAddr::from(([127, 0, 0, 1], port::private()));
        let at = dir.path().display();
        let own: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};"))
            .concat();
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log /dev/null; events {{}}
            http {{ access_log off; {own} server {{ listen {addr}; location / {{
            proxy_pass http://{upstream}; proxy_http_version 1.1;
            proxy_set_header Host $http_host; proxy_set_header Connection \"\"; }} }} }}"
        );
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let child = command(dir.path(), &file).spawn().unwrap();
        let nginx = Self {
            child,
            addr,
            _dir: dir,
        };
        wait::until("nginx listens", || TcpStream::connect(addr).ok());
        nginx
    }
}

fn command(dir: &Path, config: &Path) -> Command {
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(dir)
        .arg("-c")
        .arg(config)
        .stderr(Stdio::null());
    command
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Method, target and body of each request in a column.
fn requests(mut column: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut requests = Vec::new();
    while let Some(end) = column.windows(4).position(|window| window == b"\r\n\r\n") {
        let (head, rest) = column.split_at(end + 4);
        let seen = Seen {
            head: head.to_vec(),
            ..Seen::default()
        };
        let length = field(head, "content-length").map(|length| length.parse().unwrap());
        let (body, rest) = match (rest.strip_prefix(b"["), length) {
            (Some(rest), _) => {
                let end = rest.iter().position(|byte| *byte == b']').unwrap();
                (&rest[..end], &rest[end + 1..])
            }
            (None, length) => rest.split_at(length.unwrap_or(0).min(rest.len())),
        };
        requests.push((seen.line().to_vec(), body.to_vec()));
        column = rest;
    }
    requests
}

/// The column about nginx is true.
#[test]
fn nginx_does_what_the_table_says_of_it() {
    if !servers::have("nginx") {
        return;
    }
    let version = Command::new("nginx").arg("-v").output().unwrap();
    if !String::from_utf8_lossy(&version.stderr).contains(NGINX) {
        return;
    }
    let (upstream, script) = server();
    let nginx = Nginx::start(upstream);
    let mut faults = Vec::new();
    for row in rows() {
        if row.nginx.contains("silent") || row.nginx.contains("garbage") {
            continue;
        }
        let same = row.nginx == "=";
        let says = if same {
            row.gets
        } else {
            row.nginx.rsplit_once(' ').unwrap().0
        };
        let (answers, open) = ending(says);
        let (got, seen) = match run(nginx.addr, &script, &row, answers, open) {
            Ok(exchange) => exchange,
            Err(why) => {
                faults.push(format!("{}: {why}", row.name));
                continue;
            }
        };
        let passed: Vec<_> = seen
            .iter()
            .map(|seen| (seen.line().to_vec(), seen.body.clone()))
            .collect();
        let right = match row.sees {
            _ if !same => Some(passed.len().to_string().as_str()) == row.nginx.rsplit(' ').next(),
            "?" => true,
            "-" => passed.is_empty(),
            sees => passed == requests(&bytes(sees)),
        };
        if !right || got.statuses != statuses(says) || !says.ends_with(got.end) {
            let seen: Vec<u8> = seen.iter().flat_map(Seen::bytes).collect();
            faults.push(format!(
                "{}: {:?} {}, passes {}",
                row.name,
                got.statuses,
                got.end,
                shown(&seen)
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
