//! `gatewayctl logs`: the journal of an installed gateway, or the file that another one prints to;
//! else where its output goes.

mod ended;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::args::LogsArgs;
use crate::cli::log_tail::LogTail;
use crate::cli::target::{self, Target, ended as gone};
use crate::cli::{CliError, Context, Exit};
use crate::config::{DEFAULT_INSTANCE, Env};
use crate::control::protocol::{Method, SecretsAnswer, SecretsParams, Status};
use crate::service::{self, Installed, ServiceManagerKind};
use crate::state::paths::Scope;
use crate::text::log::{escape, sidecar_identifier};
use crate::text::shell;

/// The answer with `--json` of a gateway that prints to a file.
#[derive(Serialize, JsonSchema)]
pub struct LogsAnswer<'a> {
    /// Always true; an error has its own object.
    ok: bool,
    /// The instance.
    instance: &'a str,
    /// The gateway's process; 0 where none runs.
    pid: u32,
    /// The file that its output goes to.
    output: &'a Path,
    /// The last lines of it.
    lines: Vec<String>,
}

/// Shows the log.
///
/// # Errors
/// [`Exit::NotRunning`] when it is neither installed nor running.
pub async fn logs(ctx: &Context, args: &LogsArgs) -> Result<Exit, CliError> {
    if args.show_secrets {
        return secrets(ctx, args).await;
    }
    let env = Env::real();
    let found = Target::find(&ctx.global, &env);
    let wanted = target::wanted_name(&ctx.global, &env);
    let (name, running) = match &found {
        Ok(target) => {
            let running = match target.connect().await {
                Ok(mut client) => Some((client.peer(), target.status_over(&mut client).await)),
                Err(_) => None,
            };
            (target.instance.clone(), running)
        }
        Err(error) if error.exit == Exit::Usage => return Err(error.clone()),
        Err(_) => (wanted.unwrap_or_else(|| DEFAULT_INSTANCE.to_owned()), None),
    };
    if let Some((_, Ok(status))) = &running {
        known_sidecar(status, args.sidecar.as_deref())?;
    }
    let unit = unit_name(&name);
    let installed = scopes(ctx)
        .into_iter()
        .find(|scope| is_installed(&env, *scope, &unit));
    let by_systemd = match &running {
        Some((_, Ok(status))) => status.supervisor.is_systemd(),
        _ => target::named_by_path(&ctx.global, &env).is_none(),
    };
    if let (Some(scope), true) = (installed, by_systemd) {
        return Err(turn_into(
            "journalctl",
            &journalctl(scope, &unit, args, ctx.ui.is_json()),
        ));
    }
    if let Some(job) = launchd_job(ctx, &env, &name) {
        return log_of_job(ctx, &job, args).await;
    }
    let Some((peer, status)) = running else {
        if let Some(gone) = gone::meant(&ctx.global, &env)? {
            let file = ended::file(&gone)?;
            if ctx.ui.is_json() {
                let answer = entries(&gone.instance, 0, Some(&file), Some(&file), args)?;
                ctx.ui.object(&answer);
                return Ok(Exit::Done);
            }
            ctx.ui.progress(&ended::told(&gone, &file));
            return show(ctx, &file, args).await;
        }
        return Err(found
            .err()
            .unwrap_or_else(|| Exit::NotRunning.error(format!("{name} is not running"))));
    };
    let pid = match &status {
        Ok(status) => peer.pid().unwrap_or(status.pid),
        // What it printed before it became silent can be read all the same.
        Err(silent) => {
            ctx.ui.progress(&silent.message);
            match peer.pid() {
                Some(pid) => pid,
                None => return Err(silent.clone()),
            }
        }
    };
    let output = std::fs::read_link(format!("/proc/{pid}/fd/2")).ok();
    // Another user can put any file in its place: it is named, but not opened.
    let file = output.as_deref().filter(|path| path.is_file());
    let file = file.filter(|_| peer.is_this_user());
    if ctx.ui.is_json() {
        let lines = entries(&name, pid, file, output.as_deref(), args)?;
        ctx.ui.object(&lines);
        return Ok(Exit::Done);
    }
    if let Some(file) = file {
        return show(ctx, file, args).await;
    }
    let text = where_it_goes(output.as_deref(), args);
    ctx.ui.say(format!("{name} (pid {pid}) {text}"));
    Ok(Exit::Done)
}

/// The last lines of a gateway that is no service.
///
/// # Errors
/// Where nothing keeps them, or they cannot be read: what to do.
fn entries<'a>(
    name: &'a str,
    pid: u32,
    file: Option<&'a Path>,
    output: Option<&Path>,
    args: &LogsArgs,
) -> Result<LogsAnswer<'a>, CliError> {
    let Some(file) = file else {
        let text = format!(
            "{name} (pid {pid}) {}: there are no entries to show",
            where_it_goes(output, args)
        );
        return Err(Exit::Failed.error(text).with_help(
            "gateway run … -- COMMAND >gateway.log 2>&1   (keeps its log in a file)\ngatewayctl install --now -- COMMAND   (keeps it in the journal)",
        ));
    };
    if args.follow {
        return Err(Exit::Usage
            .error("--follow with --json shows the journal, and this gateway prints to a file")
            .with_help(format!("tail -F {}", shell::word(file))));
    }
    let lines = open(file, args)
        .and_then(|mut log| log.last(args.lines as usize, true))
        .map_err(|error| unreadable(file, &error))?;
    Ok(LogsAnswer {
        ok: true,
        instance: name,
        pid,
        output: file,
        lines,
    })
}

/// Shows the end of a log file, and what is printed to it afterwards.
async fn show(ctx: &Context, file: &Path, args: &LogsArgs) -> Result<Exit, CliError> {
    let failed = |error: io::Error| unreadable(file, &error);
    let mut log = open(file, args).map_err(failed)?;
    let mut lines = log
        .last(args.lines as usize, !args.follow)
        .map_err(failed)?;
    loop {
        lines
            .iter()
            .for_each(|line| ctx.ui.page(&format!("{line}\n")));
        if !args.follow || ctx.ui.is_closed() {
            return Ok(Exit::Done);
        }
        lines = log.next().await.map_err(failed)?;
    }
}

fn open(file: &Path, args: &LogsArgs) -> io::Result<LogTail> {
    LogTail::open(file, args.sidecar.as_deref())
}

fn unreadable(file: &Path, error: &io::Error) -> CliError {
    let error = Exit::Failed.error(format!("cannot read {}: {error}", file.display()));
    error.with_help(format!("ls -l {}", shell::word(file)))
}

/// The job of launchd of this name.
fn launchd_job(ctx: &Context, env: &Env<'_>, name: &str) -> Option<Installed> {
    let installed = service::find(env, name, target::scope(&ctx.global))?;
    let is_job = installed.manager == ServiceManagerKind::Launchd;
    (is_job && target::named_by_path(&ctx.global, env).is_none()).then_some(installed)
}

/// The file that the property list names: launchd keeps no log.
async fn log_of_job(ctx: &Context, job: &Installed, args: &LogsArgs) -> Result<Exit, CliError> {
    let (file, name) = (job.launchd_log(), &job.instance);
    if file
        .symlink_metadata()
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    {
        let message = format!("{name} has printed nothing to {}", file.display());
        let next = format!("gatewayctl status --instance {name}");
        return Err(Exit::Failed.error(message).with_help(next));
    }
    if ctx.ui.is_json() {
        let pid = service::state(&Env::real(), job).await?.main_pid;
        ctx.ui
            .object(&entries(name, pid, Some(&file), Some(&file), args)?);
        return Ok(Exit::Done);
    }
    show(ctx, &file, args).await
}

/// The answer with `--json` and `--show-secrets`.
#[derive(Serialize, JsonSchema)]
pub struct SecretLinesAnswer {
    /// Always true; an error has its own object.
    ok: bool,
    /// The instance.
    instance: String,
    /// The lines in which the log hides a secret, as they were printed.
    lines: Vec<SecretLine>,
}

/// A line of a sidecar's output.
#[derive(Serialize, JsonSchema)]
struct SecretLine {
    /// The sidecar.
    sidecar: String,
    /// The line.
    line: String,
}

/// Shows what the log hides.
async fn secrets(ctx: &Context, args: &LogsArgs) -> Result<Exit, CliError> {
    let target = ctx.target()?;
    let (mut client, status) = target.connect_and_ask().await?;
    known_sidecar(&status, args.sidecar.as_deref())?;
    let wanted = |name: &str| args.sidecar.as_deref().is_none_or(|only| only == name);
    let mut lines = Vec::new();
    for sidecar in status.sidecars.iter().filter(|one| wanted(&one.name)) {
        let name = &sidecar.name;
        let params = SecretsParams {
            sidecar: name.clone(),
        };
        let method = Method::Secrets(params);
        let answer: SecretsAnswer = target.ask(&mut client, &method, |_| ()).await?;
        lines.extend(answer.lines.into_iter().map(|line| SecretLine {
            sidecar: name.clone(),
            line,
        }));
    }
    match &lines[..] {
        [] => ctx.ui.say("the log hides no secret of the output"),
        lines => lines.iter().for_each(|SecretLine { sidecar, line }| {
            ctx.ui.say(format!("[{sidecar}] {}", escape(line)));
        }),
    }
    ctx.ui.object(&SecretLinesAnswer {
        ok: true,
        instance: status.instance,
        lines,
    });
    Ok(Exit::Done)
}

/// Refuses the name of a sidecar that there is not.
fn known_sidecar(status: &Status, wanted: Option<&str>) -> Result<(), CliError> {
    let names: Vec<&str> = status
        .sidecars
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    match wanted.filter(|wanted| !names.contains(wanted)) {
        None => Ok(()),
        Some(wanted) => {
            let known = match &names[..] {
                [] => "it has none".to_owned(),
                names => format!("it has {}", names.join(", ")),
            };
            let error = format!("{} has no sidecar {wanted}: {known}", status.instance);
            Err(Exit::Usage.error(error))
        }
    }
}

/// Where the output of a gateway that is no service goes.
fn where_it_goes(output: Option<&Path>, args: &LogsArgs) -> String {
    match output {
        Some(path) if path.is_file() => {
            let filter = match &args.sidecar {
                Some(sidecar) => format!(" | grep '^\\[{sidecar}\\]'"),
                None => String::new(),
            };
            let (lines, file) = (args.lines, path.display());
            format!("writes everything to one file: tail -n {lines} {file}{filter}")
        }
        Some(path) if path.starts_with("/dev/") => {
            format!("was started by hand and prints on {}", path.display())
        }
        _ => "is not a service: its output goes to the terminal or program that started it"
            .to_owned(),
    }
}

/// The unit of an instance.
fn unit_name(instance: &str) -> String {
    match instance {
        DEFAULT_INSTANCE => format!("{DEFAULT_INSTANCE}.service"),
        other => format!("{DEFAULT_INSTANCE}@{other}.service"),
    }
}

/// The scopes to look in, the likeliest first.
fn scopes(ctx: &Context) -> Vec<Scope> {
    match target::scope(&ctx.global) {
        Some(scope) => vec![scope],
        None if nix::unistd::geteuid().is_root() => vec![Scope::System, Scope::User],
        None => vec![Scope::User, Scope::System],
    }
}

/// Whether the unit, or the template it is made from, is there.
fn is_installed(env: &Env<'_>, scope: Scope, unit: &str) -> bool {
    let template = unit
        .split_once('@')
        .map(|(base, _)| format!("{base}@.service"));
    let dirs: Vec<PathBuf> = match scope {
        Scope::System => [
            "/etc/systemd/system",
            "/run/systemd/system",
            "/usr/local/lib/systemd/system",
            "/usr/lib/systemd/system",
        ]
        .map(PathBuf::from)
        .into(),
        Scope::User => env
            .path("XDG_CONFIG_HOME")
            .or_else(|| env.path("HOME").map(|home| home.join(".config")))
            .map(|dir| dir.join("systemd/user"))
            .into_iter()
            .chain(["/etc/systemd/user", "/usr/lib/systemd/user"].map(PathBuf::from))
            .collect(),
    };
    let mut names = std::iter::once(unit).chain(template.as_deref());
    names.any(|name| dirs.iter().any(|dir| dir.join(name).exists()))
}

/// The arguments of journalctl.
fn journalctl(scope: Scope, unit: &str, args: &LogsArgs, json: bool) -> Vec<OsString> {
    let lines = args.lines.to_string();
    let identifier = args.sidecar.as_deref().map(sidecar_identifier);
    let mut line = match scope {
        Scope::System => vec!["--unit", unit],
        Scope::User => vec!["--user", "--user-unit", unit],
    };
    if let Some(identifier) = &identifier {
        line.extend(["--identifier", identifier]);
    }
    line.extend(["--lines", &lines, "--no-hostname"]);
    if args.follow {
        line.push("--follow");
    }
    if json {
        line.extend(["--output", "json"]);
    }
    line.into_iter().map(OsString::from).collect()
}

/// Becomes another program, so that its pager, its signals and its exit code are its own. Returns
/// only when it cannot.
fn turn_into(program: &str, line: &[OsString]) -> CliError {
    let error = Command::new(program).args(line).exec();
    Exit::Failed.error(format!("cannot run {program}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_asked_for_the_unit_and_the_sidecar() {
        let args = LogsArgs {
            follow: true,
            sidecar: Some("web".into()),
            lines: 5,
            ..LogsArgs::default()
        };
        let line = |scope, unit: &str| {
            journalctl(scope, unit, &args, false)
                .join(std::ffi::OsStr::new(" "))
                .into_string()
                .unwrap()
        };
        assert_eq!(
            line(Scope::System, &unit_name("gateway")),
            "--unit gateway.service --identifier gateway-web --lines 5 --no-hostname --follow"
        );
        assert!(
            line(Scope::User, &unit_name("a")).starts_with("--user --user-unit gateway@a.service ")
        );
    }

    #[test]
    fn a_template_counts_as_installed() {
        let dir = tempfile::tempdir().unwrap();
        let units = dir.path().join("systemd/user");
        std::fs::create_dir_all(&units).unwrap();
        let env = |name: &str| (name == "XDG_CONFIG_HOME").then(|| dir.path().into());
        let env = Env(&env);
        assert!(!is_installed(&env, Scope::User, "gateway@zz-test.service"));
        std::fs::write(units.join("gateway@.service"), "").unwrap();
        assert!(is_installed(&env, Scope::User, "gateway@zz-test.service"));
    }
}
