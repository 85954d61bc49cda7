//! Whether a sidecar listens on loopback alone, and how the usual frameworks are told to.

use std::convert::Infallible;
use std::net::SocketAddr;

use tracing::warn;

use super::state::{SidecarControl, SidecarStart};
use crate::os::mutex::lock;
use crate::os::port::ServerAddress;

/// A word of the command line, and what to change.
const SWITCHES: [(&str, &str); 27] = [
    ("http.server", "--bind 127.0.0.1"),
    ("uvicorn", "--host 127.0.0.1"),
    ("fastapi", "--host 127.0.0.1"),
    ("gunicorn", "-b 127.0.0.1:{port}"),
    ("hypercorn", "-b 127.0.0.1:{port}"),
    ("daphne", "-b 127.0.0.1"),
    ("waitress-serve", "--listen=127.0.0.1:{port}"),
    ("manage.py", "runserver 127.0.0.1:{port}"),
    ("django-admin", "runserver 127.0.0.1:{port}"),
    ("flask", "--host 127.0.0.1"),
    ("streamlit", "--server.address 127.0.0.1"),
    ("next", "-H 127.0.0.1"),
    ("nuxt", "--host 127.0.0.1"),
    ("vite", "--host 127.0.0.1"),
    ("astro", "--host 127.0.0.1"),
    ("ng", "--host 127.0.0.1"),
    ("puma", "-b tcp://127.0.0.1:{port}"),
    ("rackup", "-o 127.0.0.1"),
    ("rails", "-b 127.0.0.1"),
    ("php", "-S 127.0.0.1:{port}"),
    ("artisan", "serve --host=127.0.0.1"),
    ("dotnet", "--urls http://127.0.0.1:{port}"),
    ("java", "--server.address=127.0.0.1 (Spring)"),
    ("deno", "Deno.serve({ port, hostname: \"127.0.0.1\" }, ...)"),
    ("bun", "Bun.serve({ port, hostname: \"127.0.0.1\", ... })"),
    ("node", "app.listen(port, \"127.0.0.1\")"),
    (
        "npm",
        "app.listen(port, \"127.0.0.1\"), or the framework's --host 127.0.0.1",
    ),
];

/// Looks whether a server that is ready can be reached without the front door, and says so once.
pub(super) async fn look_beyond(
    start: &SidecarStart,
    control: &SidecarControl,
    at: ServerAddress,
) -> Infallible {
    let look = tokio::task::spawn_blocking(move || at.exposed());
    let found = look.await.unwrap_or_default();
    let known = std::mem::replace(&mut *lock(&control.exposed), found.clone());
    if !found.is_empty() && found != known {
        let port = at.address.port();
        let places = found
            .iter()
            .map(|ip| SocketAddr::new(*ip, port).to_string());
        let places = places.collect::<Vec<_>>().join(" and ");
        let name = &start.name;
        warn!(
            SIDECAR = name,
            "[gateway] sidecar {name} listens on {places}: who reaches this machine reaches it past the front door; let it listen on 127.0.0.1 alone: {}",
            switch(&start.redactor.command(&start.spec.command))
        );
    }
    std::future::pending().await
}

/// The words of a command line, of a script in it too, without their directories.
pub(super) fn words_of(command: &str) -> impl Iterator<Item = &str> {
    let words = command.split([' ', '\t', '\n', '\'', '"', ';', '&', '|']);
    words.map(|word| word.rsplit('/').next().unwrap_or(word))
}

/// What to change in a program that listens at more than loopback, by its command line.
pub fn switch(command: &str) -> &'static str {
    let known = SWITCHES.iter().find(|(name, _)| {
        words_of(command).any(|word| {
            let script = word
                .strip_suffix(".js")
                .or_else(|| word.strip_suffix(".mjs"));
            word == *name || script == Some(name)
        })
    });
    known.map_or(
        "its address, often --host or --bind 127.0.0.1",
        |(_, switch)| switch,
    )
}

#[cfg(test)]
mod tests {
    use super::switch;

    #[test]
    fn the_switch_of_a_framework_is_found_by_its_command() {
        for (command, expected) in [
            ("/usr/bin/node server.js --port 41233", "app.listen("),
            (
                "node /srv/node_modules/.bin/next start -p 1",
                "-H 127.0.0.1",
            ),
            ("node node_modules/vite/bin/vite.js", "--host 127.0.0.1"),
            (
                "sh -c 'exec uvicorn app:app --port $PORT'",
                "--host 127.0.0.1",
            ),
            ("/srv/venv/bin/gunicorn app:app", "-b 127.0.0.1:{port}"),
            ("python3 -m http.server 8000", "--bind 127.0.0.1"),
            (
                "python manage.py runserver 0:8000",
                "runserver 127.0.0.1:{port}",
            ),
            ("bundle exec puma -p 1", "-b tcp://127.0.0.1:{port}"),
            ("bin/rails server", "-b 127.0.0.1"),
            ("php -S 0.0.0.0:8000", "-S 127.0.0.1:{port}"),
            ("./server", "its address"),
            ("./nextcloud", "its address"),
        ] {
            assert!(
                switch(command).starts_with(expected),
                "{command}: {}",
                switch(command)
            );
        }
    }
}
