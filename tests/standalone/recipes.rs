//! The servers of the recipes, as the pages below `docs/recipes` tell: their files, their command
//! line, an answer, a restart, an answer.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::client::{self, Target, block_on};
use crate::support::gateway::{Setup, said};
use crate::support::pages::{self, Page};
use crate::support::{port, servers, wait};

/// Debian's programs first: their Python has Django.
const PATH: &str = "/usr/bin:/bin:/usr/local/bin:/usr/sbin";

/// What is run here: page, command line, the programs that it needs, what it answers, and what is
/// done in its directory before.
const TRIED: [(&str, &str, &[&str], &str, &str); 9] = [
    (
        "node",
        "gateway run -- node server.mjs",
        &["node"],
        "hello",
        "",
    ),
    (
        "node",
        "gateway run -- npm start",
        &["node", "npm"],
        "hello",
        "",
    ),
    (
        "python",
        "gateway run -- .venv/bin/python -m http.server --bind 127.0.0.1 {port}",
        &["python3"],
        "Directory listing",
        "python3 -m venv --without-pip .venv",
    ),
    (
        "python",
        "gateway run -- gunicorn mysite.wsgi --bind 127.0.0.1:{port}",
        &["gunicorn", "django-admin"],
        "Django",
        "django-admin startproject mysite .",
    ),
    (
        "python",
        "gateway run -- python3 manage.py runserver --noreload 127.0.0.1:{port}",
        &["django-admin"],
        "Django",
        "django-admin startproject mysite .",
    ),
    (
        "python",
        "gateway run -- uvicorn app:app --host 127.0.0.1 --port {port}",
        &["uvicorn"],
        "hello",
        "",
    ),
    (
        "sqlite",
        "gateway run --exclusive -- python3 app.py",
        &["python3"],
        " visits",
        "",
    ),
    (
        "environment",
        "gateway run --env-file .env -- node server.mjs",
        &["node"],
        "hello",
        "",
    ),
    (
        "slow-start",
        "gateway run --ready /health --start-timeout 5m -- python3 app.py",
        &["python3"],
        "",
        "",
    ),
];

/// What the suite cannot or need not run, and why; that the programs take it is tested anyway.
const NOT_TRIED: [(&str, &str); 14] = [
    (
        "gateway run --listen 3000 ",
        "another program of this machine may have the port",
    ),
    (
        "gateway run --app-port 3000 ",
        "another program of this machine may have the port",
    ),
    (
        "gateway run --ready /health -- node server.js --port {port}",
        "an example of flags",
    ),
    (
        "gateway run --ready /health -- node app.mjs",
        "needs express from npm",
    ),
    (
        "-- node_modules/.bin/next ",
        "needs next from npm: tests/frontends",
    ),
    (
        "-- node_modules/.bin/vite ",
        "needs vite from npm: tests/frontends",
    ),
    ("-- openclaw ", "needs openclaw from npm: tests/openclaw"),
    ("-- fastapi run ", "needs fastapi from PyPI"),
    (
        "gateway run -e NODE_ENV=production -- node server.mjs",
        "an example of a flag",
    ),
    (
        "gateway run --start-timeout 5m -- python3 app.py",
        "the next line of its page is run",
    ),
    (
        "gateway run --config ./gateway.toml",
        "has a test of its own",
    ),
    ("sudo gateway run --listen :80 ", "needs port 80"),
    ("gateway run --cwd /srv/app/current ", "needs next from npm"),
    ("docker ", "needs an engine"),
];

/// A process that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn page(name: &str) -> Page {
    Page::read(format!("docs/recipes/{name}.md"))
}

/// The files that the page shows.
fn files(page: &Page, dir: &Path) {
    for block in page.blocks() {
        if let Some(name) = block.file().filter(|name| *name != "Caddyfile") {
            fs::write(dir.join(name), block.text()).unwrap();
        }
    }
}

/// Starts it, and asks before and after a restart.
fn tried(setup: Setup, path: &str, expected: &str) {
    let gateway = setup.start();
    let answers = || {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = block_on(client::request(&gateway.target(), &request)).unwrap();
        let text = answer.text();
        assert!(answer.status() == 200 && text.contains(expected), "{text}");
    };
    answers();
    let restarted = gateway.ctl(["restart"]);
    assert!(
        restarted.status.success() && said(&restarted).contains("restarted: "),
        "{}\n{}",
        said(&restarted),
        gateway.stderr()
    );
    answers();
}

fn try_recipe(name: &str, line: &str, expected: &str, before: &str) {
    let page = page(name);
    let shown = page
        .blocks()
        .iter()
        .any(|block| block.commands().contains(&line));
    assert!(shown, "{} does not show `{line}`", page.name);
    let dir = tempfile::tempdir().unwrap();
    files(&page, dir.path());
    if !before.is_empty() {
        let mut prepare = Command::new("sh");
        prepare.args(["-c", before]).env("PATH", PATH);
        let output = prepare.current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{before}: {}", said(&output));
    }
    let (flags, command) = line.split_once("-- ").unwrap();
    let command = command.split_whitespace();
    let mut setup = Setup::behind(command).in_dir(dir).env("PATH", PATH);
    for flag in flags.split_whitespace().skip(2) {
        setup = setup.flag(flag);
    }
    tried(setup, "/", expected);
}

#[test]
fn each_recipe_that_this_machine_can_run_runs_and_restarts() {
    for (name, line, programs, expected, before) in TRIED {
        if programs.iter().all(|program| servers::have(program)) {
            eprintln!("{name}: {line}");
            try_recipe(name, line, expected, before);
        }
    }
}

#[test]
fn no_recipe_is_forgotten() {
    for page in pages::all() {
        if !page.name.starts_with("docs/recipes/") {
            continue;
        }
        let blocks = page.blocks();
        for line in blocks.iter().flat_map(|block| block.commands()) {
            let is_one = line.starts_with("gateway run ") || line.contains(" gateway run ");
            let known = TRIED.iter().any(|(name, tried, ..)| {
                *tried == line && page.name == format!("docs/recipes/{name}.md")
            });
            let excused = NOT_TRIED.iter().any(|(part, _)| line.contains(part));
            assert!(!is_one || known || excused, "{}: {line}", page.name);
        }
    }
}

#[test]
fn two_applications_behind_one_gateway() {
    if !servers::have("node") || !servers::have("python3") {
        return;
    }
    let page = page("two-applications");
    let dir = tempfile::tempdir().unwrap();
    files(&page, dir.path());
    fs::create_dir(dir.path().join("jobs")).unwrap();
    let config = fs::read_to_string(dir.path().join("gateway.toml")).unwrap();
    let setup = Setup::new().in_dir(dir).config(config);
    tried(setup.clone(), "/", "web");
    tried(setup, "/jobs/", "Directory listing");
}

#[test]
fn nginx_in_front_as_the_recipe_has_it() {
    if !servers::have("nginx") || !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(servers::node()).start();
    let page = page("tls");
    let blocks = page.blocks();
    let config = blocks
        .iter()
        .find(|block| block.section == "nginx")
        .unwrap();
    let door = port::private();
    // Certificates are the one thing that this machine does not have.
    let site: String = config
        .text()
        .lines()
        .filter(|line| !line.trim_start().starts_with("ssl_"))
        .map(|line| line.replace("443 ssl", &format!("127.0.0.1:{door}")) + "\n")
        .collect();
    let site = site.replace("127.0.0.1:18789", &gateway.addr().to_string());
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {own}/{kind};\n"))
        .concat();
    let file = dir.path().join("nginx.conf");
    let text = format!(
        "daemon off;\nmaster_process off;\npid {own}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{site}}}\n"
    );
    fs::write(&file, text).unwrap();
    let nginx = Command::new("/usr/sbin/nginx")
        .args(["-e", "stderr", "-c"])
        .arg(&file)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let _nginx = Ended(nginx);
    let answers = wait::within(wait::DEADLINE, || {
        TcpStream::connect(("127.0.0.1", door)).ok()?;
        let target = Target::Tcp(([127, 0, 0, 1], door).into());
        Some(block_on(client::get(&target, "/")).unwrap())
    });
    assert_eq!(answers.expect("nginx listens").status(), 200);
}
