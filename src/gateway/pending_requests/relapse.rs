//! Requests whose generation died soon after it had taken over: they were not done, also those that were
//! said to be.

use super::{PendingRequests, Relapse, Unanswered, ended, log_end};
use crate::control::protocol::{FailureCode, GenerationInfo};
use crate::gateway::lifecycle::RequestVerdict;

/// Why a request failed whose generation died, where more than that will not be known.
const UNTOLD: &str =
    "its server died soon after it had taken over; the process that knew how has died as well";

impl PendingRequests {
    /// What was done is not done any more when its generation has died meanwhile.
    pub(super) fn unless_relapsed(&self, verdict: RequestVerdict) -> RequestVerdict {
        match &self.relapse {
            Some(Relapse { generation, why }) if verdict.generation() == Some(*generation) => {
                RequestVerdict::Failed(why.clone().unwrap_or_else(|| UNTOLD.to_owned()))
            }
            _ => verdict,
        }
    }

    /// This generation has died, and [`correct`](Self::correct) tells how: what it fulfilled is answered
    /// only then.
    pub fn doubt(&mut self, generation: u64) {
        self.relapse = Some(Relapse {
            generation,
            why: None,
        });
    }

    /// Whether this waits for how its generation died.
    pub fn is_doubted(&self, verdict: &RequestVerdict) -> bool {
        let doubted = self.doubted();
        doubted.is_some() && doubted == verdict.generation()
    }

    /// The generation of which it is not known yet how it died.
    fn doubted(&self) -> Option<u64> {
        let relapse = self.relapse.as_ref();
        let doubted = relapse.filter(|relapse| relapse.why.is_none());
        doubted.map(|relapse| relapse.generation)
    }

    /// Those that only waited for how their generation died, once that is known.
    pub fn undoubted(&mut self) -> Vec<Unanswered> {
        let doubted = self.doubted();
        let known = |one: &mut Unanswered| one.settled && one.verdict.generation() != doubted;
        self.unanswered.extract_if(.., known).collect()
    }

    /// Nobody will tell any more how the generation died that is doubted; `serves` serves on.
    pub fn stay_untold(&mut self, serves: u64) {
        if let Some(generation) = self.doubted() {
            self.correct(generation, UNTOLD, serves);
        }
    }

    /// This generation died soon after its requests were said to be done: they failed, and `serves`
    /// serves on.
    pub fn correct(&mut self, generation: u64, why: &str, serves: u64) {
        let verdict = RequestVerdict::Failed(why.to_owned());
        self.relapse = Some(Relapse {
            generation,
            why: Some(why.to_owned()),
        });
        let fulfilled = match self.fulfilled.0 == generation {
            true => std::mem::take(&mut self.fulfilled.1),
            false => Vec::new(),
        };
        for (asked, mut end) in fulfilled {
            end.outcome = ended(&verdict, false);
            let after = GenerationInfo {
                number: serves,
                ..GenerationInfo::default()
            };
            log_end(&end, generation, &after);
            self.record.request(asked, &end);
            let id = &end.request;
            if self.last.as_ref().is_some_and(|last| last.request == *id) {
                self.last = Some(end);
            }
        }
        let waited = self
            .for_drain
            .extract_if(.., |(_, _, outcome)| outcome.after.number == generation);
        let waited: Vec<_> = waited.collect();
        for (_, reply, _) in waited {
            self.refuse(reply, FailureCode::Failed, why.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::pending_requests::RequestScene;
    use crate::gateway::record::LifeRecord;
    use crate::text::redact::Redactor;

    /// Its answer waited for clients or passages, which are there.
    fn settled(verdict: RequestVerdict) -> Unanswered {
        Unanswered {
            id: "r1".to_owned(),
            verdict,
            scene: RequestScene::default(),
            settled: true,
        }
    }

    /// A restart was said to be done in the moment between the death of its generation and the end of
    /// that one's last words.
    #[test]
    fn a_request_whose_generation_has_died_is_answered_when_it_is_known_how() {
        let dir = tempfile::tempdir().unwrap();
        let record = LifeRecord::new(dir.path(), "main", &Redactor::default());
        let mut requests = PendingRequests::new(record, Default::default(), false);
        let done = |generation| RequestVerdict::Done(generation);
        requests.doubt(2);
        assert!(requests.is_doubted(&done(2)) && !requests.is_doubted(&done(1)));
        requests.postpone(settled(done(2)));
        requests.postpone(Unanswered {
            settled: false,
            ..settled(done(2))
        });
        assert!(requests.undoubted().is_empty());

        requests.correct(2, "exited", 1);
        assert!(!requests.is_doubted(&done(2)));
        assert_eq!(requests.undoubted().len(), 1);
        assert!(requests.owes_answers(), "the other waits for its passages");
        let failed = |why: &str| RequestVerdict::Failed(why.to_owned());
        assert_eq!(requests.unless_relapsed(done(2)), failed("exited"));
        assert_eq!(requests.unless_relapsed(done(1)), done(1));

        requests.doubt(3);
        requests.stay_untold(1);
        assert_eq!(requests.unless_relapsed(done(3)), failed(UNTOLD));
    }
}
