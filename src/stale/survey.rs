//! What is known around a port: kin, services, records.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::judge::{Circumstances, GatewayFacts, KeepReason, ProcessIdentity, Suspect};
use super::liveness::{PROBES, answers};
use crate::config::Listen;
use crate::os::port::{self, Depth, Socket};
use crate::os::process::{self, Process};
use crate::state::owner::Owner;
use crate::systemd::unit::facts_of;

/// This gateway's service, as its manager sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceUnit {
    /// Its name, as in "gateway.service".
    pub name: String,
    /// Its main process; none when it does not run.
    pub main: Option<u32>,
    /// Its control group; none when it does not run.
    pub group: Option<String>,
    /// Whether its manager keeps listeners for it: a socket unit, or something in its fd store.
    pub holds_listeners: bool,
}

/// Whose port it is, and on whose behalf it is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressClaim {
    /// Whose addresses they are, by name; none where that is not known.
    pub instance: Option<String>,
    /// The addresses of the front door.
    pub listen: Vec<Listen>,
    /// The state directories where the instance may have left its record.
    pub state: Vec<PathBuf>,
    /// Its service, where it has one.
    pub unit: Option<ServiceUnit>,
    /// What the user said is not to be touched.
    pub protected: BTreeSet<u32>,
    /// The one process that the user named to be ended, whatever it is.
    pub named: Option<u32>,
}

/// The sockets that are in the way, with all their holders.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressHolders {
    /// Processes that hold such a socket, and the addresses at which each is alone.
    pub suspects: HashMap<u32, Vec<Listen>>,
    /// For each, the others that hold one and the same socket.
    pub beside: HashMap<u32, BTreeSet<u32>>,
    /// Users of sockets whose holders cannot be seen.
    pub hidden: Vec<Option<u32>>,
}

impl AddressClaim {
    /// The processes that hold what is in the way, now.
    ///
    /// # Errors
    /// Where the kernel tells of no sockets.
    pub(super) fn look(&self) -> std::io::Result<AddressHolders> {
        let sockets = self.sockets()?;
        let held = port::holders(&sockets, &[], Depth::All);
        let mut found = AddressHolders::default();
        for socket in sockets {
            let Some(pids) = held.get(&socket.inode) else {
                // Unless it was closed meanwhile.
                if self.sockets()?.contains(&socket) {
                    found.hidden.push(socket.uid);
                }
                continue;
            };
            for pid in pids {
                let alone_at = found.suspects.entry(*pid).or_default();
                found
                    .beside
                    .entry(*pid)
                    .or_default()
                    .extend(pids.iter().filter(|other| *other != pid));
                if pids.len() == 1 {
                    alone_at.push(socket.listen.clone());
                }
            }
        }
        Ok(found)
    }

    fn sockets(&self) -> std::io::Result<Vec<Socket>> {
        let mut sockets = Vec::new();
        for listen in &self.listen {
            for socket in port::in_the_way_of(listen)? {
                if !sockets.contains(&socket) {
                    sockets.push(socket);
                }
            }
        }
        Ok(sockets)
    }

    /// What counts besides the processes on the port.
    pub(super) fn circumstances(&self) -> Circumstances {
        let me = std::process::id();
        let euid = nix::unistd::geteuid();
        let mut users = BTreeSet::from([euid.as_raw()]);
        if euid.is_root() {
            // The instance's user; its state directory is that one's.
            users.extend(
                self.state
                    .iter()
                    .filter_map(|dir| std::fs::metadata(dir).ok())
                    .map(|meta| meta.uid()),
            );
        }
        let own_service =
            Process::read(me).and_then(|process| process.service().map(str::to_owned));
        let records: Vec<Owner> = self
            .state
            .iter()
            .filter_map(|dir| Owner::read(dir))
            .collect();
        let owner = records.iter().find(|owner| owner.lives() != Some(false));
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let drainers = records.iter().flat_map(|owner| &owner.drainers);
        let unit = self.unit.as_ref();
        Circumstances {
            me,
            users,
            ancestors: process::ancestors(me),
            own_service,
            unit_group: unit.and_then(|unit| unit.group.clone()),
            main: unit.and_then(|unit| unit.main),
            owner: owner.map(|owner| ProcessIdentity {
                pid: owner.pid,
                start_time: owner.start_time,
            }),
            drainers: drainers
                .filter(|drainer| drainer.until_ms.is_none_or(|until| until > now))
                .map(|drainer| ProcessIdentity {
                    pid: drainer.pid,
                    start_time: drainer.start_time,
                })
                .collect(),
            protected: self.protected.clone(),
            named: self.named,
        }
    }
}

/// What there is to know of each; whoever is never signalled is not asked anything.
pub(super) async fn suspects(
    circumstances: &Circumstances,
    claim: &AddressClaim,
    found: &AddressHolders,
) -> Vec<Suspect> {
    let asked = found
        .suspects
        .iter()
        .map(|(pid, doors)| suspect(circumstances, claim, *pid, doors, PROBES));
    let mut suspects: Vec<Suspect> = join_all(asked).await.into_iter().flatten().collect();
    suspects.sort_by_key(|suspect| suspect.process.pid);
    let is_healthy = |suspect: &Suspect| match &suspect.gateway {
        Some(gateway) => gateway.answers,
        None => matches!(
            circumstances.never(&suspect.process),
            Some(KeepReason::Main | KeepReason::InUnit)
        ),
    };
    let healthy: BTreeSet<u32> = suspects
        .iter()
        .filter(|suspect| is_healthy(suspect))
        .map(|suspect| suspect.process.pid)
        .collect();
    for suspect in &mut suspects {
        if let (Some(gateway), Some(beside)) =
            (&mut suspect.gateway, found.beside.get(&suspect.process.pid))
        {
            gateway.beside = !beside.is_disjoint(&healthy);
        }
    }
    suspects
}

/// One process again, with so many questions to it.
pub(super) async fn suspect(
    circumstances: &Circumstances,
    claim: &AddressClaim,
    pid: u32,
    doors: &[Listen],
    questions: u32,
) -> Option<Suspect> {
    let process = Process::read(pid)?;
    if circumstances.never(&process).is_some() || !process.is_gateway() {
        return Some(Suspect {
            process,
            gateway: None,
        });
    }
    let (facts, told) = tokio::join!(facts_of(pid), answers(pid, doors, questions));
    let main_of = match (facts, process.service()) {
        (Some(facts), _) => (facts.main_pid == pid).then_some(facts.unit),
        // Its manager cannot be asked, or is another user's: that nobody looks after it is not
        // known.
        (None, Some(service)) => service.rsplit('/').next().map(str::to_owned),
        (None, None) => None,
    };
    let of_this = told
        .as_ref()
        .is_some_and(|who| who.instance.is_some() && who.instance == claim.instance);
    Some(Suspect {
        process,
        gateway: Some(GatewayFacts {
            answers: told.is_some(),
            main_of,
            of_this,
            beside: false,
        }),
    })
}
