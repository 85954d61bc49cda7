//! The configuration file, key by key. Every key is optional; unknown keys are refused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DEFAULT_PORT;
use super::sidecar::SidecarSpec;
use super::types::{AccessLogTarget, Dur, Listen};
use crate::text::words::words;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The gateway itself.
    pub gateway: GatewaySection,
    /// How restarts are done and how long old work may take.
    pub restart: RestartSection,
    /// What happens after the gateway ended unexpectedly.
    pub recovery: RecoverySection,
    /// What a client may ask of the front door.
    pub limits: LimitsSection,
    /// The programs behind the front door, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sidecar: BTreeMap<String, SidecarSpec>,
    /// Which request goes where. The only sidecar, or `main`, gets what no route takes, unless a route
    /// names it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<RouteSpec>,
}

/// `[gateway]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaySection {
    /// The name of this gateway; "gateway" when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The addresses of the front door.
    pub listen: Vec<Listen>,
    /// Where state is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// A file holding the bearer token for `/_gateway/…`, which also controls the gateway; without it a token
    /// is made in the state directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The same for a token that only reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader_token_file: Option<PathBuf>,
    /// Whether `/healthz` and `/readyz` are answered by the gateway.
    pub health_paths: bool,
    /// Whether a `Via` header is added to what passes through.
    pub via: bool,
    /// Which peers are met with `X-Forwarded-*` headers.
    pub forwarded: ForwardedMode,
    /// Peers whose `X-Forwarded-*` headers are trusted: addresses, networks, or "unix".
    pub trusted_proxies: Vec<String>,
    /// Those of the addresses in `listen` whose connections begin with a header of the PROXY protocol.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proxy_protocol: Vec<Listen>,
    /// Further words that mark a value as secret, besides token, secret, password, key,
    /// authorization.
    pub redact: Vec<String>,
    /// Where one line for each request goes: "off", "journal", "stderr", or the path of a file.
    pub access_log: AccessLogTarget,
    /// What such a line looks like.
    pub access_log_format: AccessLogFormat,
    /// Whether each request has an `X-Request-Id`: the client's, or one that is made. Where it is not
    /// set, with an access log.
    pub request_id: Option<bool>,
    /// Whether the names of header fields keep the case in which they were written.
    pub keep_header_case: bool,
    /// Threads that serve clients; 0 means one per CPU, at most 4.
    pub workers: usize,
}

impl Default for GatewaySection {
    fn default() -> Self {
        Self {
            instance: None,
            listen: vec![Listen::Tcp(([127, 0, 0, 1], DEFAULT_PORT).into())],
            state_dir: None,
            token_file: None,
            reader_token_file: None,
            health_paths: true,
            via: false,
            forwarded: ForwardedMode::Auto,
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            redact: Vec::new(),
            access_log: AccessLogTarget::Off,
            access_log_format: AccessLogFormat::Json,
            request_id: None,
            keep_header_case: false,
            workers: 0,
        }
    }
}

words! {
    /// Where the headers that say who a request comes from are set.
    #[derive(Default)]
    pub enum ForwardedMode {
        /// For peers of other machines.
        #[default]
        Auto = "auto",
        /// For all peers.
        Always = "always",
        /// For none.
        Never = "never",
    }
}

words! {
    /// What a line of the access log looks like.
    #[derive(Default)]
    pub enum AccessLogFormat {
        /// One JSON object.
        #[default]
        Json = "json",
        /// The combined format of Apache and nginx.
        Combined = "combined",
    }
}

words! {
    /// Where the next generation lives.
    #[derive(Default)]
    pub enum RestartMode {
        /// What fits the supervisor.
        #[default]
        Auto = "auto",
        /// In this process.
        InProcess = "in-process",
        /// In a fresh process that takes over listeners and lock.
        Respawn = "respawn",
        /// In whatever the service manager starts next; it must hold the listeners and start again
        /// after a clean end.
        Exit = "exit",
    }
}

/// `[restart]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RestartSection {
    /// Where the next generation lives.
    pub mode: RestartMode,
    /// How long work of the old generation may go on after a restart.
    pub drain: Dur,
    /// How long tunnels (WebSockets) may go on; 300 s where old and new overlap, 5 s where they
    /// cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_drain: Option<Dur>,
    /// How long a stop goes on serving as before, with /readyz already 503, so that load balancers
    /// notice.
    pub stop_delay: Dur,
    /// How long the old copy of a server is kept at least, though it has no work left: it serves
    /// again if the new one dies meanwhile.
    pub watch: Dur,
    /// How many copies of a server live at once, the one that serves included. Where a restart starts one
    /// more, the oldest that still finishes its work is ended.
    pub max_copies: usize,
    /// How long work may go on after a stop.
    pub stop_drain: Dur,
    /// How many requests wait, and how long, while no generation can take them.
    pub hold: Hold,
    /// Whether SIGUSR1 and SIGUSR2 from outside restart.
    pub external_signal: bool,
    /// Under launchd: how long the gateway keeps serving before it exits to be restarted.
    pub launchd_exit_delay: Dur,
}

impl Default for RestartSection {
    fn default() -> Self {
        Self {
            mode: RestartMode::Auto,
            drain: Dur::secs(300),
            tunnel_drain: None,
            stop_delay: Dur::secs(0),
            watch: Dur::secs(10),
            max_copies: 3,
            stop_drain: Dur::secs(20),
            hold: Hold::default(),
            external_signal: true,
            launchd_exit_delay: Dur::millis(1500),
        }
    }
}

/// `[recovery]`: what happens after the gateway ended unexpectedly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecoverySection {
    /// How repeated starts after failures are delayed.
    pub throttle: Throttle,
    /// A command that is run once when the gateway enters safe mode, serves with the last good
    /// configuration, or has a sidecar that dies again and again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_give_up: Vec<String>,
}

/// `[recovery] throttle`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Throttle {
    /// A start is rapid when the one before is younger than this.
    pub window: Dur,
    /// How many rapid starts pass without a wait.
    pub threshold: u32,
    /// The first wait; each further one is twice as long.
    pub base: Dur,
    /// The longest wait.
    pub max: Dur,
    /// After this time of serving, earlier starts are forgotten.
    pub stable: Dur,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            window: Dur::secs(1800),
            threshold: 3,
            base: Dur::secs(5),
            max: Dur::secs(120),
            stable: Dur::secs(600),
        }
    }
}

/// `[restart] hold`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hold {
    /// How many requests may wait at once.
    pub requests: usize,
    /// How long one may wait before it is answered 503.
    pub time: Dur,
}

impl Default for Hold {
    fn default() -> Self {
        Self {
            requests: 10_000,
            time: Dur::secs(30),
        }
    }
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Most client connections open at the same time.
    pub connections: usize,
    /// Most connections of one client address at the same time, an IPv6 network of 64 bits counting as
    /// one address; 0 means without limit. Clients of this machine and trusted proxies have none.
    pub connections_per_address: usize,
    /// Most requests and tunnels of one client address in flight at the same time; 0 means without
    /// limit.
    pub requests_per_address: usize,
    /// Largest request head, in bytes.
    pub header_size: usize,
    /// Most header lines of a request, and of a response.
    pub headers: usize,
    /// How long a client may take to send one request's head.
    pub header_time: Dur,
    /// How long a keep-alive connection may be idle between requests; "0s" means without limit.
    pub idle: Dur,
    /// Largest request body, in bytes; 0 means no limit.
    pub body: u64,
    /// How long a request's body may bring nothing while the server waits for it, before it is
    /// answered 408; "0s" means without limit.
    pub body_idle: Dur,
    /// How long the server may take to begin its answer, once it has the whole request, before it is
    /// answered 504; "0s" means without limit.
    pub answer: Dur,
    /// How long a client may read nothing of its answer before it is disconnected; "0s" means
    /// without limit.
    pub send_idle: Dur,
    /// How long nothing may go through a WebSocket or another tunnel, in either direction, before it is
    /// closed; "0s" means without limit.
    pub tunnel_idle: Dur,
    /// Whether a client that closes its sending side still gets its answer. Otherwise it has left:
    /// its request is cancelled.
    pub half_close: bool,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 0,
            requests_per_address: 0,
            header_size: 64 * 1024,
            headers: 1000,
            header_time: Dur::secs(15),
            idle: Dur::secs(600),
            body: 0,
            body_idle: Dur::secs(60),
            answer: Dur::secs(0),
            send_idle: Dur::secs(60),
            tunnel_idle: Dur::secs(0),
            half_close: false,
        }
    }
}

/// `[[route]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// The path and everything below it.
    #[serde(default = "root_path")]
    pub path: String,
    /// Only for this host; `*.example.org` matches every host below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The name of a sidecar, `http://HOST:PORT` or `unix:/PATH`.
    pub to: String,
}

fn root_path() -> String {
    "/".to_owned()
}
