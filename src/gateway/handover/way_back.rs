//! The way back: the stream by which a successor offers the service to the process before it, whose
//! sidecars still run, when its own have died. It is closed when that will not happen any more.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixStream as WatchedStream;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::incoming::IncomingOffer;
use crate::gateway::outbox::Outbox;
use crate::os::jobs::aside;

/// How long reading an offer may take that has begun to come: it is written in one piece.
const READ: Duration = Duration::from_secs(2);

/// What comes by the way back.
#[derive(Debug)]
pub enum OfferedBack {
    /// The successor offers the service.
    Offer(Box<IncomingOffer>),
    /// It will not do so.
    Never,
}

/// Reads what comes; `offers` hears it once.
pub(super) fn listen(way: UnixStream, offers: Outbox<OfferedBack>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        offers.send(match read(way).await {
            Ok(Some(offer)) => OfferedBack::Offer(Box::new(offer)),
            Ok(None) => OfferedBack::Never,
            Err(why) => {
                warn!("[gateway] the service cannot come back: {why}");
                OfferedBack::Never
            }
        });
    }))
}

async fn read(way: UnixStream) -> Result<Option<IncomingOffer>, String> {
    let bad = |error: std::io::Error| error.to_string();
    way.set_nonblocking(true).map_err(bad)?;
    let way = WatchedStream::from_std(way).map_err(bad)?;
    way.ready(Interest::READABLE).await.map_err(bad)?;
    let way = way.into_std().map_err(bad)?;
    way.set_nonblocking(false).map_err(bad)?;
    let late = || Err(format!("it was not read within {} s", READ.as_secs()));
    let read = aside(READ, move || IncomingOffer::receive(way)).await;
    read.unwrap_or_else(late)
}
