//! What the machine went through while a load ran: a loss may be the machine's, not the gateway's.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

/// Counters of the kernel's TcpExt that tell of packets dropped or waited for (its
/// Documentation/networking/snmp_counter.rst).
const TCP: [&str; 9] = [
    "ListenOverflows",
    "ListenDrops",
    "PruneCalled",
    "RcvPruned",
    "TCPTimeouts",
    "TCPMemoryPressures",
    "TCPBacklogDrop",
    "TCPRcvQDrop",
    "TCPZeroWindowDrop",
];

/// Counters at one moment.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Time of all CPUs, in ticks: all, idle, and stolen by other guests of the same host.
    cpu: [u64; 3],
    tcp: BTreeMap<&'static str, u64>,
}

/// What happened between two moments.
#[derive(Clone, Debug)]
pub struct Meanwhile {
    idle: u64,
    stolen: u64,
    tcp: BTreeMap<&'static str, u64>,
    load: String,
}

impl Machine {
    /// The counters now; what cannot be read counts as zero.
    pub fn now() -> Self {
        Self {
            cpu: cpu(&fs::read_to_string("/proc/stat").unwrap_or_default()),
            tcp: tcp(&fs::read_to_string("/proc/net/netstat").unwrap_or_default()),
        }
    }

    /// What happened since.
    pub fn since(&self) -> Meanwhile {
        let now = Self::now();
        let [all, idle, stolen] = std::array::from_fn(|i| now.cpu[i].saturating_sub(self.cpu[i]));
        let percent = |part: u64| part * 100 / all.max(1);
        let tcp = now.tcp.iter().map(|(name, value)| {
            let before = self.tcp.get(name).copied().unwrap_or(0);
            (*name, value.saturating_sub(before))
        });
        Meanwhile {
            idle: percent(idle),
            stolen: percent(stolen),
            tcp: tcp.filter(|(_, more)| *more > 0).collect(),
            load: fs::read_to_string("/proc/loadavg").unwrap_or_default(),
        }
    }
}

/// The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal (proc_stat(5)).
fn cpu(stat: &str) -> [u64; 3] {
    let line = stat.lines().next().unwrap_or_default();
    let times = line.split_whitespace().skip(1).take(8);
    let times: Vec<u64> = times.map(|time| time.parse().unwrap_or(0)).collect();
    let at = |i: usize| times.get(i).copied().unwrap_or(0);
    [times.iter().sum(), at(3) + at(4), at(7)]
}

/// Of /proc/net/netstat, whose every second line has the values of the one before.
fn tcp(netstat: &str) -> BTreeMap<&'static str, u64> {
    let lines: Vec<&str> = netstat.lines().collect();
    let pairs = lines.chunks_exact(2).flat_map(|pair| {
        let names = pair[0].split_whitespace();
        names.zip(pair[1].split_whitespace())
    });
    pairs
        .filter_map(|(name, value)| {
            let name = TCP.into_iter().find(|known| *known == name)?;
            Some((name, value.parse().ok()?))
        })
        .collect()
}

impl fmt::Display for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the machine: {} % idle, {} % stolen, load {}",
            self.idle,
            self.stolen,
            self.load.trim()
        )?;
        for (name, more) in &self.tcp {
            write!(f, ", {name} {more}")?;
        }
        Ok(())
    }
}
