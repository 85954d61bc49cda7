//! What one set of workers shares.

use std::sync::Arc;

use tokio::sync::watch;

use super::Front;
use super::admission::ConnectionLimit;
use super::drain::WorkerState;
use super::room::Room;
use super::tasks::WorkerTasks;
use crate::os::descriptors;

/// What the threads of one set of workers and their connections share.
#[derive(Debug)]
pub struct WorkerContext {
    pub front: Arc<Front>,
    pub state: watch::Sender<WorkerState>,
    pub limit: ConnectionLimit,
    pub room: Arc<Room>,
    pub tasks: WorkerTasks,
}

impl WorkerContext {
    /// For workers that begin to serve.
    pub fn new(front: &Arc<Front>) -> Self {
        Self {
            front: Arc::clone(front),
            state: watch::Sender::default(),
            limit: ConnectionLimit::new(descriptors::clients(
                front.table().settings.limits.connections,
            )),
            room: Arc::default(),
            tasks: WorkerTasks::default(),
        }
    }
}
