//! Requests that come back: through a name, an address of this machine or another proxy, a route may lead
//! to this very front door, and its requests would go round until no descriptor is left. A header marks
//! those that may be on such a way, and what comes back with it is answered 508.
//!
//! The marker is a random number of this process, so that a client who makes one up gets nothing. A server
//! behind sees that there is a proxy by it; so it is sent to no sidecar, and to an upstream only while so
//! many requests are under way there that these may be rounds of one.

use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// A list of marks: of each gateway that a request may have to come back to.
const HOP: HeaderName = HeaderName::from_static("x-gateway-hop");

/// With more than so many requests under way at one upstream, they are marked. Each round of a request
/// takes about 6 descriptors of this process, and the process has hundreds at the least.
pub const UNMARKED: usize = 32;

/// The mark of one front door.
#[derive(Debug)]
pub struct HopMark {
    mark: String,
    /// Whether a request was marked: before that, none comes back with the mark.
    used: AtomicBool,
}

impl HopMark {
    pub fn new() -> Self {
        let (high, low) = (crate::os::random(), crate::os::random());
        Self {
            mark: format!("{high:016x}{low:016x}"),
            used: AtomicBool::new(false),
        }
    }

    /// Whether a request has been here before.
    pub fn is_on(&self, headers: &HeaderMap) -> bool {
        if !self.used.load(Ordering::Relaxed) {
            return false;
        }
        let mut marks = headers.get_all(HOP).iter();
        marks.any(|marks| {
            let mut each = marks.as_bytes().split(|byte| *byte == b',');
            each.any(|mark| mark.trim_ascii() == self.mark.as_bytes())
        })
    }

    /// Marks a request; what others marked stays.
    pub fn put(&self, headers: &mut HeaderMap) {
        if !self.is_on(headers)
            && let Ok(mark) = HeaderValue::from_str(&self.mark)
        {
            self.used.store(true, Ordering::Relaxed);
            headers.append(HOP, mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_mark_counts_and_it_is_found_in_every_form_of_a_list() {
        let (ours, theirs) = (HopMark::new(), HopMark::new());
        let mut headers = HeaderMap::new();
        theirs.put(&mut headers);
        assert!(!ours.is_on(&headers) && theirs.is_on(&headers));
        ours.put(&mut headers);
        ours.put(&mut headers);
        assert_eq!(headers.get_all(HOP).iter().count(), 2);
        assert!(ours.is_on(&headers) && theirs.is_on(&headers));
        let joined = format!("{},  {}", theirs.mark, ours.mark).parse().unwrap();
        headers.insert(HOP, joined);
        assert!(ours.is_on(&headers) && theirs.is_on(&headers));
        headers.insert(HOP, ours.mark[1..].parse().unwrap());
        assert!(!ours.is_on(&headers));
    }
}
