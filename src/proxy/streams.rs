//! The early end of streams: answers without an announced length, such as server-sent events, that a
//! held door cannot wait for.
//!
//! Server-sent events end after a whole event, and the answer is complete: an EventSource connects
//! again. Any other stream ends after a whole chunk, and its connection is closed without the last
//! chunk: nobody may take a half for the whole.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::stream_borders::StreamBorders;

/// Whether the streams of one server go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum StreamsStage {
    GoOn,
    /// Each ends as soon as it can end in order.
    EndInOrder,
    EndAtOnce,
}

/// Tells the streams of one backend when they must end.
#[derive(Debug, Default)]
pub struct StreamsEnd {
    /// A [`StreamsStage`].
    stage: AtomicU8,
    changed: Arc<Notify>,
}

impl StreamsEnd {
    /// Every stream ends as soon as it can end in order.
    pub fn end_in_order(&self) {
        self.set(StreamsStage::EndInOrder);
    }

    /// Those that have not ended by then end where they are.
    /// Nothing where the next run of the server has streams by now.
    pub fn end_at_once(&self) {
        let (from, to) = (
            StreamsStage::EndInOrder as u8,
            StreamsStage::EndAtOnce as u8,
        );
        let ends = self
            .stage
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
        if ends.is_ok() {
            self.changed.notify_waiters();
        }
    }

    /// The streams of the next run of the server may go on.
    pub fn go_on(&self) {
        self.set(StreamsStage::GoOn);
    }

    fn set(&self, stage: StreamsStage) {
        self.stage.store(stage as u8, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn stage(&self) -> StreamsStage {
        match self.stage.load(Ordering::Acquire) {
            0 => StreamsStage::GoOn,
            1 => StreamsStage::EndInOrder,
            _ => StreamsStage::EndAtOnce,
        }
    }
}

/// What a stream does next.
#[derive(Debug)]
pub enum StreamStep {
    /// It hands this over.
    Frame(Frame<Bytes>),
    /// Something is waited for.
    Wait,
    /// It is complete here, though its server would go on.
    End,
    /// It is broken off here.
    BreakOff,
}

/// How far an answer without an announced length is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamState {
    Open,
    /// Nothing more of it is handed over. hyper may not have begun to write what was.
    Closing,
    /// What was handed over is being written; then it is broken off.
    Flushing,
    /// It is complete.
    Complete,
}

/// One answer without an announced length.
#[derive(Debug)]
pub struct Stream {
    borders: StreamBorders,
    state: StreamState,
    /// Wakes it when it must end; there from when it first waited for its server.
    changed: Option<Pin<Box<OwnedNotified>>>,
}

impl Stream {
    pub fn new(borders: StreamBorders) -> Self {
        Self {
            borders,
            state: StreamState::Open,
            changed: None,
        }
    }

    /// Whether nothing of its server is needed any more.
    pub fn is_over(&self) -> bool {
        self.state != StreamState::Open
    }

    /// Whether it ended before its server ended it, and the answer is complete.
    pub fn is_complete(&self) -> bool {
        self.state == StreamState::Complete
    }

    /// What to do with the data that came. `end` tells whether it must end.
    pub fn data(&mut self, mut data: Bytes, end: &StreamsEnd) -> StreamStep {
        match end.stage() {
            StreamsStage::GoOn => {}
            StreamsStage::EndInOrder => {
                if let Some(border) = self.borders.last_in(&data) {
                    data.truncate(border);
                    self.close();
                }
            }
            StreamsStage::EndAtOnce => {
                self.close();
                return match self.state {
                    StreamState::Complete => StreamStep::End,
                    _ => StreamStep::BreakOff,
                };
            }
        }
        self.borders.advance(&data);
        StreamStep::Frame(Frame::data(data))
    }

    /// What to do while nothing comes; `written` when all that was handed over is written.
    pub fn wait(&mut self, end: &StreamsEnd, written: bool, cx: &mut Context<'_>) -> StreamStep {
        // Before the stage is looked at: no change is missed.
        while let Poll::Ready(()) = self
            .changed
            .get_or_insert_with(|| Box::pin(Arc::clone(&end.changed).notified_owned()))
            .as_mut()
            .poll(cx)
        {
            self.changed = None;
        }
        let stage = end.stage();
        let ends = match stage {
            StreamsStage::GoOn => false,
            StreamsStage::EndInOrder => self.borders.at_border(),
            StreamsStage::EndAtOnce => true,
        };
        if self.state == StreamState::Open && ends {
            self.close();
        }
        match self.state {
            StreamState::Open => StreamStep::Wait,
            StreamState::Closing => {
                // hyper writes what it has before it comes here again.
                self.state = StreamState::Flushing;
                cx.waker().wake_by_ref();
                StreamStep::Wait
            }
            StreamState::Flushing if written || stage == StreamsStage::EndAtOnce => {
                StreamStep::BreakOff
            }
            StreamState::Flushing => StreamStep::Wait,
            StreamState::Complete => StreamStep::End,
        }
    }

    fn close(&mut self) {
        self.state = match self.borders.completes() {
            true => StreamState::Complete,
            false => StreamState::Closing,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::stream_borders::EventBorder;

    fn events() -> Stream {
        Stream::new(StreamBorders::Events(EventBorder::default()))
    }

    fn passed(step: StreamStep) -> Option<Bytes> {
        match step {
            StreamStep::Frame(frame) => frame.into_data().ok(),
            _ => None,
        }
    }

    fn wait(stream: &mut Stream, end: &StreamsEnd, written: bool) -> StreamStep {
        let waker = std::task::Waker::noop();
        stream.wait(end, written, &mut Context::from_waker(waker))
    }

    #[test]
    fn events_end_in_order_after_a_whole_event() {
        let (mut stream, end) = (events(), StreamsEnd::default());
        let first = Bytes::from_static(b"data: 1\n\ndata");
        assert_eq!(passed(stream.data(first.clone(), &end)), Some(first));
        end.end_in_order();
        assert!(matches!(wait(&mut stream, &end, true), StreamStep::Wait));
        let rest = Bytes::from_static(b": 2\n\ndata: 3");
        let passed = passed(stream.data(rest, &end));
        assert_eq!(passed, Some(Bytes::from_static(b": 2\n\n")));
        assert!(stream.is_complete());
    }

    #[test]
    fn events_that_are_silent_end_at_once_and_unfinished_ones_when_their_time_is_over() {
        let (mut silent, mut unfinished, end) = (events(), events(), StreamsEnd::default());
        unfinished.data(Bytes::from_static(b"data: "), &end);
        end.end_in_order();
        assert!(matches!(wait(&mut silent, &end, true), StreamStep::End));
        let step = wait(&mut unfinished, &end, true);
        assert!(matches!(step, StreamStep::Wait));
        end.end_at_once();
        assert!(matches!(wait(&mut unfinished, &end, true), StreamStep::End));
    }

    #[test]
    fn another_stream_is_broken_off_where_its_server_pauses_and_all_is_written() {
        let (mut stream, end) = (Stream::new(StreamBorders::Pauses), StreamsEnd::default());
        end.end_in_order();
        let data = Bytes::from_static(b"some");
        assert_eq!(passed(stream.data(data.clone(), &end)), Some(data));
        for (written, breaks_off) in [(true, false), (false, false), (true, true)] {
            let step = wait(&mut stream, &end, written);
            assert_eq!(matches!(step, StreamStep::BreakOff), breaks_off, "{step:?}");
        }
        assert!(stream.is_over() && !stream.is_complete());
        end.go_on();
        let mut next = Stream::new(StreamBorders::Pauses);
        assert!(matches!(wait(&mut next, &end, true), StreamStep::Wait));
        end.end_at_once();
        assert!(matches!(wait(&mut next, &end, true), StreamStep::Wait));
        end.end_in_order();
        end.end_at_once();
        let step = next.data(Bytes::from_static(b"more"), &end);
        assert!(matches!(step, StreamStep::BreakOff));
    }
}
