//! What the connections, the requests and the gateway's run loop share: the routing table, readiness,
//! refusal and statistics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::{HeaderValue, Response, StatusCode};
use tokio::sync::watch;

use super::access_log::AccessLog;
use super::address_limits::AddressTable;
use super::exchange_record::Records;
use super::forwarded::ProxyWarnings;
use super::hops::HopMark;
use super::local_reply::{ErrorLog, Form, NotForwarded, Reason, Refusal};
use super::log_throttle::LogThrottle;
use super::response_body::ResponseBody;
use super::routes::Routes;
use super::sidecar_gauges::SidecarGauges;
use super::stats::Stats;
use super::wave::Wave;
use super::{RoutingTable, Settings};
use crate::config::Config;
use crate::control::server::PublicControl;

/// What all connections and the gateway's run loop share.
#[derive(Debug)]
pub struct Front {
    pub instance: String,
    /// Distinguishes this process from every other.
    pub identity: String,
    pub started: Instant,
    pub stats: Arc<Stats>,
    pub wave: Arc<Wave>,
    pub errors: ErrorLog,
    /// Logs who made no progress within `[limits]`.
    pub cuts: Arc<LogThrottle>,
    pub proxies: ProxyWarnings,
    /// Marks what may come back.
    pub hop: HopMark,
    pub access_log: Arc<AccessLog>,
    /// What each client address has open.
    pub addresses: Arc<AddressTable>,
    /// Logs which addresses have too much open.
    pub limited: LogThrottle,
    table: watch::Sender<Arc<RoutingTable>>,
    /// Why `/readyz` answers 503; empty when ready.
    health: watch::Sender<Arc<Vec<Reason>>>,
    /// Why requests without an open door are answered 503 at once.
    refusal: watch::Sender<Option<Arc<Refusal>>>,
    /// The sidecars of the generation that serves, for the metrics.
    sidecars: watch::Sender<Arc<Vec<SidecarGauges>>>,
    /// What `/readyz` reports as degraded, though it answers 200.
    remark: watch::Sender<Option<Arc<Reason>>>,
    /// The control protocol on the listeners, and the tokens of `/_gateway/…`.
    pub control: Arc<PublicControl>,
    closing: AtomicBool,
}

impl Front {
    /// A front door without routes, which is not ready yet.
    pub fn new(instance: &str, config: &Config) -> Arc<Self> {
        let table = RoutingTable {
            generation: 0,
            routes: Routes::default(),
            settings: Settings::new(config),
        };
        Arc::new(Self {
            instance: instance.to_owned(),
            identity: format!("{}-{:016x}", std::process::id(), crate::os::random()),
            started: Instant::now(),
            stats: Arc::default(),
            wave: Arc::default(),
            errors: ErrorLog::default(),
            cuts: Arc::default(),
            proxies: ProxyWarnings::default(),
            hop: HopMark::new(),
            access_log: Arc::default(),
            addresses: Arc::default(),
            limited: LogThrottle::default(),
            table: watch::Sender::new(Arc::new(table)),
            health: watch::Sender::new(Arc::new(vec![Reason::new("starting")])),
            refusal: watch::Sender::new(None),
            sidecars: watch::Sender::default(),
            remark: watch::Sender::new(None),
            control: Arc::default(),
            closing: AtomicBool::new(false),
        })
    }

    /// Where the record of a request goes.
    pub fn records(&self) -> Records {
        Records {
            stats: Arc::clone(&self.stats),
            access_log: Arc::clone(&self.access_log),
        }
    }

    pub fn table(&self) -> Arc<RoutingTable> {
        Arc::clone(&self.table.borrow())
    }

    pub fn watch_table(&self) -> watch::Receiver<Arc<RoutingTable>> {
        self.table.subscribe()
    }

    /// From here on new requests follow this table.
    pub fn publish(&self, table: RoutingTable) {
        self.table.send_replace(Arc::new(table));
    }

    /// Why the gateway is not ready; empty when it is.
    pub fn health(&self) -> Arc<Vec<Reason>> {
        match &*self.refusal.borrow() {
            Some(refusal) => Arc::new(vec![refusal.reason.clone()]),
            None => Arc::clone(&self.health.borrow()),
        }
    }

    /// Sets why the gateway is not ready; empty when it is.
    pub fn set_health(&self, reasons: Vec<Reason>) {
        self.health.send_if_modified(|current| {
            let change = **current != reasons;
            *current = Arc::new(reasons);
            change
        });
    }

    /// The sidecars of the generation that serves.
    pub fn sidecars(&self) -> Arc<Vec<SidecarGauges>> {
        Arc::clone(&self.sidecars.borrow())
    }

    /// Sets what the metrics tell of the sidecars.
    pub fn set_sidecars(&self, sidecars: Vec<SidecarGauges>) {
        self.sidecars.send_replace(Arc::new(sidecars));
    }

    /// While set, a request whose door is not open is answered 503 at once instead of waiting, and
    /// so are those that wait now; `/readyz` gives the reason. `/healthz`, the control socket and
    /// requests to an open door are not affected.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.refusal.send_replace(refusal.map(Arc::new));
    }

    /// Why requests are refused now, if they are.
    pub fn refusal(&self) -> Option<Arc<Refusal>> {
        self.refusal.borrow().clone()
    }

    /// Sets what is degraded, though every request is served.
    pub fn set_remark(&self, remark: Option<Reason>) {
        self.remark.send_replace(remark.map(Arc::new));
    }

    /// What is degraded, though every request is served.
    pub fn remark(&self) -> Option<Arc<Reason>> {
        self.remark.borrow().clone()
    }

    /// The servers that answer nothing though they are asked, in a sentence each.
    pub fn stalled(&self) -> Vec<String> {
        let table = self.table();
        let mut stalled: Vec<String> = (table.routes.backends())
            .filter_map(|backend| backend.tickets.stalled())
            .collect();
        stalled.sort();
        stalled.dedup();
        stalled
    }

    /// The response to a request that is refused, which is logged and counted.
    pub fn refuse_request(
        &self,
        why: &NotForwarded,
        form: Form,
        id: Option<&HeaderValue>,
    ) -> Response<ResponseBody> {
        self.errors.note(why, id);
        let response = why.reply(form);
        self.stats.refused(response.status());
        response
    }

    /// hyper itself has refused a request, which passed here: with the empty response that it has for
    /// all of them. Returns its status.
    pub fn refused_by_hyper(&self, error: &hyper::Error) -> StatusCode {
        let status = match error.is_parse_too_large() {
            true => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            false => StatusCode::BAD_REQUEST,
        };
        self.errors.note_refused(status, &error.to_string(), None);
        self.stats.refused(status);
        self.stats.answered(status.as_u16());
        status
    }

    pub fn watch_refusal(&self) -> watch::Receiver<Option<Arc<Refusal>>> {
        self.refusal.subscribe()
    }

    /// Whether the gateway stops: a backend that is away does not come back.
    pub fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// The gateway stops.
    pub fn set_closing(&self) {
        self.closing.store(true, Ordering::Release);
        // Wakes the requests that wait for another table: there will be none.
        self.table.send_modify(|_| {});
    }
}
