//! A restart-safe front door for the programs on a machine.
//!
//! # Theory
//!
//! A **generation** is one checked configuration with its sidecars, its routes and its readiness. A
//! gateway process owns the **listeners** and the client connections, and serves exactly one
//! current generation. A **restart** builds the next generation beside the current one,
//! health-checks it, sends new requests to it, lets the old one finish its work, and reports. If
//! the next generation does not become ready, the old one keeps serving and the restart ends
//! failed.
//!
//! A client connection belongs to the process, not to a generation: each request is routed by the
//! routing table that is current at that moment, and then the **door** of the backend decides. An
//! open door lets the request through. A held door makes it wait: the server behind is being
//! replaced. A door that is gone sends it back to the routing table. A request that got through has
//! a **ticket** until its last byte, and a **drain** waits for tickets.
//!
//! A **sidecar** is a program behind the front door: a task owns one process at a time, restarts it
//! when it dies, and shows only its state. A pure machine ([`gateway::lifecycle`]) decides what
//! happens next: it takes events and gives actions, and the run loop performs them. So tests can
//! try every order of events without a process.
//!
//! The sockets outlive the process where something else can hold them: systemd keeps them in its fd
//! store. Then a crash or `systemctl restart` closes no port, and clients that connect meanwhile
//! wait in the queue of the same socket.
//!
//! Four promises, in this order when they conflict: nothing is lost; nothing healthy is killed; the
//! gateway always comes back; it says what happened.
//!
//! # Map
//!
//! Layers, from the bottom to the top. A module imports only modules above it in this table;
//! `service`, `diagnose`, `bench` and `cli` do not import `gateway`: they speak to a gateway only through
//! its control socket, its state files and the service manager.
//!
//! | module | what it does |
//! |---|---|
//! | [`text`] | text that leaves the process: control characters escaped, secrets redacted, the log |
//! | [`config`] | what the user wrote, checked |
//! | [`os`] | the calls of the kernel: processes, ports, descriptors, out-of-memory kills, and the macOS twins |
//! | [`state`] | files that outlive a process: lock, owner record, restart intent, history, throttle record |
//! | [`systemd`] | D-Bus connection, unit facts, notifications, passed sockets |
//! | [`launchd`] | launchctl, what it prints, the sockets and the throttle of a job |
//! | [`supervisor`] | who supervises this process |
//! | [`control`] | the protocol between gatewayctl and a gateway, over a unix socket or WebSocket |
//! | [`proxy`] | listeners, connections, routes, forwarding, tunnels, held requests |
//! | [`sidecar`] | processes behind the front door: start, readiness, output, restart, end |
//! | [`stale`] | gateways left behind on a port: proof, and their end |
//! | [`gateway`] | generations, the lifecycle machine, hand-over, recovery, and the run loop |
//! | [`service`] | installs and drives a service under systemd or launchd |
//! | [`diagnose`] | facts in, findings out: `doctor` and `why` |
//! | [`bench`](mod@bench) | the ruler: what a restart does to the clients of a server |
//! | [`cli`] | the command lines of both programs |
//!
//! # Three walks
//!
//! **One request.** A worker thread (`proxy/worker.rs`) runs one accept loop (`proxy/accept.rs`)
//! for each listener (`proxy/listener.rs`). The loop accepts a client within the limit of
//! connections (`proxy/admission.rs`; at the limit an idle one gives way, `proxy/seats.rs`, or
//! `proxy/crowd.rs` turns it away from a place of `proxy/room.rs`) and spawns its connection (`proxy/connection.rs`), which
//! waits for a request (`proxy/rest.rs`) and reads it from the client's socket
//! (`proxy/client_io.rs`, `proxy/progress.rs`); each head is judged first (`proxy/request_read.rs`,
//! `proxy/request_head.rs`). The connection ends when the client leaves (`proxy/client_left.rs`) or
//! the workers do (`proxy/disposition.rs`). A request for the gateway itself is answered in
//! `proxy/endpoints.rs`. `proxy/forward.rs` checks each of the others and makes its headers fit
//! (`proxy/headers.rs`, `proxy/forwarded.rs`, `proxy/hops.rs`); `proxy/retry.rs` begins its attempts: it is routed
//! (`proxy/hold.rs`, `proxy/routes.rs`; its session may lead it to an older copy, `proxy/sessions.rs`), passes the door and gets a ticket (`proxy/backend.rs`,
//! `proxy/ticket.rs`), takes a connection to the upstream (`proxy/upstream.rs`), an idle one
//! (`proxy/pool.rs`) or a new one (`proxy/upstream_connection.rs`; a name leads to it by
//! `proxy/named_server.rs` and `proxy/happy_eyeballs.rs`), and carries the client's body
//! (`proxy/request_body.rs`). The response comes back through `proxy/forward.rs` to
//! `proxy/response_body.rs`, which holds the ticket until the last byte, or, as a tunnel, to
//! `proxy/tunnel.rs`. A stream may have to end before its server ends it (`proxy/streams.rs`), where it
//! can be ended (`proxy/stream_borders.rs`, `proxy/response_framing.rs`). Where no upstream answered, the gateway replies itself
//! (`proxy/local_reply.rs`). What is known of the request (`proxy/exchange_record.rs`) goes to the access log
//! (`proxy/access_log.rs`) and to the metrics of its route (`proxy/route_stats.rs`) at its end.
//!
//! **One restart.** A call comes from the control socket (`control/server/`) to
//! `gateway/run_loop/calls.rs`, which lets the pure machine decide (`gateway/lifecycle.rs`).
//! `gateway/run_loop/perform.rs` performs every action of the machine. To build, it reads the
//! configuration (`gateway/config_source.rs`) and starts a build (`gateway/building.rs`) that
//! starts each sidecar in its slot (`gateway/generation.rs`, `gateway/slot.rs`) and waits until it
//! is ready (`sidecar/readiness.rs`); a server that restarts by its own means stays in its slot and is
//! asked to (`sidecar/own_restart.rs`). The result returns to `gateway/run_loop/events.rs`, the
//! machine says to serve, and `gateway/run_loop/perform.rs` publishes the new routes
//! (`gateway/front_door.rs`), drains the old generation (`gateway/drain/old_generation.rs`) and
//! answers (`gateway/pending_requests.rs`) when the passages are made (`gateway/passage.rs`). The head of [`gateway`] tells more, also of a restart
//! in a successor.
//!
//! **One `gatewayctl clean`.** `cli/commands/clean.rs` reads the flags; `service/address_claim.rs`
//! gathers what the installed gateway claims; `stale/survey.rs` finds the processes that hold its
//! addresses and asks whether they are alive (`stale/liveness.rs`); `stale/judge.rs` decides;
//! `stale/clean.rs` opens a descriptor of each stale process (`os/process/pidfd.rs`), looks once
//! more, and `stale/terminate.rs` sends the signals. The head of [`stale`] tells more.
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | authority | what a client of the control protocol may do: everything, as gatewayctl and who has the owner's token, or only read |
//! | backend | the server that a route leads to: the door, the tickets and the connections of a sidecar or of an upstream URL |
//! | bundle | a file with the details of one bad end, below `bundles/` in the state directory |
//! | crash loop | lives that end too soon, one after the other: the throttle, then safe mode (`gateway/recovery.rs`) |
//! | door | whether a backend takes a request now: open, held, or gone |
//! | drain | the time in which old work finishes, and the waiting for it; its budget is in `gateway/budget.rs` |
//! | drainer | an older process that drains after a hand-over |
//! | exit | the strategy in which this process drains and ends, and the service manager starts the next |
//! | fd store | the sockets that systemd keeps for a service between two lives |
//! | front door | everything that clients talk to: [`proxy`] |
//! | generation | one checked configuration with its sidecars, routes and readiness |
//! | hand-over | the passage of listeners, lock and service from a predecessor to a successor process |
//! | hold | requests that wait at the front door until a door opens |
//! | instance | the name of a gateway; one configuration, state directory and unit for each |
//! | intent | the announcement that the next SIGTERM belongs to a restart |
//! | last good configuration | the configuration with which the gateway last became ready |
//! | lease | work that is not a request and holds a drain: `gatewayctl inhibit` |
//! | life | the time from the start of a gateway process to its end, as the history records it |
//! | own restart | the restart of a server by its own means, while its door is held: `reload` of its configuration |
//! | owner | the process that has the lock of a state directory |
//! | passage | the readiness request of a new sidecar that the gateway itself sends through its front door, after the switch |
//! | predecessor, successor | the old and the new process of a hand-over |
//! | respawn | the strategy in which a fresh process takes over |
//! | safe mode | front door and control socket are up, sidecars are off |
//! | session | requests for which one copy of a server keeps something in its memory: `sticky` |
//! | sidecar | a program that the gateway starts behind the front door |
//! | slot | the place of one sidecar in a generation: its process and its backend |
//! | stage | what a gateway does now, in one word: starting, ready, draining and so on |
//! | stale | of a gateway: proven to be left behind, so that it may be ended |
//! | stand-by | the state of a second gateway that waits until the owner is gone |
//! | strategy | where the next generation lives: in-process, respawn or exit |
//! | subscriber | who follows the events of a gateway over its control socket |
//! | supervisor | what started this process and follows it: systemd, launchd, s6, a container engine, a terminal |
//! | throttle | the growing wait before sidecars start after rapid starts |
//! | ticket | the proof that one request or tunnel is under way at a backend |
//! | tunnel | a connection after an upgrade, such as a WebSocket |
//! | waiter | the first process, if something follows its pid: it outlives the hand-over and forwards signals |
//!
//! A type name stands once in the crate. Those that stand twice, with the reason:
//!
//! | type | reason |
//! |---|---|
//! | `PidFd` | twins for Linux and macOS, of which one is compiled |
//! | `Watcher` | twins for Linux and macOS, of which one is compiled |

pub(crate) mod bench;
pub(crate) mod cli;
pub(crate) mod config;
pub(crate) mod control;
pub(crate) mod diagnose;
pub(crate) mod gateway;
pub(crate) mod launchd;
pub(crate) mod os;
pub(crate) mod proxy;
pub(crate) mod service;
pub(crate) mod sidecar;
pub(crate) mod stale;
pub(crate) mod state;
pub(crate) mod supervisor;
pub(crate) mod systemd;
pub(crate) mod text;

/// What the two programs call.
#[doc(hidden)]
pub mod programs {
    pub use crate::cli::args::{CtlCli, GatewayCli, GatewayCommand};
    pub use crate::cli::commands::config::verdict as check_config;
    pub use crate::cli::commands::config::warnings as config_warnings;
    pub use crate::cli::{Exit, gatewayctl, unusable};
    pub use crate::config::{Env, Overrides};
    pub use crate::gateway::{hold_signals, prove, release_signals, run};
    pub use crate::text::log;
}

/// What the tests, benchmarks and fuzz targets read and write beside the two programs. Everything else is private
/// to the crate, so that the compiler names code that nobody uses.
#[doc(hidden)]
pub mod internals {
    pub use crate::bench::stats::{middle_and_most, slope, tenths};
    pub use crate::config::environment_file::Secrets;
    pub use crate::config::{ConfigError, Dur, Listen, load, load_text, to_toml, whereabouts};
    pub use crate::control::frames::{ReadFrame, read as read_frame, write as write_frame};
    pub use crate::control::protocol::{FRAME_MAX, Frame, Method, Outcome, Progress, Status};
    pub use crate::control::server::bind as bind_control_socket;
    pub use crate::gateway::strategy::MAX_DRAINERS;
    pub use crate::os::port::{Depth, who as port_holders};
    #[cfg(target_os = "linux")]
    pub use crate::os::port::{Socket, diag, table};
    pub use crate::os::process::{PidFd, Process, Stat};
    #[cfg(target_os = "linux")]
    pub use crate::os::process::{arguments_in, group_in, is_within, stat_in};
    pub use crate::proxy::head_limits::HeadLimits;
    pub use crate::proxy::progress::ConnectionProgress;
    pub use crate::proxy::proxy_header;
    pub use crate::proxy::websocket;
    pub use crate::service::launchd_plist::JobPlan;
    pub use crate::service::provenance::{Written, sign};
    pub use crate::service::sandbox::Sandbox;
    pub use crate::service::unit_text::{RunAs, UnitPlan, UnitSubject, default_socket};
    pub use crate::state::boot_time::BootTime;
    pub use crate::state::lock::Lock;
    pub use crate::state::owner::{Drainer, Owner, boot_id, start_time};
    pub use crate::state::paths::Scope;
    pub use crate::state::restart_intent::{Intent, write as write_intent};
    pub use crate::supervisor::{Evidence, HINTS, detect};
    pub use crate::systemd::unit::facts_of;
    pub use crate::systemd::{ANSWER as DBUS_ANSWER, Notifier, machine_stopping};
}
