//! What is known around the addresses of a claim: the processes that hold them, and the
//! circumstances that count for each of them.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::claim::AddressClaim;
use super::judge::{Circumstances, Judgment, ProcessIdentity, Suspect, SuspectGateway};
use super::liveness::{self, AGAIN, SURVEY};
use super::reason::KeepCode;
use crate::config::Listen;
use crate::os::mapped_owner;
use crate::os::port::{self, Depth, Socket};
use crate::os::process::{self, Process};
use crate::sidecar;
use crate::state::owner::Owner;
use crate::state::paths::Paths;
use crate::systemd::unit::facts_of;

/// The holders of the sockets that are in the way of a claim.
#[derive(Clone, Debug, Default)]
pub struct AddressHolders {
    /// The processes that hold such a socket, each with its doors: the addresses that lead to it,
    /// or to a gateway that holds the same socket, and to no other program.
    pub doors: HashMap<u32, Vec<Listen>>,
    /// For each process, the others that hold the same socket.
    pub sharers: HashMap<u32, BTreeSet<u32>>,
    /// The users of sockets whose holders are hidden from this process.
    pub hidden: Vec<Option<u32>>,
}

/// One suspect as it is now, asked once more, and the judgment on it. None when it
/// is another process by now, or has let go of the addresses.
pub async fn look_again(claim: &AddressClaim, before: &Suspect) -> Option<(Suspect, Judgment)> {
    let pid = before.process.pid;
    let holders = holders(claim).ok()?;
    let doors = holders.doors.get(&pid)?;
    let circumstances = circumstances(claim);
    let now = suspect(claim, &circumstances, pid, doors, AGAIN)
        .await
        .filter(|now| now.process == before.process)?;
    let judgment = circumstances.judge(&now);
    Some((now, judgment))
}

/// The processes that hold the addresses of a claim now.
///
/// # Errors
/// When the kernel does not list its sockets.
pub fn holders(claim: &AddressClaim) -> io::Result<AddressHolders> {
    let sockets = sockets_in_the_way(claim)?;
    let pids_by_inode = port::holders(&sockets, &[], Depth::All);
    let mut found = AddressHolders::default();
    for socket in sockets {
        let Some(pids) = pids_by_inode.get(&socket.inode) else {
            // Its holder is hidden, unless the socket was closed in the meantime.
            if sockets_in_the_way(claim)?.contains(&socket) {
                found.hidden.push(socket.uid);
            }
            continue;
        };
        // During a hand-over two gateways hold it. An answer there speaks for both.
        let is_gateway = |pid: &u32| Process::read(*pid).is_some_and(|held| held.is_gateway());
        let only_gateways = pids.len() == 1 || pids.iter().all(is_gateway);
        for pid in pids {
            let doors = found.doors.entry(*pid).or_default();
            found
                .sharers
                .entry(*pid)
                .or_default()
                .extend(pids.iter().filter(|other| *other != pid));
            if only_gateways {
                doors.push(socket.listen.clone());
            }
        }
    }
    Ok(found)
}

fn sockets_in_the_way(claim: &AddressClaim) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for listen in &claim.listen {
        for socket in port::in_the_way_of(listen)? {
            if !sockets.contains(&socket) {
                sockets.push(socket);
            }
        }
    }
    Ok(sockets)
}

/// What counts besides the processes that hold the addresses.
pub fn circumstances(claim: &AddressClaim) -> Circumstances {
    let me = std::process::id();
    let own_service = Process::read(me).and_then(|process| process.service().map(str::to_owned));
    let records: Vec<(&Path, Owner)> = (claim.state.iter())
        .filter_map(|dir| Some((dir.as_path(), Owner::read(dir)?)))
        .collect();
    let owner = (records.iter()).find(|(_, owner)| owner.lives() != Some(false));
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    let drainers = (records.iter())
        .flat_map(|(dir, owner)| owner.drainers.iter().map(|drainer| (*dir, drainer)));
    let unit = claim.unit.as_ref();
    Circumstances {
        me,
        users: users(claim),
        ancestors: process::ancestors(me),
        started_from: sidecar::started_from()
            .map(|(pid, start_time)| ProcessIdentity { pid, start_time }),
        own_service,
        unit_group: unit.and_then(|unit| unit.group.clone()),
        main: unit.and_then(|unit| unit.main),
        owner: owner.and_then(|(dir, owner)| recorded(dir, owner.pid, owner.start_time)),
        drainers: drainers
            .filter(|(_, drainer)| drainer.until_ms.is_none_or(|until| until > now))
            .filter_map(|(dir, drainer)| recorded(dir, drainer.pid, drainer.start_time))
            .collect(),
        protected: claim.protected.clone(),
        named: claim.named,
    }
}

/// A process that is on record in a state directory. Its owner may write there what he likes: a
/// record proves nothing about the processes of others, nor without a start time.
fn recorded(dir: &Path, pid: u32, start_time: u64) -> Option<ProcessIdentity> {
    let is_owners = || process::user(pid).is_some_and(|user| mapped_owner::is_owner(dir, user));
    let may_say = start_time != 0 && is_owners();
    may_say.then_some(ProcessIdentity { pid, start_time })
}

/// The users whose processes may be ended.
fn users(claim: &AddressClaim) -> BTreeSet<u32> {
    let euid = nix::unistd::geteuid();
    // Who names addresses of others must not have their holders ended for it. What the user named
    // is that user's own decision.
    let told_by = claim.told_by.filter(|_| claim.named.is_none());
    let mut users = BTreeSet::from([told_by.unwrap_or(euid.as_raw())]);
    if euid.is_root() {
        users.extend(&claim.users);
    }
    users
}

/// The processes that hold the addresses of a claim, ordered by pid. The gateways among them are
/// asked whether they are alive.
pub async fn suspects(
    claim: &AddressClaim,
    circumstances: &Circumstances,
    holders: &AddressHolders,
) -> Vec<Suspect> {
    let asked = holders
        .doors
        .iter()
        .map(|(pid, doors)| suspect(claim, circumstances, *pid, doors, SURVEY));
    let mut suspects: Vec<Suspect> = join_all(asked).await.into_iter().flatten().collect();
    suspects.sort_by_key(|suspect| suspect.process.pid);
    let is_healthy = |suspect: &Suspect| match &suspect.gateway {
        Some(gateway) => gateway.answers,
        None => matches!(
            circumstances.exemption(&suspect.process),
            Some(KeepCode::Main | KeepCode::InUnit)
        ),
    };
    let healthy: BTreeSet<u32> = suspects
        .iter()
        .filter(|suspect| is_healthy(suspect))
        .map(|suspect| suspect.process.pid)
        .collect();
    for suspect in &mut suspects {
        let sharers = holders.sharers.get(&suspect.process.pid);
        if let (Some(gateway), Some(sharers)) = (&mut suspect.gateway, sharers) {
            gateway.shares_listener = !sharers.is_disjoint(&healthy);
        }
    }
    suspects
}

/// One process. A gateway is asked for at most `limit` whether it is alive, unless it is never
/// signalled anyway.
async fn suspect(
    claim: &AddressClaim,
    circumstances: &Circumstances,
    pid: u32,
    doors: &[Listen],
    limit: Duration,
) -> Option<Suspect> {
    let process = Process::read(pid)?;
    if circumstances.exemption(&process).is_some() || !process.is_gateway() {
        return Some(Suspect {
            process,
            gateway: None,
        });
    }
    let known: Vec<_> = (claim.state.iter())
        .map(|state| Paths::in_state_dir(state).control)
        .collect();
    let (unit, answer) = tokio::join!(facts_of(pid), liveness::ask(pid, doors, &known, limit));
    let main_of = match (unit, process.service()) {
        (Some(unit), _) => (unit.main_pid == pid).then_some(unit.unit),
        // The service manager does not answer, or it is another user's: the service may well look
        // after this process.
        (None, Some(service)) => service.rsplit('/').next().map(str::to_owned),
        (None, None) => None,
    };
    let of_this = (answer.report.as_ref())
        .is_some_and(|answer| answer.instance.is_some() && answer.instance == claim.instance)
        // Each user may have a gateway of that name: it is one of this gateway's users, or of whom asks.
        && (claim.users.is_empty()
            || claim.users.contains(&process.uid)
            || process.uid == nix::unistd::geteuid().as_raw());
    Some(Suspect {
        process,
        gateway: Some(SuspectGateway {
            answers: answer.report.is_some(),
            out_of_reach: answer.out_of_reach,
            main_of,
            of_this,
            shares_listener: false,
        }),
    })
}
