//! What is known of well-known servers: how they show that they are ready, how they restart by
//! themselves, and whether two copies may run. `gatewayctl presets` shows it, its manual page is made
//! from it, and the log suggests what a command lacks.
//!
//! A fact is here only if the documentation of the server says it, or a test of this repository shows
//! it; `source` says where.

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::loopback::words_of;
use crate::config::{Ready, SidecarSpec, StdinMode};
use crate::text::words::words;

/// A well-known server.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preset {
    /// Its name.
    pub program: &'static str,
    /// The words of a command line that show it; all of them must be there.
    #[serde(skip)]
    known_by: &'static [&'static str],
    /// The flags of `gateway run` and `gatewayctl install` that it needs.
    #[serde(serialize_with = "as_texts")]
    #[schemars(with = "Vec<String>")]
    pub flags: &'static [PresetFlag],
    /// Its own restart, as `reload` is written in the configuration.
    pub reload: Option<&'static str>,
    /// Whether two copies of it may run at once.
    pub two_copies: TwoCopies,
    /// What to know.
    pub note: &'static str,
    /// Where that is documented.
    pub source: &'static str,
}

/// A flag that a server needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresetFlag {
    /// `--ready PATH`
    Ready(&'static str),
    /// `--reload SIGNAL`
    Reload(&'static str),
    /// `--exclusive`
    Exclusive,
    /// `--stdin hold`
    HoldStdin,
}

words! {
    /// Whether two copies of a server may run at once.
    pub enum TwoCopies {
        /// They may.
        Yes = "yes",
        /// It refuses, or they disturb each other.
        No = "no",
        /// That is for the application to say.
        Application = "application",
    }
}

impl PresetFlag {
    /// As it is written.
    pub fn text(self) -> String {
        match self {
            Self::Ready(path) => format!("--ready {path}"),
            Self::Reload(signal) => format!("--reload {signal}"),
            Self::Exclusive => "--exclusive".to_owned(),
            Self::HoldStdin => "--stdin hold".to_owned(),
        }
    }

    /// Whether the sidecar says something else than the default already.
    fn is_decided(self, spec: &SidecarSpec) -> bool {
        match self {
            Self::Ready(_) => spec.ready != Ready::Answers,
            // One that is started alone does not meet the copy before it.
            Self::Reload(_) => spec.reload.is_some() || !spec.overlaps(),
            Self::Exclusive => spec.overlap.is_some() || spec.port.is_some(),
            Self::HoldStdin => spec.stdin != StdinMode::Null,
        }
    }
}

fn as_texts<S: Serializer>(flags: &[PresetFlag], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(flags.iter().map(|flag| flag.text()))
}

const NOTHING: Preset = Preset {
    program: "",
    known_by: &[],
    flags: &[],
    reload: None,
    two_copies: TwoCopies::Application,
    note: "",
    source: "",
};

/// The well-known servers. Where two fit, the first one counts.
pub const PRESETS: [Preset; 15] = [
    Preset {
        program: "OpenClaw",
        known_by: &["openclaw", "gateway"],
        flags: &[PresetFlag::Ready("/readyz"), PresetFlag::Reload("USR2")],
        reload: Some("{ signal = \"USR2\" }"),
        two_copies: TwoCopies::No,
        note: "Version 2026.6 takes USR1, and USR2 ends it. It restarts in its own process unless `commands.restart` is false, and waits for work under way before. A second copy of its state refuses to start, or runs every job twice.",
        source: "https://docs.openclaw.ai/cli/gateway",
    },
    Preset {
        program: "gunicorn",
        known_by: &["gunicorn"],
        reload: Some("{ signal = \"HUP\" }"),
        note: "It listens before it loads, so \"tcp\" would be ready too early. HUP replaces the workers and keeps the main process, but ends gunicorn where the new version does not load: a second copy beside the first, the default, is safer.",
        source: "https://docs.gunicorn.org/en/stable/signals.html",
        ..NOTHING
    },
    Preset {
        program: "uvicorn --workers",
        known_by: &["uvicorn", "--workers"],
        reload: Some("{ signal = \"HUP\" }"),
        note: "HUP restarts the workers, not the main process.",
        source: "https://www.uvicorn.org/deployment/",
        ..NOTHING
    },
    Preset {
        program: "puma",
        known_by: &["puma"],
        reload: Some("{ signal = \"USR2\" }"),
        note: "USR2 runs its program again in the same process, and ends puma where that does not load. USR1 replaces the workers one by one, in cluster mode without preload_app! only.",
        source: "https://github.com/puma/puma/blob/main/docs/restart.md",
        ..NOTHING
    },
    Preset {
        program: "unicorn",
        known_by: &["unicorn"],
        reload: Some("{ signal = \"USR2\" }"),
        note: "USR2 starts a second main process; its before_fork hook must end the first one (QUIT).",
        source: "https://yhbt.net/unicorn/SIGNALS.html",
        ..NOTHING
    },
    Preset {
        program: "nginx",
        known_by: &["nginx"],
        reload: Some("{ signal = \"HUP\" }"),
        two_copies: TwoCopies::Yes,
        note: "It must stay in the foreground (daemon off). With a configuration that does not load, HUP changes nothing, and the restart fails.",
        source: "https://nginx.org/en/docs/control.html",
        ..NOTHING
    },
    Preset {
        program: "next dev",
        known_by: &["next", "dev"],
        flags: &[PresetFlag::Exclusive],
        two_copies: TwoCopies::No,
        note: "From version 16 on it locks its directory.",
        source: "https://nextjs.org/blog/next-16",
        ..NOTHING
    },
    Preset {
        program: "next start",
        known_by: &["next", "start"],
        note: "",
        source: "https://nextjs.org/docs/app/api-reference/cli/next",
        ..NOTHING
    },
    Preset {
        program: "vite preview",
        known_by: &["vite", "preview"],
        note: "It takes another port than it was told where that is taken: --strictPort.",
        source: "https://vite.dev/config/preview-options",
        ..NOTHING
    },
    Preset {
        program: "vite",
        known_by: &["vite"],
        flags: &[PresetFlag::Exclusive],
        two_copies: TwoCopies::No,
        note: "Version 8.4 refuses a second one in a project, unless it is started with --bypass-lock: then a restart needs no --exclusive, and a configuration that does not load replaces nothing. It takes another port than it was told where that is taken: --strictPort.",
        source: "https://vite.dev/config/server-options",
        ..NOTHING
    },
    Preset {
        program: "django runserver",
        known_by: &["manage.py", "runserver"],
        note: "It restarts itself when a file changes: --noreload, unless that is wanted.",
        source: "https://docs.djangoproject.com/en/stable/ref/django-admin/#runserver",
        ..NOTHING
    },
    Preset {
        program: "python http.server",
        known_by: &["http.server"],
        two_copies: TwoCopies::Yes,
        source: "https://docs.python.org/3/library/http.server.html",
        ..NOTHING
    },
    Preset {
        program: "jupyter",
        known_by: &["jupyter"],
        note: "Kernels belong to the copy that started them.",
        source: "https://jupyter-server.readthedocs.io/en/latest/developers/rest-api.html",
        ..NOTHING
    },
    Preset {
        program: "esbuild --serve",
        known_by: &["esbuild", "--serve"],
        flags: &[PresetFlag::HoldStdin],
        two_copies: TwoCopies::Yes,
        note: "It exits when its standard input ends.",
        source: "https://esbuild.github.io/api/#serve",
        ..NOTHING
    },
    Preset {
        program: "socket.io",
        known_by: &["socket.io"],
        note: "With polling, a session is in the memory of the copy that made it: sticky = { query = \"sid\" } in the configuration keeps it there while that copy drains. A WebSocket stays with its copy in any case.",
        source: "https://socket.io/docs/v4/using-multiple-nodes/",
        ..NOTHING
    },
];

impl Preset {
    /// The preset of a command line.
    pub fn of(command: &[String]) -> Option<&'static Self> {
        let line = command.join(" ");
        let words: Vec<&str> = words_of(&line).collect();
        let shows = |known: &str| {
            // `--serve=8000`, `openclaw.mjs`
            words.iter().any(|word| {
                let word = word.split('=').next().unwrap_or(word);
                let stem = word.rsplit_once('.').map(|(stem, _)| stem);
                word == known || stem == Some(known)
            })
        };
        PRESETS
            .iter()
            .find(|preset| preset.known_by.iter().all(|known| shows(known)))
    }

    /// The flags that it needs, as they are written.
    pub fn flags(&self) -> String {
        let flags = self.flags.iter().map(|flag| flag.text());
        flags.collect::<Vec<_>>().join(" ")
    }
}

/// What to add to the command line for a server that is known, as far as nothing is decided.
pub fn suggestion(spec: &SidecarSpec) -> Option<String> {
    let preset = Preset::of(&spec.command)?;
    let open = preset.flags.iter().filter(|flag| !flag.is_decided(spec));
    let flags: Vec<String> = open.map(|flag| flag.text()).collect();
    let flags = flags.join(" ");
    (!flags.is_empty()).then(|| {
        format!(
            "{} is best run with {flags} (gatewayctl presets tells why)",
            preset.program
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NoticeSignal, Reload};

    fn spec(command: &str) -> SidecarSpec {
        SidecarSpec::new(command.split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn servers_are_known_by_their_command_lines() {
        for (command, program) in [
            ("openclaw gateway --port 1", Some("OpenClaw")),
            ("node /x/openclaw.mjs gateway --port 1", Some("OpenClaw")),
            ("openclaw status", None),
            ("sh -c 'exec gunicorn app:app'", Some("gunicorn")),
            (
                "/v/bin/uvicorn app:app --workers 2",
                Some("uvicorn --workers"),
            ),
            ("uvicorn app:app", None),
            ("bundle exec puma -p 1", Some("puma")),
            ("node node_modules/.bin/next dev -p 1", Some("next dev")),
            ("next start", Some("next start")),
            ("node_modules/.bin/vite --port 1", Some("vite")),
            ("vite preview", Some("vite preview")),
            ("esbuild --serve=127.0.0.1:1", Some("esbuild --serve")),
            ("esbuild --bundle", None),
            ("./nextcloud dev", None),
            ("node server.js", None),
        ] {
            let found = Preset::of(&spec(command).command).map(|preset| preset.program);
            assert_eq!(found, program, "{command}");
        }
    }

    #[test]
    fn what_is_decided_is_not_suggested() {
        let mut openclaw = spec("openclaw gateway");
        let said = suggestion(&openclaw).unwrap();
        assert!(said.starts_with("OpenClaw is best run with --ready /readyz --reload USR2 ("));
        openclaw.reload = "USR1".parse().ok();
        assert!(
            suggestion(&openclaw)
                .unwrap()
                .contains("with --ready /readyz (")
        );
        openclaw.ready = Ready::Http("/x".to_owned());
        assert_eq!(suggestion(&openclaw), None);
        assert_eq!(
            suggestion(&spec("gunicorn app:app")),
            None,
            "the default is best"
        );
    }

    #[test]
    fn every_own_restart_is_a_value_of_its_key() {
        #[derive(serde::Deserialize)]
        struct Keys {
            reload: Reload,
        }
        for preset in &PRESETS {
            assert!(preset.source.starts_with("https://"), "{}", preset.program);
            if let Some(reload) = preset.reload {
                let keys: Keys = toml::from_str(&format!("reload = {reload}")).unwrap();
                assert_eq!(keys.reload.ready, None);
            }
            for flag in preset.flags {
                if let PresetFlag::Reload(signal) = flag {
                    signal.parse::<NoticeSignal>().unwrap();
                }
            }
        }
    }
}
