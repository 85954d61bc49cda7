//! What the output of a gateway says: that it listens, that it is ready, and where the time went.

use std::collections::{BTreeMap, VecDeque};

/// How many of the last lines are kept.
const TAIL: usize = 30;

/// Figures of a trace: the time of each step in milliseconds by its name, `NAME.total` since the
/// beginning, and `NAME.KEY` for each number of the line.
pub type Figures = BTreeMap<String, f64>;

/// A line that tells something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The front door listens.
    Listening,
    /// It restarts.
    Restarting,
    /// It is ready.
    Ready,
    Other,
}

impl Told {
    pub fn by(line: &str) -> Self {
        let Some((_, text)) = line.split_once("[gateway] ") else {
            return Self::Other;
        };
        let is_of_restart = |text: &str| {
            let words: Vec<&str> = text.splitn(4, ' ').collect();
            matches!(words[..], ["restart", _, "asked:", ..])
        };
        match text {
            _ if text.starts_with("http server listening (") => Self::Listening,
            _ if text.starts_with("ready (") => Self::Ready,
            _ if is_of_restart(text) => Self::Restarting,
            _ => Self::Other,
        }
    }
}

/// The traces of one start or restart.
#[derive(Clone, Debug, Default)]
pub struct TraceFigures {
    pub startup: Figures,
    pub restart: Figures,
}

impl TraceFigures {
    /// Takes the figures of a line, if it is one of a trace.
    pub fn add(&mut self, line: &str) {
        let words = [
            ("startup trace: ", &mut self.startup),
            ("restart trace: ", &mut self.restart),
        ];
        for (begin, figures) in words {
            if let Some((_, rest)) = line.split_once(begin) {
                add(rest, figures);
            }
        }
    }
}

/// `NAME 1.2ms total=3.4ms key=5.6 …`, or the same without times.
fn add(rest: &str, figures: &mut Figures) {
    let mut words = rest.split_whitespace();
    let Some(name) = words.next() else { return };
    for word in words {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (format!("{name}.{key}"), value),
            None => (name.to_owned(), word),
        };
        let number = value.strip_suffix("ms").unwrap_or(value).parse::<f64>();
        if let Ok(number) = number
            && number.is_finite()
        {
            figures.insert(key, number);
        }
    }
}

/// The steps of a trace that took longest, and how long each took in milliseconds.
pub fn slowest(figures: &Figures, most: usize) -> Vec<(&str, f64)> {
    // A step has a total beside it; what has none is a number of its line.
    let is_step = |name: &&String| figures.contains_key(&format!("{name}.total"));
    let steps = figures.iter().filter(|(name, _)| is_step(name));
    let mut steps: Vec<(&str, f64)> = steps.map(|(name, took)| (name.as_str(), *took)).collect();
    steps.sort_by(|one, other| other.1.total_cmp(&one.1));
    steps.truncate(most);
    steps
}

/// The last lines.
#[derive(Clone, Debug, Default)]
pub struct OutputTail(VecDeque<String>);

impl OutputTail {
    pub fn add(&mut self, line: &str) {
        if self.0.len() == TAIL {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        for (line, told) in [
            (
                "[gateway] http server listening (127.0.0.1:1)",
                Told::Listening,
            ),
            ("[gateway] ready (generation 2, up 8 ms)", Told::Ready),
            (
                "2026-01-01T00:00:00Z [gateway] ready (generation 2)",
                Told::Ready,
            ),
            ("[gateway] restart r2022-1 asked: SIGUSR1", Told::Restarting),
            (
                "[gateway] restart r2022-1 done: generation 1 -> 2",
                Told::Other,
            ),
            ("[main] ready (soon)", Told::Other),
            ("[main] [gateway] nothing", Told::Other),
        ] {
            assert_eq!(Told::by(line), told, "{line}");
        }
    }

    #[test]
    fn figures_of_traces() {
        let mut traces = TraceFigures::default();
        for line in [
            "restart trace: restart.signal.received 0.0ms total=0.0ms signal=SIGUSR1 force=false waitMs=null",
            "x restart trace: restart.drain 12.3ms total=12.4ms activeTasks=3.0",
            "restart trace: restart.ready 1.0ms total=21.0ms rssMb=8.5",
            "startup trace: config 1.2ms total=1.2ms",
            "startup trace: odd NaNms total=infms",
            "startup trace: ",
        ] {
            traces.add(line);
        }
        let figures: Vec<_> = traces
            .restart
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        let expected = [
            ("restart.drain", 12.3),
            ("restart.drain.activeTasks", 3.0),
            ("restart.drain.total", 12.4),
            ("restart.ready", 1.0),
            ("restart.ready.rssMb", 8.5),
            ("restart.ready.total", 21.0),
            ("restart.signal.received", 0.0),
            ("restart.signal.received.total", 0.0),
        ];
        assert_eq!(figures, expected);
        assert_eq!(traces.startup.len(), 2);
        assert_eq!(
            slowest(&traces.restart, 2),
            [("restart.drain", 12.3), ("restart.ready", 1.0)]
        );
    }

    #[test]
    fn thirty_lines_are_kept() {
        let mut tail = OutputTail::default();
        (0..40).for_each(|number| tail.add(&number.to_string()));
        let lines = tail.lines();
        assert_eq!((lines.len(), lines[0].as_str()), (TAIL, "10"));
    }
}
