//! Real servers, each restarted to a good and to a broken version under load: no request fails, the old
//! version serves on where the new one is broken, the message names the cause, and the verdict of each
//! restart agrees with what an outside load counted.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::load::{Load, Running};
use crate::support::report::Part;
use crate::support::{servers, skip, wait};

/// What tests/run fetches from PyPI.
const PYPI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python");

/// The interpreter for which Debian's packages are.
const PYTHON: &str = "/usr/bin/python3";

/// What every broken version fails with.
const BROKEN: &str = "nothing_like_that";

/// A server behind a gateway, under load.
struct Trial {
    gateway: Gateway,
    load: Running,
    /// Requests of the test itself.
    asked: u64,
}

impl Trial {
    /// `workers` is how many lines with "loaded 1" its first version prints.
    fn begin(setup: Setup, workers: usize) -> Self {
        // Two versions of one second and one length would be one for Python.
        let gateway = setup.env("PYTHONDONTWRITEBYTECODE", "1").start();
        let load = Load {
            new_per_second: 60.0,
            kept: 6,
            ..Load::on(gateway.target())
        }
        .start();
        let mut trial = Self {
            gateway,
            load,
            asked: 0,
        };
        trial.serves(1, workers);
        trial.load.flows(Part::New, 20);
        trial
    }

    /// It answers with this version, which all its workers have loaded: one that loads late would load
    /// the next one.
    fn serves(&mut self, version: u32, workers: usize) {
        for worker in 0..workers {
            self.gateway
                .wait_nth_line(&format!("loaded {version}"), worker);
        }
        let answer = block_on(client::get(&self.gateway.target(), "/")).unwrap();
        self.asked += 1;
        assert_eq!(answer.text().trim(), format!("version {version}"));
    }

    /// Restarts; the verdict of it must be what the load saw.
    fn restart(&self) -> (Output, Value) {
        let before = self.load.so_far();
        let output = self.gateway.ctl(["restart", "--json"]);
        let after = self.load.so_far();
        let text = String::from_utf8_lossy(&output.stdout);
        let answer: Value = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{}\n{}", said(&output), self.gateway.stderr()));
        let clients = &answer["clients"];
        assert_eq!(clients["failed"], json!({}), "{clients}");
        let answered = clients["answered"].as_u64().unwrap();
        let most = after.begun - before.ended();
        assert!(answered <= most, "{answered} of at most {most}: {clients}");
        (output, answer)
    }

    fn good(&mut self, version: u32, workers: usize) {
        let (output, answer) = self.restart();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(answer["outcome"], "done", "{answer}");
        self.serves(version, workers);
    }

    /// The restart fails and says why, and the version before serves on.
    fn broken(&mut self, version: u32, named: &[&str]) {
        let (output, _) = self.restart();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        for part in named {
            assert!(text.contains(part), "no {part}: {text}");
        }
        self.serves(version, 0);
    }

    fn end(self, server: &str) {
        self.load.flows(Part::New, 60);
        let report = self.load.stop();
        eprintln!("{server}: {report}");
        report.assert_clean(&[(Part::New, 60), (Part::Busy, 10)]);
        let counted = r#"gateway_route_ends_total{sidecar="main",route="/",end="done"}"#;
        let counted = self.gateway.metric(counted);
        assert_eq!(counted, report.ended() + self.asked, "answers in all");
    }
}

/// Replaces a file at once: a worker may be reading it.
fn write(file: &Path, text: &str) {
    let unfinished = file.with_extension("unfinished");
    fs::write(&unfinished, text).unwrap();
    fs::rename(&unfinished, file).unwrap();
}

#[test]
fn gunicorn_with_two_workers() {
    if !servers::have("gunicorn") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app.py");
    let deploy = |version: u32| {
        let text = format!(
            "import sys\nsys.stdout.write('loaded {version}\\n')\ndef app(environ, start):\n  start('200 OK', [])\n  return [b'version {version}']\n"
        );
        write(&app, &text);
    };
    deploy(1);
    let chdir = dir.path().to_str().unwrap();
    let setup = Setup::behind([
        "gunicorn",
        "-w",
        "2",
        "--bind",
        "127.0.0.1:{port}",
        "--chdir",
        chdir,
        "app:app",
    ]);
    let mut trial = Trial::begin(setup, 2);
    deploy(2);
    trial.good(2, 2);
    write(&app, &format!("import {BROKEN}\n"));
    trial.broken(2, &[BROKEN, "exited with code"]);
    trial.end("gunicorn");
}

#[test]
fn puma_with_two_workers() {
    if !servers::have("puma") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("config.ru");
    let deploy = |version: u32| {
        let text = format!(
            "STDOUT.sync = true\nputs 'loaded {version}'\nrun ->(env) {{ [200, {{}}, ['version {version}']] }}\n"
        );
        write(&app, &text);
    };
    deploy(1);
    let setup = Setup::behind([
        "puma",
        "-w",
        "2",
        "-b",
        "tcp://127.0.0.1:{port}",
        app.to_str().unwrap(),
    ]);
    let mut trial = Trial::begin(setup.flag("--start-timeout=5s"), 2);
    deploy(2);
    trial.good(2, 2);
    // puma names the place, and not what is wrong there.
    write(&app, &format!("raise '{BROKEN}'\n"));
    let named = [
        "Unable to start worker",
        "config.ru:1:",
        "was not ready after",
    ];
    trial.broken(2, &named);
    trial.end("puma");
}

/// An ASGI application; the workers load it.
fn asgi(version: u32) -> String {
    format!(
        "import sys
sys.stdout.write('loaded {version}\\n')
async def app(scope, receive, send):
  assert scope['type'] == 'http'
  await send({{'type': 'http.response.start', 'status': 200, 'headers': []}})
  await send({{'type': 'http.response.body', 'body': b'version {version}'}})
"
    )
}

/// uvicorn, as this command starts it: how long its broken version took to fail comes back.
fn uvicorn(command: &[&str], python_path: &str) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app.py");
    write(&app, &asgi(1));
    let chdir = dir.path().to_str().unwrap();
    let more = ["--workers", "2", "--port", "{port}", "--app-dir", chdir];
    let setup = Setup::behind([command, &more, &["app:app"]].concat());
    let setup = setup.env("PYTHONPATH", python_path);
    let mut trial = Trial::begin(setup.flag("--start-timeout=5s"), 2);
    write(&app, &asgi(2));
    trial.good(2, 2);
    write(&app, &format!("import {BROKEN}\n"));
    let begun = Instant::now();
    trial.broken(2, &[BROKEN, "was not ready after"]);
    let took = begun.elapsed();
    trial.end("uvicorn");
    took
}

/// Its main process waits for workers that have failed.
#[test]
fn uvicorn_of_debian_with_two_workers() {
    if servers::have("uvicorn") {
        uvicorn(&["uvicorn"], "");
    }
}

/// Its main process starts a failed worker again, for ever: the same traceback used up ten start timeouts.
#[test]
fn uvicorn_of_pypi_with_two_workers() {
    if !Path::new(PYPI).join("uvicorn").exists() {
        return skip::because("tests/run has not fetched uvicorn from PyPI");
    }
    let took = uvicorn(&[PYTHON, "-m", "uvicorn"], PYPI);
    assert!(took < Duration::from_secs(25), "{took:?}");
}

#[test]
fn django_runserver() {
    if !servers::have("django-admin") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let manage = dir.path().join("manage.py");
    let settings = "from django.conf import settings\n\
        settings.configure(DEBUG=True, SECRET_KEY='x', ROOT_URLCONF='site_urls', ALLOWED_HOSTS=['*'])\n\
        from django.core.management import execute_from_command_line\n\
        import sys\nexecute_from_command_line(sys.argv)\n";
    write(&manage, settings);
    let urls = dir.path().join("site_urls.py");
    let deploy = |version: u32| {
        let text = format!(
            "from django.http import HttpResponse\nfrom django.urls import path\nimport sys\nsys.stdout.write('loaded {version}\\n')\n\
             urlpatterns = [path('', lambda request: HttpResponse('version {version}'))]\n"
        );
        write(&urls, &text);
    };
    deploy(1);
    let manage = manage.to_str().unwrap();
    let setup = Setup::behind([
        PYTHON,
        manage,
        "runserver",
        "--noreload",
        "127.0.0.1:{port}",
    ]);
    let mut trial = Trial::begin(setup, 1);
    deploy(2);
    trial.good(2, 1);
    write(&urls, &format!("import {BROKEN}\n"));
    trial.broken(2, &[BROKEN, "exited with code 1 before it was ready"]);
    trial.end("django");
}

/// nginx as the application: a second copy beside the first one.
#[test]
fn nginx_as_application() {
    if !servers::have("nginx") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let command = servers::nginx(dir.path());
    let template = dir.path().join(".nginx/template.conf");
    let before = fs::read_to_string(&template).unwrap();
    let root = format!("root {};", dir.path().display());
    let deploy = |answer: &str| write(&template, &before.replace(&root, answer));
    let version = |version: u32| format!("location / {{ return 200 \"version {version}\"; }}");
    deploy(&version(1));
    let mut trial = Trial::begin(Setup::behind(command), 0);
    deploy(&version(2));
    trial.good(2, 0);
    deploy(&format!("{BROKEN} on;"));
    trial.broken(2, &[BROKEN, "exited with code 1 before it was ready"]);
    trial.end("nginx");
}

/// `python3 -m http.server`, by the command that the configuration has.
fn http_server(dir: &Path, version: u32, more: &str) -> String {
    let place = dir.join(version.to_string());
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("index.html"), format!("version {version}\n")).unwrap();
    let mut command = servers::python(&place);
    command.push(more.to_owned());
    command.retain(|word| !word.is_empty());
    format!("[sidecar.main]\ncommand = {command:?}\n")
}

fn http_server_restarts(keys: &str) {
    if !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = |version, more| format!("{}{keys}", http_server(dir.path(), version, more));
    let mut trial = Trial::begin(Setup::new().config(config(1, "")), 0);
    let file = trial.gateway.config_file();
    write(&file, &config(2, ""));
    trial.good(2, 0);
    write(&file, &config(3, &format!("--{BROKEN}")));
    trial.broken(2, &[BROKEN, "exited with code 2 before it was ready"]);
    trial.end("http.server");
}

#[test]
fn http_server_side_by_side() {
    http_server_restarts("");
}

/// One copy at a time: the old one is started again, and nobody has failed.
#[test]
fn http_server_one_at_a_time() {
    http_server_restarts("overlap = false\n");
}

/// A server that starts more slowly than clients are held for: each client that fails is in the verdict.
#[test]
fn the_verdict_counts_each_client_that_failed_while_gunicorn_was_away() {
    if !servers::have("gunicorn") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (app, go) = (dir.path().join("app.py"), dir.path().join("go"));
    fs::write(&go, "").unwrap();
    let text = format!(
        "import os, time\nwhile not os.path.exists({go:?}): time.sleep(0.02)\ndef app(environ, start):\n  start('200 OK', [])\n  return [b'version 1']\n"
    );
    fs::write(&app, text).unwrap();
    let chdir = dir.path().to_str().unwrap();
    let setup = Setup::behind([
        "gunicorn",
        "--bind",
        "127.0.0.1:{port}",
        "--chdir",
        chdir,
        "app:app",
    ]);
    let setup = setup.flag("--exclusive");
    let trial = Trial::begin(setup.config("[restart]\nhold = { time = \"300ms\" }\n"), 0);
    fs::remove_file(&go).unwrap();
    let restart = trial.gateway.ctl_aside(["restart", "--json"]);
    wait::until("clients have failed", || {
        (trial.load.so_far().failures_of("status 503") > 30).then_some(())
    });
    fs::write(&go, "").unwrap();
    let output = restart.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["outcome"], "done", "{answer}");
    trial.load.flows(Part::New, 20);
    let report = trial.load.stop();
    let failed = json!({ "503": report.failures() });
    assert_eq!(answer["clients"]["failed"], failed, "{report}");
}
