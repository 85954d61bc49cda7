//! What is replaced by an update, and how a new program is tried.
//!
//! An update of a service works from its unit. A gateway that was started by hand is believed when it
//! runs as this user, and refused when it runs as another one: it could name any program to be
//! overwritten, and any command to be run.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User};

use crate::cli::answering_gateway::AnsweringGateway;
use crate::cli::process_start::CommandStart;
use crate::cli::target::Target;
use crate::cli::{CliError, Context, Exit};
use crate::control::client::SocketPeer;
use crate::control::protocol::Status;
use crate::os::credentials::Credentials;
use crate::os::process;
use crate::service::{Installed, as_user};

/// The gateway that is updated.
#[derive(Clone, Debug)]
pub struct RunningProgram {
    pub instance: String,
    /// The file that is replaced.
    pub program: PathBuf,
    /// The process, where it is of this pid namespace.
    pub pid: Option<u32>,
    /// Whether it runs as this user. Else what it runs is not kept as the previous program: it may
    /// run what it likes.
    pub is_own: bool,
    pub trial: Trial,
    /// Its service, where it is one.
    pub service: Option<Installed>,
}

/// How a new program is tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The user that the gateway runs as.
    pub user: Credentials,
    /// The arguments for `check`.
    pub arguments: Vec<OsString>,
    /// None: that of this process.
    pub environment: Option<Vec<(OsString, OsString)>>,
    pub directory: Option<PathBuf>,
}

impl Trial {
    /// A command with nothing but the program.
    ///
    /// # Errors
    /// When the program cannot be opened.
    pub fn command(&self, program: &Path) -> io::Result<Command> {
        let mut command = self.user.command(program)?;
        if let Some(environment) = &self.environment {
            command.env_clear().envs(environment.clone());
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        Ok(command)
    }
}

impl RunningProgram {
    /// Finds out what is to be replaced.
    ///
    /// # Errors
    /// [`Exit::Refused`] where that is not known for certain.
    pub async fn find(
        ctx: &Context,
        target: &Target,
        peer: SocketPeer,
        status: &Status,
    ) -> Result<Self, CliError> {
        let instance = &target.instance;
        let refused = |why: String| Exit::Refused.error(why).and_line("nothing was changed");
        let (program, trial, service) = match AnsweringGateway::identify(ctx, instance, peer).await
        {
            AnsweringGateway::Service(unit, process) => {
                let user = process.user.clone().ok_or_else(|| {
                    refused(format!("cannot tell which user {} runs as", unit.unit))
                })?;
                let trial = Trial {
                    user,
                    arguments: check_line(process.arguments.iter().map(OsString::from)),
                    environment: Some(read_ones(process.environment)),
                    directory: Some(process.directory),
                };
                (process.program, trial, Some(unit))
            }
            AnsweringGateway::OfThisUser => (named(status)?, by_hand(peer, status), None),
            AnsweringGateway::OfAnotherUser => {
                let user = name(peer.uid);
                let message = format!(
                    "{instance} runs as {user}, and is no service: what it says about its program is not believed"
                );
                let command = target.next("update FILE");
                return Err(refused(message).with_help(as_user(peer.uid, &command)));
            }
            AnsweringGateway::BesideService(unit, main) => {
                let pid = peer.pid().unwrap_or(status.pid);
                let message = format!(
                    "pid {pid} answers at {}, but {} runs pid {main}",
                    target.control.display(),
                    unit.unit
                );
                let help = "gatewayctl --state-dir DIR update FILE   (for a gateway that was started by hand)";
                return Err(refused(message).with_help(help));
            }
        };
        Ok(Self {
            instance: instance.clone(),
            program: confirmed(instance, &program, peer.pid())?,
            pid: peer.pid(),
            is_own: peer.is_this_user(),
            trial,
            service,
        })
    }
}

/// The program that a gateway says it was started from.
fn named(status: &Status) -> Result<PathBuf, CliError> {
    let why = "it is of a version that does not say";
    let named = status.program.as_ref();
    let named = named.ok_or_else(|| unknown(&status.instance, why))?;
    Ok(process::before_replaced(Path::new(named)))
}

/// The file of the program, if the kernel agrees that `pid` runs it where it can be asked. A symbolic
/// link stays: the file behind it is replaced.
fn confirmed(instance: &str, program: &Path, pid: Option<u32>) -> Result<PathBuf, CliError> {
    let path = std::fs::canonicalize(program)
        .map_err(|error| unknown(instance, &format!("{}: {error}", program.display())))?;
    if let Some(running) = pid.and_then(process::program)
        && std::fs::canonicalize(&running).is_ok_and(|running| running != path)
    {
        let (path, running) = (path.display(), running.display());
        let why = format!("it should be {path}, but the kernel says {running}");
        return Err(unknown(instance, &why));
    }
    Ok(path)
}

fn unknown(instance: &str, why: &str) -> CliError {
    Exit::Refused
        .error(format!("cannot tell which program {instance} runs: {why}"))
        .with_help("put the new program in place by hand, then: gatewayctl restart --fresh")
}

/// The user's name, or `uid UID`.
fn name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

/// With the flags and variables of the running gateway.
fn by_hand(peer: SocketPeer, status: &Status) -> Trial {
    let user = Credentials::of_this_process();
    match peer.process.and_then(CommandStart::of) {
        Some(CommandStart {
            line,
            environment,
            cwd,
        }) => Trial {
            user,
            arguments: check_line(line),
            environment: Some(read_ones(environment)),
            directory: Some(cwd),
        },
        None => {
            let config = status.config.iter();
            let flags = config.flat_map(|file| [OsString::from("--config"), file.into()]);
            Trial {
                user,
                arguments: std::iter::once("check".into()).chain(flags).collect(),
                environment: None,
                directory: None,
            }
        }
    }
}

/// The arguments of `gateway check` for what was started with this command line.
fn check_line(line: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let given = line.into_iter().skip(1).enumerate();
    let flags = given.filter(|(at, word)| *at != 0 || word.as_bytes() != b"run");
    std::iter::once("check".into())
        .chain(flags.map(|(_, word)| word))
        .collect()
}

/// The variables on which the configuration depends. No others are passed on: this user must not run
/// what an LD_PRELOAD names.
fn read_ones<T: Into<OsString>>(
    environment: impl IntoIterator<Item = (T, T)>,
) -> Vec<(OsString, OsString)> {
    let pairs = environment
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()));
    pairs.filter(|(name, _)| is_read(name)).collect()
}

fn is_read(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let ours = name.starts_with("GATEWAY_") && name != "GATEWAY_HANDOVER";
    ours || name.starts_with("XDG_")
        || matches!(
            name,
            "HOME" | "STATE_DIRECTORY" | "RUNTIME_DIRECTORY" | "CONFIGURATION_DIRECTORY"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_has_the_flags_of_the_running_gateway() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        for line in [
            "gateway run --listen 8080 -- run",
            "gateway --listen 8080 -- run",
        ] {
            assert_eq!(check_line(words(line)), words("check --listen 8080 -- run"));
        }
        assert_eq!(check_line(words("gateway")), words("check"));
        for (name, read) in [
            ("GATEWAY_RESTART_DRAIN", true),
            ("GATEWAY_HANDOVER", false),
            ("LD_PRELOAD", false),
            ("XDG_CONFIG_HOME", true),
        ] {
            assert_eq!(is_read(OsStr::new(name)), read, "{name}");
        }
    }

    #[test]
    fn the_kernel_must_agree_about_the_program() {
        let own = std::env::current_exe().unwrap().canonicalize().unwrap();
        let me = Some(std::process::id());
        assert_eq!(confirmed("a", &own, me).unwrap(), own);
        let other = confirmed("a", Path::new("/bin/sh"), me).unwrap_err();
        assert!(other.message.contains("but the kernel says"), "{other:?}");
    }
}
