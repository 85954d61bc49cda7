//! `gatewayctl config`, and `gateway check`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::answering_gateway::AnsweringGateway;
use crate::cli::args::{ConfigCommand, InitArgs};
use crate::cli::process_start::ProcessStart;
use crate::cli::target::{self, Target};
use crate::cli::ui::Text;
use crate::cli::{CliError, Context, Exit};
use crate::config::{self, Config, ConfigError, Env, EnvFile, Loaded, Overrides};
use crate::os::working_directory::by_link;
use crate::proxy::check_access_log;
use crate::service::more_rights;
use crate::service::provenance::sign_starter;
use crate::sidecar::unused_variables;
use crate::text::escape::escape;

/// The answer of `config check` with `--json`.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckedConfig<'a> {
    /// Always true; an error has its own object.
    ok: bool,
    /// The instance.
    instance: &'a str,
    /// The file; null where defaults and flags are all there is.
    file: Option<&'a Path>,
    /// What is valid and most likely not meant, each in a sentence.
    warnings: &'a [String],
}

/// The answer of `config init` with `--json`.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenConfig<'a> {
    /// Always true; an error has its own object.
    ok: bool,
    /// The file.
    file: &'a Path,
}

/// Checks, shows or begins a configuration.
///
/// # Errors
/// [`Exit::Config`] when it is not valid.
pub async fn config(ctx: &Context, command: &ConfigCommand) -> Result<Exit, CliError> {
    match command {
        ConfigCommand::Check => check(ctx).await,
        ConfigCommand::Show => show(ctx).await,
        ConfigCommand::Init(args) => init(ctx, args),
        ConfigCommand::Schema => {
            ctx.ui.page(&format!("{:#}\n", config::schema()));
            Ok(Exit::Done)
        }
    }
}

/// What `gateway check` prints, or why the configuration is not valid. `--start` is another matter.
///
/// # Errors
/// What is wrong with it.
pub fn verdict(flags: &Overrides, env: &Env<'_>) -> Result<(Loaded, String), ConfigError> {
    let loaded = config::load(flags, env)?;
    let text = summary(&loaded, env, None);
    let directory = by_link(env.path("PWD"));
    Ok((
        judge(loaded, env, directory)?.with_usable_env_files()?,
        text,
    ))
}

/// The configuration with its files of variables, which were read and may not be usable.
fn judge(
    mut loaded: Loaded,
    env: &Env<'_>,
    directory: Option<PathBuf>,
) -> Result<Loaded, ConfigError> {
    check_access_log(&loaded.config.gateway.access_log)
        .map_err(|why| loaded.refuse(["gateway", "access_log"], &format!("access log: {why}")))?;
    loaded.config.read_env_files(env, directory);
    Ok(loaded)
}

/// What is said of a valid one; `runs` names the process with whose flags it was read.
fn summary(loaded: &Loaded, env: &Env<'_>, runs: Option<&GatewayByHand>) -> String {
    let usual = config::default_path(env, &loaded.instance);
    match (&loaded.path, runs) {
        (Some(path), None) => format!("configuration {} is valid", path.display()),
        (None, None) => format!(
            "there is no configuration file ({}): defaults and flags are valid",
            usual.display()
        ),
        (Some(path), Some(running)) => format!(
            "configuration {} is valid, with the flags of {}",
            path.display(),
            running.name()
        ),
        (None, Some(running)) => format!(
            "there is no configuration file ({}): the flags of {} are valid",
            usual.display(),
            running.name()
        ),
    }
}

/// What is valid and most likely not meant, each in a sentence.
pub fn warnings(config: &Config) -> Vec<String> {
    let unused = unused_variables(config, None);
    config.warnings().into_iter().chain(unused).collect()
}

/// A gateway that this user started by hand. What it serves is its file with its flags.
struct GatewayByHand {
    instance: String,
    pid: u32,
    start: ProcessStart,
}

impl GatewayByHand {
    /// The one that the command line selects. None where a file is named, or a service or nothing is
    /// selected: then the file says everything.
    ///
    /// # Errors
    /// [`Exit::Usage`] with the list when several match.
    async fn find(ctx: &Context, env: &Env<'_>) -> Result<Option<Self>, CliError> {
        if target::named_config(&ctx.global, env).is_some() {
            return Ok(None);
        }
        let target = match Target::find(&ctx.global, env) {
            Ok(target) => target,
            Err(error) if error.exit == Exit::Usage => return Err(error),
            Err(_) => return Ok(None),
        };
        let (client, status) = match target.connect_and_ask().await {
            Ok(answer) => answer,
            Err(error) => {
                ctx.ui
                    .progress(&format!("its flags are not known: {}", error.message));
                return Ok(None);
            }
        };
        let peer = client.peer();
        match AnsweringGateway::identify(ctx, &status.instance, peer).await {
            AnsweringGateway::Service(..) => return Ok(None),
            AnsweringGateway::OfThisUser => {}
            AnsweringGateway::OfAnotherUser | AnsweringGateway::BesideService(..) => {
                ctx.ui.progress(&format!(
                    "the flags of {} are not known here: it runs as another user",
                    status.instance
                ));
                return Ok(None);
            }
        }
        let start = ProcessStart::of_gateway(peer, &status);
        Ok(start.map(|start| Self {
            pid: status.pid,
            instance: status.instance,
            start,
        }))
    }

    fn name(&self) -> String {
        format!("{} (pid {})", self.instance, self.pid)
    }
}

async fn check(ctx: &Context) -> Result<Exit, CliError> {
    let env = Env::real();
    let running = GatewayByHand::find(ctx, &env).await?;
    let (mut loaded, text) = match &running {
        Some(running) => {
            let loaded = running.start.load()?;
            let text = summary(&loaded, &env, Some(running));
            let directory = Some(running.start.cwd.clone());
            let judged = (running.start).in_its_environment(|env| judge(loaded, env, directory))?;
            (judged, text)
        }
        None => {
            let loaded = config::load(&target::overrides(&ctx.global, &env), &env)?;
            let text = summary(&loaded, &env, None);
            (judge(loaded, &env, by_link(env.path("PWD")))?, text)
        }
    };
    let mut warnings = warnings(&loaded.config);
    for spec in loaded.config.sidecar.values_mut() {
        // The gateway's user may, or the service manager.
        if let EnvFile::Forbidden(why) = &spec.of_env_file {
            warnings.push(format!("{why}; the gateway may be able to"));
            spec.of_env_file = EnvFile::NotRead;
        }
    }
    let loaded = loaded.with_usable_env_files()?;
    ctx.ui.say(text);
    for warning in &warnings {
        ctx.ui.say(format!("warning: {warning}"));
    }
    ctx.ui.object(&CheckedConfig {
        ok: true,
        instance: &loaded.instance,
        file: loaded.path.as_deref(),
        warnings: &warnings,
    });
    Ok(Exit::Done)
}

async fn show(ctx: &Context) -> Result<Exit, CliError> {
    let env = Env::real();
    let running = GatewayByHand::find(ctx, &env).await?;
    let loaded = match &running {
        Some(running) => running.start.load()?,
        None => config::load(&target::overrides(&ctx.global, &env), &env)?,
    };
    let shown = loaded.config.without_secrets();
    if ctx.ui.is_json() {
        ctx.ui.object(&shown);
        return Ok(Exit::Done);
    }
    let text = config::to_toml(&shown)
        .map_err(|error| Exit::Failed.error(format!("it has no TOML form: {error}")))?;
    let mut origin = match &loaded.path {
        Some(path) => escape(&path.to_string_lossy()).into_owned(),
        None => "defaults and environment".to_owned(),
    };
    if let Some(running) = &running {
        origin.push_str(&format!(", with the flags of {}", running.name()));
    }
    ctx.ui
        .page(&format!("# {origin}; secrets are shown as ***\n{text}"));
    Ok(Exit::Done)
}

fn init(ctx: &Context, args: &InitArgs) -> Result<Exit, CliError> {
    if args.stdout {
        ctx.ui.text(&Text::new("gateway.toml", config::starter()));
        return Ok(Exit::Done);
    }
    let path = target::config_path(&ctx.global, &Env::real());
    let shown = path.display();
    write_new(&path).map_err(|error| {
        let message = format!("cannot write {shown}: {error}");
        match error.kind() {
            ErrorKind::AlreadyExists => Exit::Refused
                .error(format!("{shown} is there already"))
                .with_help("gatewayctl config init --stdout   (to compare)"),
            ErrorKind::PermissionDenied => Exit::Permission.error(message).with_help(more_rights()),
            _ => Exit::Failed.error(message),
        }
    })?;
    ctx.ui.say(format!(
        "wrote {shown}: write your server into it ([sidecar.main]), then gatewayctl config check --config {shown}"
    ));
    ctx.ui.object(&WrittenConfig {
        ok: true,
        file: &path,
    });
    Ok(Exit::Done)
}

fn write_new(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)?
        .write_all(sign_starter(config::starter()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::cli::args::Global;

    #[tokio::test]
    async fn init_never_overwrites_and_its_file_is_valid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/g.toml");
        let ctx = Context::new(Global {
            config: Some(path.clone()),
            quiet: true,
            ..Global::default()
        });
        let begin = ConfigCommand::Init(InitArgs::default());
        assert_eq!(config(&ctx, &begin).await, Ok(Exit::Done));
        assert_eq!(config(&ctx, &begin).await.unwrap_err().exit, Exit::Refused);
        assert_eq!(config(&ctx, &ConfigCommand::Check).await, Ok(Exit::Done));
        std::fs::write(&path, "[gateway]\nlisen = []\n").unwrap();
        let error = config(&ctx, &ConfigCommand::Check).await.unwrap_err();
        assert_eq!(error.exit, Exit::Config);
        assert!(
            error.message.contains("g.toml:2:1: unknown key `lisen`"),
            "{}",
            error.message
        );
    }
}
