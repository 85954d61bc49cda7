//! Lines of the control socket.

use futures_util::FutureExt;
use gateway::internals::{
    FRAME_MAX, Frame, Method, Outcome, Progress, ReadFrame, Status, read_frame, write_frame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::BufReader;

/// What a reader must see in a stream.
#[derive(Debug)]
enum Seen {
    Frame(Frame),
    Garbage,
    TooLong,
}

/// All lines of a stream up to its end, or up to one that is too long: an independent reader that
/// sees the whole stream at once.
fn reference(stream: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut lines: Vec<&[u8]> = stream.split_inclusive(|byte| *byte == b'\n').collect();
    if lines
        .last()
        .is_some_and(|line| !line.ends_with(b"\n") && line.len() <= FRAME_MAX)
    {
        lines.pop();
    }
    for line in lines {
        if line.len() > FRAME_MAX {
            seen.push(Seen::TooLong);
            break;
        }
        match std::str::from_utf8(line).map(serde_json::from_str) {
            _ if line.iter().all(u8::is_ascii_whitespace) => {}
            Ok(Ok(frame)) => seen.push(Seen::Frame(frame)),
            _ => seen.push(Seen::Garbage),
        }
    }
    seen
}

/// What the gateway reads, through a buffer of `capacity` bytes.
fn read(stream: &[u8], capacity: usize) -> Vec<Seen> {
    let mut reader = BufReader::with_capacity(capacity, stream);
    let mut seen = Vec::new();
    loop {
        let read = read_frame(&mut reader).now_or_never();
        match read
            .expect("memory needs no waiting")
            .expect("memory has no errors")
        {
            ReadFrame::Frame(frame) => seen.push(Seen::Frame(frame)),
            ReadFrame::Garbage(why) => {
                assert!(!why.is_empty());
                seen.push(Seen::Garbage);
            }
            ReadFrame::TooLong => {
                seen.push(Seen::TooLong);
                return seen;
            }
            ReadFrame::End => return seen,
        }
    }
}

/// Equal, but for the last digits of numbers with a fraction: JSON readers may differ there.
fn alike(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) if one.is_f64() || two.is_f64() => {
            let (one, two) = (one.as_f64().unwrap(), two.as_f64().unwrap());
            (one - two).abs() <= one.abs().max(two.abs()) * 1e-14
        }
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| alike(one, two))
        }
        (Value::Object(one), Value::Object(two)) => {
            one.len() == two.len()
                && one
                    .iter()
                    .zip(two)
                    .all(|(one, two)| one.0 == two.0 && alike(one.1, two.1))
        }
        (one, two) => one == two,
    }
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap()
}

/// What is understood says the same when it is written and read again.
fn stable<T: Serialize + DeserializeOwned>(payload: &Value) {
    if let Ok(one) = serde_json::from_value::<T>(payload.clone()) {
        let two: T = serde_json::from_value(value(&one)).expect("what was written can be read");
        assert!(alike(&value(&one), &value(&two)), "{:?}", value(&one));
    }
}

fn frame(frame: &Frame) {
    let mut line = Vec::new();
    let written = write_frame(&mut line, frame).now_or_never();
    written
        .expect("memory needs no waiting")
        .expect("a frame can be written");
    assert_eq!(
        line.iter().position(|byte| *byte == b'\n'),
        Some(line.len() - 1)
    );
    let back = read(&line, line.len());
    let [Seen::Frame(back)] = back.as_slice() else {
        panic!("{frame:?} comes back as {back:?}");
    };
    assert!(
        alike(&value(frame), &value(back)),
        "{frame:?} comes back as {back:?}"
    );
    match frame {
        Frame::Req { method, params, .. } => match Method::parse(method, params.clone()) {
            Ok(method) => {
                let (name, params) = method.encode();
                assert_eq!(Method::parse(name, params), Ok(method));
            }
            Err(failure) => assert!(failure.message.contains(method), "{failure:?}"),
        },
        Frame::Res { payload, .. } | Frame::Event { payload, .. } => {
            stable::<Status>(payload);
            stable::<Outcome>(payload);
            stable::<Progress>(payload);
        }
    }
}

/// A stream gives the same frames however it is cut, none longer than the limit; a frame that is
/// written is read back as it was.
///
/// An input that begins with a zero byte has blanks put before it, so that its first line is about
/// as long as the limit: 64 bytes less, and as many more as the second byte says.
pub fn control_frames(input: &[u8]) {
    let long;
    let (stream, capacities): (&[u8], &[usize]) = match input {
        [0, more, rest @ ..] => {
            let line = rest
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(rest.len(), |at| at + 1);
            let length = (FRAME_MAX - 64 + usize::from(*more)).saturating_sub(line);
            long = [vec![b' '; length].as_slice(), rest].concat();
            (&long, &[64 * 1024])
        }
        _ => (input, &[1, 7, 4096]),
    };
    let wanted = reference(stream);
    for capacity in capacities {
        let seen = read(stream, *capacity);
        assert_eq!(
            format!("{seen:?}"),
            format!("{wanted:?}"),
            "capacity {capacity}"
        );
    }
    for one in &wanted {
        if let Seen::Frame(one) = one {
            frame(one);
        }
    }
}
