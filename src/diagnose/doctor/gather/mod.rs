//! Gathers the facts, once. What cannot be looked at is noted, not guessed.

mod config_file;
mod job;
mod machine;
mod process;
mod service_user;
mod state_dir;
mod unit;

use std::path::PathBuf;

pub use self::config_file::ReadByHand;
use super::facts::{DoctorFacts, OtherGateway, SilentGateway};
use crate::config::Env;
use crate::control::client::SocketPeer;
use crate::control::protocol::Status;
use crate::service::{self, Installed, Rights, ServiceManagerKind};
use crate::systemd::bus;

/// The gateway to look at, as the command line selects it.
#[derive(Debug)]
pub struct DoctorTarget {
    pub instance: String,
    /// The flags that select it, with a leading blank.
    pub flags: String,
    /// Its service, where it is installed.
    pub unit: Option<Installed>,
    /// What it reports, where it answers.
    pub status: Option<Status>,
    /// Who serves its control socket.
    pub peer: Option<SocketPeer>,
    /// Set where it takes connections at its control socket, but does not answer there.
    pub silent: Option<SilentGateway>,
    /// The control socket at which it answers.
    pub control: Option<PathBuf>,
    /// The state directory that the command line names.
    pub state_dir: Option<PathBuf>,
    /// The configuration file, where neither the service nor the status names one.
    pub config: PathBuf,
    /// The configuration of a gateway that this user started by hand, with its flags and variables.
    pub by_hand: Option<ReadByHand>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

/// Looks at a gateway, its machine and its neighbours.
pub async fn gather(target: DoctorTarget) -> DoctorFacts {
    let env = Env::real();
    let installed = target.unit.as_ref();
    let mut facts = DoctorFacts {
        user: bus::user_name(),
        rights: Rights::now(),
        other_gateways: other_gateways(&env, &target.instance, installed),
        machine: machine::look(),
        instance: target.instance,
        flags: target.flags,
        status: target.status,
        silent: target.silent,
        control: target.control,
        unseen: target.unseen,
        ..DoctorFacts::default()
    };
    let is_job = |unit: &&Installed| unit.manager == ServiceManagerKind::Launchd;
    if let Some(job) = installed.filter(is_job) {
        facts.job = Some(job::look(&env, job).await);
    } else if let Some(installed) = installed {
        let read_at = facts
            .status
            .as_ref()
            .and_then(|status| status.config_read_at.clone());
        facts.unit = Some(unit::look(&env, installed, read_at.as_deref()).await);
    }
    let (status, main) = (facts.status.as_ref(), facts.main_pid());
    let of_unit = facts.unit.as_ref().and_then(|unit| unit.uid);
    let unseen = &mut facts.unseen;
    let peer = target.peer;
    let pid = peer.and_then(SocketPeer::pid).or(main);
    facts.process = pid.and_then(|pid| process::look(pid, unseen));
    // Only a gateway of this very user is believed where its files are: another one could name any.
    let believed = status.filter(|_| peer.is_some_and(SocketPeer::is_this_user));
    if installed.is_none() && status.is_some() && believed.is_none() {
        unseen.push("its configuration: it is no service, and runs as another user".to_owned());
    } else {
        let (by_hand, default) = (target.by_hand, &target.config);
        facts.config = config_file::look(&env, installed, believed, by_hand, default, unseen);
    }
    if let (Some(unit), Some(config)) = (&facts.unit, &facts.config.valid) {
        facts.server_files = service_user::look(config, main, &unit.credentials);
    }
    let told = believed.map(|status| PathBuf::from(&status.state_dir));
    let named = target.state_dir.or(told);
    let keeper = peer.map(|peer| peer.uid).or(of_unit);
    facts.state_dir = state_dir::look(&env, installed, named, keeper, &facts.config, unseen);
    if let (Some(state), Some(_)) = (&facts.state_dir, status) {
        facts.config.unapplied = config_file::unapplied(&facts.config, &state.dir);
    }
    facts.addresses = process::addresses(&facts);
    facts
}

/// Other gateways that root or the caller has installed. What another user has in its home claims
/// anything and proves nothing: who really listens at an address is seen there.
fn other_gateways(env: &Env<'_>, instance: &str, own: Option<&Installed>) -> Vec<OtherGateway> {
    let is_other = |one: &Installed| match own {
        Some(own) => own.path != one.path,
        None => one.instance != instance,
    };
    let all = service::neighbours(env).into_iter();
    all.filter(|one| one.home.is_none() && is_other(&one.unit))
        .map(|one| OtherGateway {
            listen: one.listeners(env),
            instance: one.unit.instance,
            path: one.unit.path,
            scope: one.unit.scope,
        })
        .collect()
}
