//! The configuration that install writes: only what was asked, so that defaults stay defaults.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::request::InstallRequest;
use crate::config::{self, Config, Env, Listen, MAIN_SIDECAR, Overrides};
use crate::service::error::ServiceError;
use crate::text::mistyped_command::{Mistyped, mistyped};

/// Where the command is typed: what the service needs to know of it.
#[derive(Clone, Debug)]
pub(super) struct Invocation {
    pub cwd: PathBuf,
    /// `$PATH`.
    pub path: String,
    /// Whether the caller came by sudo, which has a PATH of its own.
    pub sudo: bool,
}

/// The configuration of the service: `base` (what is there) with the request laid over it; `open`
/// are the variables that anybody may read.
pub(super) fn compose(
    base: &Table,
    request: &InstallRequest,
    open: &[(String, String)],
    place: &Invocation,
) -> Result<Table, ServiceError> {
    let mut table = base.clone();
    for option in &request.unset {
        option.forget(&mut table);
    }
    if !request.listen.is_empty() {
        let list: Vec<String> = request.listen.iter().map(Listen::to_string).collect();
        section(&mut table, "gateway")?.insert("listen".into(), list.into());
    }
    if !request.command.is_empty() {
        let main = section(section(&mut table, "sidecar")?, MAIN_SIDECAR)?;
        let command = absolute(&request.command, place)?;
        let program = PathBuf::from(command.first().cloned().unwrap_or_default());
        let command: Value = command.into();
        let same = main.get("command") == Some(&command);
        main.insert("command".into(), command);
        main.insert("cwd".into(), utf8(&place.cwd)?.into());
        let env = section(main, "env")?;
        // The same command keeps the PATH with which it was found to work.
        if !(same && env.contains_key("PATH")) {
            let path = with_directory(&there(&place.path), program.parent());
            env.insert("PATH".into(), path.into());
        }
    }
    // Without a server of that name, systemd gives the variables to all of them.
    let names_env_file = request.env_file.is_some() && has_main(&table);
    if request.exclusive
        || request.port.is_some()
        || request.cwd.is_some()
        || names_env_file
        || request.ready.is_some()
        || request.start_timeout.is_some()
        || request.reload.is_some()
        || request.stdin.is_some()
        || !request.set.is_empty()
    {
        let sidecars = section(&mut table, "sidecar")?;
        let Some(Value::Table(main)) = sidecars.get_mut(MAIN_SIDECAR) else {
            return Err(ServiceError::usage(
                "--exclusive, --app-port, --cwd, --ready, --start-timeout, --reload, --stdin and --set speak of a server, and none is given",
            )
            .next("gatewayctl install … -- COMMAND"));
        };
        if request.exclusive {
            main.insert("overlap".into(), false.into());
        }
        if let Some(port) = request.port {
            main.insert("port".into(), i64::from(port).into());
        }
        if let Some(directory) = &request.cwd {
            let directory = place.cwd.join(directory);
            if !directory.is_dir() {
                return Err(ServiceError::usage(format!(
                    "--cwd: there is no directory {}",
                    directory.display()
                )));
            }
            main.insert("cwd".into(), utf8(&directory)?.into());
        }
        if let Some(file) = &request.env_file {
            main.insert("env_file".into(), utf8(&place.cwd.join(file))?.into());
        }
        if let Some(path) = &request.ready {
            let ready = Table::from_iter([("http".to_owned(), path.clone().into())]);
            main.insert("ready".into(), ready.into());
        }
        if let Some(time) = request.start_timeout {
            main.insert("start_timeout".into(), time.to_string().into());
        }
        if let Some(reload) = &request.reload {
            let reload = Value::try_from(reload)
                .map_err(|error| ServiceError::failed(format!("cannot write `reload`: {error}")))?;
            main.insert("reload".into(), reload);
        }
        if let Some(stdin) = request.stdin {
            main.insert("stdin".into(), stdin.to_string().into());
        }
        for (key, value) in open {
            section(main, "env")?.insert(key.clone(), value.clone().into());
        }
    }
    Ok(table)
}

fn has_main(config: &Table) -> bool {
    let sidecars = config.get("sidecar").and_then(Value::as_table);
    sidecars.is_some_and(|sidecars| sidecars.contains_key(MAIN_SIDECAR))
}

/// Reads the text as the gateway would, without this process's environment.
pub(super) fn understand(text: &str, path: &Path, instance: &str) -> Result<Config, ServiceError> {
    let failed = |error: std::io::Error| {
        ServiceError::failed(format!("cannot write a temporary file: {error}"))
    };
    let file = tempfile::NamedTempFile::new().map_err(failed)?;
    std::fs::write(file.path(), text).map_err(failed)?;
    let flags = Overrides {
        config: Some(file.path().to_owned()),
        instance: Some(instance.to_owned()),
        ..Overrides::default()
    };
    let loaded = config::load(&flags, &Env(&|_| None)).map_err(|error| {
        let shown = error.to_string().replace(
            &file.path().display().to_string(),
            &path.display().to_string(),
        );
        ServiceError::config(shown)
    })?;
    Ok(loaded.config)
}

/// The command with its program as an absolute path.
fn absolute(command: &[String], place: &Invocation) -> Result<Vec<String>, ServiceError> {
    let Some((program, args)) = command.split_first() else {
        return Ok(Vec::new());
    };
    let found = if program.contains('/') {
        Some(
            place
                .cwd
                .join(program.strip_prefix("./").unwrap_or(program)),
        )
        .filter(|path| is_program(path))
    } else {
        std::env::split_paths(&place.path)
            .map(|dir| place.cwd.join(dir).join(program))
            .find(|path| is_program(path))
    };
    let Some(found) = found else {
        if let Some(Mistyped {
            why,
            command: typed,
            ..
        }) = mistyped(command)
        {
            let message = format!("the command `{program}` is not found, because {why}");
            return Err(ServiceError::failed(message).next(format!("gatewayctl install … {typed}")));
        }
        let error = ServiceError::failed(format!(
            "the command `{program}` is not found, or is not a program"
        ));
        return Err(if program.contains('/') {
            error.next(format!("ls -l {program}"))
        } else if place.sudo {
            error.next(format!(
                "sudo env \"PATH=$PATH\" gatewayctl install …   (sudo has a PATH of its own: {})",
                place.path
            ))
        } else {
            error.next(format!("command -v {program}   (looked in {})", place.path))
        });
    };
    // The links of fnm end with the session of the shell.
    let ends = found
        .components()
        .any(|part| part.as_os_str() == "fnm_multishells");
    let lasting = ends.then(|| found.canonicalize().ok()).flatten();
    Ok(std::iter::once(utf8(&lasting.unwrap_or(found))?)
        .chain(args.iter().cloned())
        .collect())
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn utf8(path: &Path) -> Result<String, ServiceError> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        ServiceError::failed(format!(
            "{} is not UTF-8, as a configuration must be",
            path.display()
        ))
    })
}

fn section<'a>(table: &'a mut Table, name: &str) -> Result<&'a mut Table, ServiceError> {
    match table
        .entry(name)
        .or_insert_with(|| Value::Table(Table::new()))
    {
        Value::Table(inner) => Ok(inner),
        _ => Err(ServiceError::config(format!("`{name}` is not a table"))),
    }
}

/// What a service that cannot see the caller's /tmp would miss.
pub(super) fn lost_in_tmp(config: &Config) -> Option<String> {
    let hidden = |path: &Path| path.starts_with("/tmp") || path.starts_with("/var/tmp");
    for listen in &config.gateway.listen {
        if let Listen::Unix(path) = listen
            && hidden(path)
        {
            return Some(format!("no client could reach {listen}"));
        }
    }
    for (name, spec) in &config.sidecar {
        let program = spec
            .command
            .first()
            .map(Path::new)
            .filter(|path| hidden(path));
        if let Some(path) = program.or(spec.cwd.as_deref().filter(|path| hidden(path))) {
            return Some(format!("the server `{name}` needs {}", path.display()));
        }
    }
    None
}

/// The directories with that of the command before them, where they lack it: what a version manager
/// (nvm, pyenv) or a virtual environment installs runs other programs of its directory.
fn with_directory(path: &str, directory: Option<&Path>) -> String {
    let directory = directory
        .and_then(Path::to_str)
        .filter(|dir| !dir.is_empty());
    match directory {
        Some(dir) if !path.split(':').any(|known| known == dir) && !dir.contains(':') => {
            format!("{dir}:{path}")
        }
        _ => path.to_owned(),
    }
}

/// The directories of PATH that exist: a shell's set-up leaves others behind, among them "the
/// current directory".
fn there(path: &str) -> String {
    let dirs: Vec<&str> = path
        .split(':')
        .filter(|dir| dir.starts_with('/') && Path::new(dir).is_dir())
        .collect();
    dirs.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Invocation {
        Invocation {
            cwd: "/srv/my app".into(),
            path: "/usr/bin:/bin".into(),
            sudo: false,
        }
    }

    #[test]
    fn only_what_was_asked_is_written_and_it_is_understood() {
        let request = InstallRequest {
            command: vec!["sh".into(), "-c".into(), "x {port}".into()],
            exclusive: true,
            ..InstallRequest::default()
        };
        let table = compose(&Table::new(), &request, &[], &place()).unwrap();
        let text = toml::to_string(&table).unwrap();
        assert!(
            !text.contains("listen") && !text.contains("drain"),
            "{text}"
        );
        let config = understand(&text, Path::new("/etc/gateway/gateway.toml"), "gateway").unwrap();
        let main = &config.sidecar[MAIN_SIDECAR];
        assert!(main.command[0] == "/usr/bin/sh" || main.command[0] == "/bin/sh");
        assert_eq!(
            (main.overlaps(), main.cwd.as_deref()),
            (false, Some(Path::new("/srv/my app")))
        );
        assert_eq!(main.env["PATH"], "/usr/bin:/bin");
    }

    #[test]
    fn only_directories_of_the_path_that_exist_are_kept() {
        assert_eq!(there("/usr/bin::/nonexistent/bin:.:/bin"), "/usr/bin:/bin");
    }

    #[test]
    fn the_directory_of_the_command_comes_first_where_it_is_missing() {
        for (path, directory, expected) in [
            (
                "/usr/bin:/bin",
                "/root/.nvm/bin",
                "/root/.nvm/bin:/usr/bin:/bin",
            ),
            ("/usr/bin:/bin", "/bin", "/usr/bin:/bin"),
            ("/usr/bin", "/a:b", "/usr/bin"),
        ] {
            assert_eq!(with_directory(path, Some(Path::new(directory))), expected);
        }
    }

    #[test]
    fn what_is_there_stays_unless_asked_otherwise() {
        let base: Table = "[restart]\ndrain = \"9s\"\n[gateway]\nlisten = [\"1\"]\n"
            .parse()
            .unwrap();
        let request = InstallRequest {
            command: vec!["/bin/sh".into()],
            ..InstallRequest::default()
        };
        let config = understand(
            &toml::to_string(&compose(&base, &request, &[], &place()).unwrap()).unwrap(),
            Path::new("x"),
            "gateway",
        )
        .unwrap();
        assert_eq!(config.restart.drain, config::Dur::secs(9));
        assert_eq!(config.gateway.listen[0].port(), Some(1));
        assert_eq!(
            compose(&base, &InstallRequest::default(), &[], &place()).unwrap(),
            base
        );
    }

    #[test]
    fn a_command_that_is_not_there_is_refused_with_the_next_step() {
        let request = InstallRequest {
            command: vec!["no-such-program".into()],
            ..InstallRequest::default()
        };
        let error = compose(
            &Table::new(),
            &request,
            &[],
            &Invocation {
                sudo: true,
                ..place()
            },
        )
        .unwrap_err();
        assert!(
            error.message.contains("no-such-program")
                && error.next.unwrap().contains("sudo has a PATH of its own")
        );
        let request = InstallRequest {
            exclusive: true,
            ..InstallRequest::default()
        };
        assert_eq!(
            compose(&Table::new(), &request, &[], &place())
                .unwrap_err()
                .kind,
            crate::service::error::ServiceErrorKind::Usage
        );
    }

    #[test]
    fn contradictions_are_told_with_the_real_place() {
        let error = understand(
            "[gateway]\nlisten = []\n",
            Path::new("/etc/gateway/x.toml"),
            "x",
        )
        .unwrap_err();
        assert!(
            error.message.starts_with("/etc/gateway/x.toml:2:1: "),
            "{}",
            error.message
        );
    }
}
