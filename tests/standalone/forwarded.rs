//! Who may say for whom a request is forwarded, and what the server behind is told.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::support::client::{Head, Target, block_on, request};
use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::Recorder;
use crate::support::{namespace, port, servers, wait};

/// Every spelling by which a server may be told who asks.
const CLAIMS: &str = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX_Forwarded_For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Real_IP: 6.6.6.6\r\nTrue-Client-IP: 6.6.6.6\r\nCF-Connecting-IP: 6.6.6.6\r\nX-Client-IP: 6.6.6.6\r\n";

const NAMES: [&str; 11] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x_forwarded_for",
    "forwarded",
    "x-real-ip",
    "x-real_ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-client-ip",
];

/// An address that is not of this machine's loopback, in a network of the test's own.
const ADDRESS: &str = "10.77.0.1";

fn ask(target: &Target, headers: &str) {
    let text = format!("GET / HTTP/1.1\r\nHost: h:1\r\n{headers}Connection: close\r\n\r\n");
    assert_eq!(block_on(request(target, &text)).unwrap().status(), 200);
}

/// What the server was told, name by name.
fn told(head: &Head) -> Vec<(&str, Vec<&str>)> {
    let told = NAMES.map(|name| (name, head.all(name).collect::<Vec<_>>()));
    told.into_iter()
        .filter(|(_, all)| !all.is_empty())
        .collect()
}

/// A gateway in a network of its own that also listens at [`ADDRESS`], and there.
fn from_outside(recorder: &Recorder, config: &str) -> (Gateway, Target) {
    let outside: SocketAddr = format!("{ADDRESS}:{}", port::private()).parse().unwrap();
    let gateway = Setup::upstream(recorder.addr())
        .config(format!("[gateway]\n{config}\n"))
        .flag("--listen")
        .flag(outside.to_string())
        .start();
    (gateway, Target::Tcp(outside))
}

#[test]
fn a_client_on_this_machine_is_met_as_if_there_were_no_gateway() {
    let recorder = Recorder::ok();
    let gateway = Setup::upstream(recorder.addr()).unix_listener().start();
    for target in [gateway.target(), gateway.unix_target()] {
        ask(&target, "");
        ask(&target, CLAIMS);
    }
    for (number, got) in recorder.seen().iter().enumerate() {
        let names: Vec<&str> = told(&got.head).into_iter().map(|(name, _)| name).collect();
        let expected: &[&str] = if number % 2 == 0 { &[] } else { &NAMES };
        assert_eq!(names, expected, "{:?}", got.head);
        let all = told(&got.head);
        assert!(all.iter().all(|(_, all)| all.len() == 1), "{all:?}");
    }
}

#[test]
fn a_stranger_cannot_say_whom_it_forwards_for_and_a_proxy_is_told_of_the_setting() {
    namespace::network(ADDRESS, || {
        let recorder = Recorder::ok();
        let (gateway, target) = from_outside(&recorder, "");
        ask(&target, "");
        ask(&target, CLAIMS);
        ask(&target, CLAIMS);
        for got in recorder.seen() {
            let expected = [
                ("x-forwarded-for", vec![ADDRESS]),
                ("x-forwarded-proto", vec!["http"]),
                ("x-forwarded-host", vec!["h:1"]),
            ];
            assert_eq!(told(&got.head), expected);
        }
        let hint = format!("`trusted_proxies = [\"{ADDRESS}\"]`");
        gateway.wait_line(&hint);
        assert_eq!(gateway.stderr().matches(&hint).count(), 1);
    });
}

#[test]
fn a_stranger_cannot_say_it_in_trailers_either() {
    namespace::network(ADDRESS, || {
        let recorder = Recorder::ok();
        let (gateway, outside) = from_outside(&recorder, "");
        for target in [&gateway.target(), &outside] {
            let text = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Real-IP, X-Forwarded-For\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
            assert_eq!(block_on(request(target, text)).unwrap().status(), 200);
        }
        let seen = recorder.seen();
        assert_eq!(seen[0].trailers.len(), 3, "{:?}", seen[0]);
        assert_eq!(seen[1].body, "hi");
        assert_eq!(seen[1].trailers.len(), 1, "{:?}", seen[1]);
        assert!(seen[1].trailers[0].0.eq_ignore_ascii_case("x-sum"));
    });
}

#[test]
fn a_trusted_proxy_is_believed_and_appended_to() {
    namespace::network(ADDRESS, || {
        let recorder = Recorder::ok();
        let (gateway, target) = from_outside(&recorder, "trusted_proxies = [\"10.0.0.0/8\"]");
        ask(
            &target,
            "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nX-Real-IP: 1.2.3.4\r\n",
        );
        let expected = [
            ("x-forwarded-for", vec!["1.2.3.4, 5.6.7.8, 10.77.0.1"]),
            ("x-forwarded-proto", vec!["https"]),
            ("x-forwarded-host", vec!["shop.example"]),
            ("x-real-ip", vec!["1.2.3.4"]),
        ];
        assert_eq!(told(&recorder.only().head), expected);
        assert!(!gateway.stderr().contains("trusted_proxies"));
    });
}

#[test]
fn the_headers_can_be_set_for_all_or_for_none() {
    namespace::network(ADDRESS, || {
        for mode in ["always", "never"] {
            let recorder = Recorder::ok();
            let config = format!("forwarded = \"{mode}\"");
            let (gateway, outside) = from_outside(&recorder, &config);
            ask(&gateway.target(), CLAIMS);
            ask(&outside, CLAIMS);
            let seen = recorder.seen();
            let (local, remote) = (told(&seen[0].head), told(&seen[1].head));
            if mode == "always" {
                assert_eq!(local[0], ("x-forwarded-for", vec!["127.0.0.1"]));
                assert_eq!(local[1], ("x-forwarded-proto", vec!["http"]));
                assert_eq!((local.len(), remote.len()), (3, 3), "{local:?} {remote:?}");
            } else {
                assert_eq!((local.len(), remote.len()), (11, 0), "{local:?} {remote:?}");
            }
        }
    });
}

#[test]
fn nginx_with_tls_in_front_works_without_a_setting() {
    if !["nginx", "openssl", "curl"]
        .iter()
        .all(|name| servers::have(name))
    {
        return;
    }
    let recorder = Recorder::ok();
    let gateway = Setup::upstream(recorder.addr()).start();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args([
            "-subj",
            "/CN=shop.example",
            "-keyout",
            &at("key"),
            "-out",
            &at("cert"),
        ])
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    let (port, addr) = (port::private(), gateway.addr());
    fs::write(
        at("conf"),
        format!(
            "daemon off; master_process off; pid {0}/pid; error_log stderr; events {{}}\n\
             http {{ access_log off; client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n\
             server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {0}/cert; ssl_certificate_key {0}/key;\n\
             location / {{ proxy_pass http://{addr}; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;\n\
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Real-IP $remote_addr; }} }} }}",
            dir.path().display()
        ),
    )
    .unwrap();
    let mut nginx = Command::new("nginx")
        .args(["-e", "stderr", "-c", &at("conf")])
        .spawn()
        .unwrap();
    let url = format!("https://shop.example:{port}/");
    let resolve = format!("shop.example:{port}:127.0.0.1");
    let page = wait::within(wait::DEADLINE, || {
        let curl = ["-s", "--cacert", &at("cert"), "--resolve", &resolve, &url];
        let output = Command::new("curl").args(curl).output().unwrap();
        output.status.success().then_some(output.stdout)
    });
    let _ = nginx.kill();
    let _ = nginx.wait();
    assert_eq!(page.as_deref(), Some(&b"ok\n"[..]));
    let head = recorder.only().head;
    let expected = [
        ("x-forwarded-for", vec!["127.0.0.1"]),
        ("x-forwarded-proto", vec!["https"]),
        ("x-real-ip", vec!["127.0.0.1"]),
    ];
    assert_eq!(told(&head), expected);
    assert!(!gateway.stderr().contains("trusted_proxies"));
}

#[test]
fn the_access_log_names_the_client_that_limits_count_and_believes_no_stranger() {
    namespace::network(ADDRESS, || {
        let recorder = Recorder::ok();
        let hops = |hops: &str| format!("X-Forwarded-For: {hops}\r\n");
        let chain = hops("6.6.6.6, [2001:db8::7]:443, 10.77.0.9");
        let hostile = hops("6.6.6.6, 1.1.1.1\"}\t{\"client\":\"");
        let trusting = "trusted_proxies = [\"10.77.0.0/24\"]\n";
        for (trusted, headers, logged) in [
            ("", "", ADDRESS),
            ("", &chain, ADDRESS),
            (trusting, "", ADDRESS),
            (trusting, &chain, "2001:db8::7"),
            (trusting, &hops("10.77.0.8, 127.0.0.1"), ADDRESS),
            (trusting, &hostile, ADDRESS),
        ] {
            let config = format!("{trusted}access_log = \"stderr\"");
            let (gateway, target) = from_outside(&recorder, &config);
            ask(&target, headers);
            gateway.wait_line(&format!(",\"client\":\"{logged}\",\"method\":\"GET\""));
            assert!(!gateway.stderr().contains("6.6.6.6"), "{headers}");
            // A proxy on this machine tells the truth.
            ask(&gateway.target(), &hops("198.51.100.9"));
            gateway.wait_line(",\"client\":\"198.51.100.9\"");
        }
    });
}
