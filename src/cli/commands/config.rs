//! `gatewayctl config`, and `gateway check`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::args::{ConfigCommand, InitArgs};
use crate::cli::ui::Text;
use crate::cli::{CliError, Context, Exit, target};
use crate::config::{self, ConfigError, Env, EnvFile, Loaded, Overrides};
use crate::os::working_directory::by_link;
use crate::proxy::check_access_log;
use crate::service::more_rights;
use crate::service::provenance::sign_starter;
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
pub fn config(ctx: &Context, command: &ConfigCommand) -> Result<Exit, CliError> {
    match command {
        ConfigCommand::Check => check(ctx),
        ConfigCommand::Show => show(ctx),
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
    let (loaded, text) = judge(flags, env)?;
    Ok((loaded.with_usable_env_files()?, text))
}

/// The same, with files of variables that were read and may not be usable.
fn judge(flags: &Overrides, env: &Env<'_>) -> Result<(Loaded, String), ConfigError> {
    let mut loaded = config::load(flags, env)?;
    check_access_log(&loaded.config.gateway.access_log)
        .map_err(|why| loaded.refuse(["gateway", "access_log"], &format!("access log: {why}")))?;
    let directory = by_link(env.path("PWD"));
    loaded.config.read_env_files(env, directory);
    let usual = config::default_path(env, &loaded.instance);
    let text = match &loaded.path {
        Some(path) => format!("configuration {} is valid", path.display()),
        None => format!(
            "there is no configuration file ({}): defaults and flags are valid",
            usual.display()
        ),
    };
    Ok((loaded, text))
}

fn check(ctx: &Context) -> Result<Exit, CliError> {
    let env = Env::real();
    let (mut loaded, text) = judge(&target::overrides(&ctx.global, &env), &env)?;
    let mut warnings = loaded.config.warnings();
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

fn show(ctx: &Context) -> Result<Exit, CliError> {
    let env = Env::real();
    let loaded = config::load(&target::overrides(&ctx.global, &env), &env)?;
    let shown = loaded.config.without_secrets();
    if ctx.ui.is_json() {
        ctx.ui.object(&shown);
        return Ok(Exit::Done);
    }
    let text = config::to_toml(&shown)
        .map_err(|error| Exit::Failed.error(format!("it has no TOML form: {error}")))?;
    let origin = match &loaded.path {
        Some(path) => escape(&path.to_string_lossy()).into_owned(),
        None => "defaults and environment".to_owned(),
    };
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
    let named = match &ctx.global.config {
        Some(_) => format!(" --config {shown}"),
        None => String::new(),
    };
    ctx.ui.say(format!(
        "wrote {shown}: write your server into it ([sidecar.main]), then gatewayctl config check{named}"
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

    #[test]
    fn init_never_overwrites_and_its_file_is_valid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/g.toml");
        let ctx = Context::new(Global {
            config: Some(path.clone()),
            quiet: true,
            ..Global::default()
        });
        let begin = ConfigCommand::Init(InitArgs::default());
        assert_eq!(config(&ctx, &begin), Ok(Exit::Done));
        assert_eq!(config(&ctx, &begin).unwrap_err().exit, Exit::Refused);
        assert_eq!(config(&ctx, &ConfigCommand::Check), Ok(Exit::Done));
        std::fs::write(&path, "[gateway]\nlisen = []\n").unwrap();
        let error = config(&ctx, &ConfigCommand::Check).unwrap_err();
        assert_eq!(error.exit, Exit::Config);
        assert!(
            error.message.contains("g.toml:2:1: unknown key `lisen`"),
            "{}",
            error.message
        );
    }
}
