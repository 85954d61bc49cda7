//! A restart that is held at a moment.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::moments::{Moment, Place};
use crate::site::{HELD, HOLD, Site};
use crate::support::client::{Fault as Lost, block_on};
use crate::support::gateway::{Gateway, ctl_in};
use crate::support::handover::{family, sidecars};
use crate::support::load::slow_download_telling;
use crate::support::{servers, wait};

/// More than what socket buffers and the gateway hold of an answer that its client does not read.
const ANSWER: u64 = 8 * 1024 * 1024;

/// `gatewayctl` on its way.
pub struct Asker {
    pub pid: u32,
    output: JoinHandle<Output>,
}

impl Asker {
    pub fn start(gateway: &Gateway, args: &[&str]) -> Self {
        let mut command = ctl_in(gateway.state_dir());
        command.args(args).stdout(Stdio::piped());
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        Self {
            pid: child.id(),
            output: std::thread::spawn(move || child.wait_with_output().unwrap()),
        }
    }

    pub fn output(self) -> Output {
        wait::until("gatewayctl has its answer", || {
            self.output.is_finished().then_some(())
        });
        self.output.join().unwrap()
    }
}

/// A client that does not read its answer further for now.
struct Reader {
    go_on: mpsc::Sender<()>,
    download: JoinHandle<Result<Option<String>, Lost>>,
}

impl Reader {
    fn start(gateway: &Gateway) -> Self {
        let (go_on, wait) = mpsc::channel();
        let (begun, told) = mpsc::channel();
        let target = gateway.target();
        let download = std::thread::spawn(move || {
            let download = servers::node_download(ANSWER, Duration::ZERO);
            block_on(slow_download_telling(&target, &download, || {
                begun.send(()).unwrap();
                let _ = wait.recv();
            }))
        });
        told.recv_timeout(wait::DEADLINE).unwrap();
        Self { go_on, download }
    }
}

pub struct Scene<'a> {
    pub moment: Moment,
    pub gateway: &'a Gateway,
    /// The process and the server that served before.
    pub old: u32,
    pub old_server: u32,
    pub generation: u64,
    pub asker: Asker,
    site: &'a Site,
    reader: Option<Reader>,
}

impl<'a> Scene<'a> {
    /// Begins a restart, and holds it.
    pub fn hold(site: &'a Site, moment: Moment) -> Self {
        let gateway = &site.gateway;
        let status = gateway.status();
        let generation = status["generation"].as_u64().unwrap();
        let (old, old_server) = (gateway.main_pid(), gateway.sidecar_pid("main"));
        let mut reader = None;
        match moment {
            Moment::Failpoint(name) => site.failpoint.arm(name, "pause"),
            Moment::ServerStarts(_) => {
                let _ = fs::remove_file(gateway.dir().join(HELD));
                mkfifo(&gateway.dir().join(HOLD), Mode::S_IRWXU).unwrap();
            }
            Moment::AnswerLasts(_) => reader = Some(Reader::start(gateway)),
        }
        let scene = Self {
            moment,
            gateway,
            old,
            old_server,
            generation,
            asker: Asker::start(gateway, &["restart"]),
            site,
            reader,
        };
        scene.wait_held();
        scene
    }

    fn wait_held(&self) {
        match self.moment {
            Moment::Failpoint(_) => self.site.failpoint.wait_reached(),
            Moment::ServerStarts(_) => wait::until("the new server starts", || {
                self.gateway.dir().join(HELD).exists().then_some(())
            }),
            Moment::AnswerLasts(place) => {
                wait::until("the next generation serves", || {
                    self.asker.output.is_finished().then_some(())
                });
                self.gateway.wait_status("the old one drains", |status| {
                    let moved = status["pid"] != self.old;
                    let drains = status["drainers"] != serde_json::json!([]);
                    drains && moved == (place == Place::FreshProcess)
                });
            }
        }
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        match self.moment {
            Moment::Failpoint(_) => self.site.failpoint.go_on(),
            Moment::ServerStarts(_) => {
                let hold = self.gateway.dir().join(HOLD);
                let held = hold.with_extension("old");
                fs::rename(&hold, &held).unwrap();
                // Wakes who waits there; nobody does where it was killed.
                let nonblocking = nix::libc::O_NONBLOCK;
                let mut end = OpenOptions::new();
                drop(end.write(true).custom_flags(nonblocking).open(held));
            }
            Moment::AnswerLasts(_) => {
                let _ = self.reader.as_ref().map(|reader| reader.go_on.send(()));
            }
        }
    }

    /// What gatewayctl was told, and what is wrong with the answer that lasted.
    pub fn end(self) -> (Output, Option<String>) {
        let wrong = self.reader.and_then(|reader| {
            let end = reader.download.join().unwrap();
            end.unwrap_or_else(|lost| Some(lost.to_string()))
        });
        (self.asker.output(), wrong)
    }

    /// The fresh process.
    pub fn new_process(&self) -> u32 {
        // The process between the two forks is there for a moment, too.
        wait::until("the new process is there", || {
            only(family(self.gateway), self.old)
        })
    }

    /// The server of the next generation.
    pub fn new_server(&self) -> u32 {
        wait::until("the new server is there", || {
            only(sidecars(self.gateway), self.old_server)
        })
    }
}

fn only(mut pids: Vec<u32>, but: u32) -> Option<u32> {
    pids.retain(|pid| *pid != but);
    <[u32; 1]>::try_from(pids).ok().map(|[pid]| pid)
}
