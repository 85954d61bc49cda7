//! The generation under construction: what it is made of, and what a build that is given up leaves.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::config_source::Material;
use super::context::GatewayContext;
use super::generation::{BuildError, BuildPlan, Generation, StartedSlots};
use super::outbox::Outbox;
use super::progress::Reporter;
use super::slot::Slot;

/// The build of one generation, from its plan to its end.
#[derive(Debug, Default)]
pub struct Construction(Option<UnderWay>);

#[derive(Debug)]
struct UnderWay {
    number: u64,
    task: JoinHandle<()>,
    started: StartedSlots,
    source: BuildSource,
}

/// Where a generation comes from.
#[derive(Debug)]
pub struct BuildSource {
    pub material: Material,
    /// Reports the progress to the client that requested the build.
    pub report: Reporter,
    /// A reload that found nothing to do.
    pub unchanged: bool,
}

/// What comes of a build.
pub type BuildResult = Box<Result<Generation, BuildError>>;

impl Construction {
    /// Builds beside what serves; the result goes to `built`.
    pub fn start(
        &mut self,
        plan: BuildPlan,
        source: BuildSource,
        context: &Arc<GatewayContext>,
        built: Outbox<BuildResult>,
    ) {
        let (number, started) = (plan.number, plan.started.clone());
        let (context, report) = (Arc::clone(context), source.report.clone());
        let task = tokio::spawn(async move {
            let result = plan.build(&context, &report).await;
            // When the loop has ended, dropping the result stops its sidecars.
            built.send(Box::new(result));
        });
        self.0 = Some(UnderWay {
            number,
            task,
            started,
            source,
        });
    }

    /// The build of this generation has ended; none when it was abandoned.
    pub fn finish(&mut self, number: u64) -> Option<BuildSource> {
        let under_way = self.0.take_if(|build| build.number == number)?;
        Some(under_way.source)
    }

    /// Gives the build of this generation up. The sidecars that it had started come back; somebody
    /// else must see them to their end. None when there was no such build.
    pub fn abandon(&mut self, number: u64) -> Option<Vec<Arc<Slot>>> {
        let build = self.0.take_if(|build| build.number == number)?;
        build.task.abort();
        Some(build.started.slots())
    }
}
