//! The servers that are put behind the gateway, as commands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use super::load::Download;

/// The Node server of the tests; what it can do stands at its head.
pub const NODE_APP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/node-app.mjs");

/// The beginning of a Python program that answers in the place of a gateway.
pub const IMPOSTOR: &str = include_str!("../servers/impostor.py");

/// `node node-app.mjs {port}`
pub fn node() -> Vec<String> {
    vec![
        program("node", &["/usr/bin/node", "/usr/local/bin/node"]),
        NODE_APP.into(),
        "{port}".into(),
    ]
}

/// A command that starts the other one only when there is the file `gate`.
pub fn once_there(
    gate: &Path,
    command: impl IntoIterator<Item = impl Into<String>>,
) -> Vec<String> {
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.05; done; exec \"$@\"",
        gate.display()
    );
    let waiting = ["sh".to_owned(), "-c".into(), script, "sh".into()];
    let command = command.into_iter().map(Into::into);
    waiting.into_iter().chain(command).collect()
}

/// The Node server holding a lock for life: a second copy beside it ends at once with code 9.
pub fn node_with_lock(lock: &Path) -> Vec<String> {
    let mut command: Vec<String> = [
        "flock",
        "--nonblock",
        "--no-fork",
        "--conflict-exit-code",
        "9",
    ]
    .map(str::to_owned)
    .into();
    command.push(lock.display().to_string());
    command.extend(node());
    command
}

/// `python3 -m http.server` with the files of `dir`.
pub fn python(dir: &Path) -> Vec<String> {
    let python = program("python3", &["/usr/bin/python3"]);
    let dir = dir.display().to_string();
    [
        &python,
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        &dir,
        "{port}",
    ]
    .map(str::to_owned)
    .into()
}

/// nginx in the foreground with the files of `dir`; its own files lie in `dir/.nginx`.
pub fn nginx(dir: &Path) -> Vec<String> {
    let own = dir.join(".nginx");
    fs::create_dir_all(&own).unwrap();
    let template = own.join("template.conf");
    let text = "daemon off;\nmaster_process on;\nworker_processes 1;\npid OWN/PORT.pid;\nerror_log stderr warn;\n\
        events { worker_connections 1024; }\n\
        http {\n  access_log off;\n  default_type text/plain;\n\
        \x20 client_body_temp_path OWN/body; proxy_temp_path OWN/proxy; fastcgi_temp_path OWN/fcgi; uwsgi_temp_path OWN/uwsgi; scgi_temp_path OWN/scgi;\n\
        \x20 server { listen 127.0.0.1:PORT; root DIR; }\n}\n";
    let text = text
        .replace("OWN", &own.display().to_string())
        .replace("DIR", &dir.display().to_string());
    fs::write(&template, text).unwrap();
    let nginx = program("nginx", &["/usr/sbin/nginx", "/usr/bin/nginx"]);
    // nginx knows no port on its command line, so the wrapper writes it into a copy of the
    // configuration.
    let script = "sed \"s/PORT/$1/g\" \"$2/template.conf\" > \"$2/$1.conf\" && exec \"$3\" -e stderr -c \"$2/$1.conf\"";
    [
        "sh",
        "-c",
        script,
        "sh",
        "{port}",
        &own.display().to_string(),
        &nginx,
    ]
    .map(str::to_owned)
    .into()
}

/// A directory with an `index.html` and a file to download slowly.
pub fn files(dir: &Path, length: u64, takes: Duration) -> Download {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("index.html"), "hello\n").unwrap();
    fs::write(dir.join("big.bin"), pattern(length)).unwrap();
    // nginx workers run as another user when the tests are run by root.
    make_readable(dir);
    Download {
        path: "/big.bin".into(),
        length,
        takes,
    }
}

/// The same bytes from the Node server, which takes its time too.
pub fn node_download(length: u64, takes: Duration) -> Download {
    Download {
        path: format!("/download?bytes={length}&ms={}", takes.as_millis()),
        length,
        takes,
    }
}

/// The bytes of every download, as node-app.mjs sends them: 64 KiB that repeat.
pub fn pattern(length: u64) -> Vec<u8> {
    let length = usize::try_from(length).unwrap();
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let piece = PATTERN.len().min(length - bytes.len());
        bytes.extend_from_slice(&PATTERN[..piece]);
    }
    bytes
}

/// Whether these bytes are those that stand at this place of a download.
pub fn is_pattern(at: usize, mut bytes: &[u8]) -> bool {
    let mut place = at % PATTERN.len();
    while !bytes.is_empty() {
        let piece = bytes.len().min(PATTERN.len() - place);
        if bytes[..piece] != PATTERN[place..place + piece] {
            return false;
        }
        bytes = &bytes[piece..];
        place = 0;
    }
    true
}

static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0_usize..65_536)
        .map(|place| u8::try_from((place * 31 + (place >> 8) * 17) & 0xff).unwrap())
        .collect()
});

fn make_readable(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mut at: Option<&Path> = Some(dir);
    while let Some(dir) =
        at.filter(|dir| dir.starts_with(std::env::temp_dir()) && *dir != std::env::temp_dir())
    {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        at = dir.parent();
    }
}

/// The first of these that exists, else the name alone: version managers put slow wrappers first on
/// the PATH.
fn program(name: &str, places: &[&str]) -> String {
    places
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .map_or_else(|| name.to_owned(), |path| path.display().to_string())
}

/// Whether a program is there; without it the test is skipped, and says so.
pub fn have(name: &str) -> bool {
    super::skip::unless_there(name)
}

/// A Python server that says READY=1 half a second after it listens.
pub fn python_notify() -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/notify.py");
    vec![
        program("python3", &["/usr/bin/python3"]),
        script.into(),
        "{port}".into(),
    ]
}

/// Python's http.server with an accept queue of five, 5 ms for each request, and a start of so long.
pub fn python_one_at_a_time(start: Duration) -> Vec<String> {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/servers/one_at_a_time.py"
    );
    vec![
        program("python3", &["/usr/bin/python3"]),
        script.into(),
        "{port}".into(),
        start.as_secs_f64().to_string(),
    ]
}

/// A Python server with answers that never end; what it can do stands at its head.
pub fn python_streams() -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/streams.py");
    vec![
        program("python3", &["/usr/bin/python3"]),
        script.into(),
        "{port}".into(),
    ]
}

/// The file of the interpreter that python3 leads to: the name may lead to a script of root's.
pub fn interpreter() -> PathBuf {
    let mut command = Command::new("python3");
    let output = command
        .args(["-c", "import os; print(os.path.realpath('/proc/self/exe'))"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().into()
}
