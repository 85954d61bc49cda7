use super::*;
use crate::config::Dur;

const BOOT: &str = "11111111-2222-3333-4444-555555555555";
const SOON: u64 = 10;

/// Lives one after the other on a real file, by a clock of their own.
struct Lives {
    dir: tempfile::TempDir,
    throttle: Throttle,
    boot: String,
    now: BootTime,
    pid: u32,
}

impl Lives {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            throttle: Throttle::default(),
            boot: BOOT.to_owned(),
            now: BootTime::from(Duration::from_secs(1000)),
            pid: 100,
        }
    }

    fn life(&self) -> LifeStart<'_> {
        LifeStart {
            pid: self.pid,
            boot_id: &self.boot,
            now: self.now,
        }
    }

    /// The next start, `after` seconds later.
    fn start(&mut self, after: u64) -> StartDecision {
        self.later(after);
        self.pid += 1;
        begin(self.dir.path(), &self.throttle, &self.life())
    }

    /// Starts that need not wait.
    fn go(&mut self, starts: u32) {
        for _ in 0..starts {
            assert_eq!(self.start(SOON), StartDecision::Go);
        }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn later(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    /// Starts until the longest wait, that one included; each dies `SOON` after its wait.
    fn until_the_longest_wait(&mut self) {
        let mut wait = 0;
        loop {
            match self.start(wait + SOON) {
                StartDecision::Go => wait = 0,
                StartDecision::Wait { delay, .. } if delay == self.throttle.max.0 => return,
                StartDecision::Wait { delay, .. } => wait = delay.as_secs(),
                StartDecision::Safe { reason, .. } => panic!("{reason}"),
            }
        }
    }
}

fn wait(seconds: u64, count: u32) -> StartDecision {
    StartDecision::Wait {
        delay: Duration::from_secs(seconds),
        count,
    }
}

#[test]
fn three_starts_pass_and_the_fourth_waits_ever_longer_up_to_the_longest() {
    let mut lives = Lives::new();
    // A count that lands on the threshold passes.
    lives.go(3);
    // 20 minutes between them: rapid, and too late for safe mode.
    for (seconds, count) in [
        (5, 4),
        (10, 5),
        (20, 6),
        (40, 7),
        (80, 8),
        (120, 9),
        (120, 10),
    ] {
        assert_eq!(lives.start(1200), wait(seconds, count));
    }
}

#[test]
fn a_start_is_rapid_within_the_window_and_the_first_again_after_it() {
    let mut lives = Lives::new();
    for _ in 0..3 {
        lives.start(1799);
    }
    assert_eq!(lives.start(1799), wait(5, 4));
    assert_eq!(lives.start(1800), StartDecision::Go);
    lives.go(2);
    assert_eq!(lives.start(SOON), wait(5, 4));
}

#[test]
fn a_life_that_lasted_is_forgotten_with_all_before_it() {
    let mut lives = Lives::new();
    for _ in 0..4 {
        lives.start(SOON);
    }
    lives.later(600);
    stable(lives.dir(), lives.pid + 1);
    assert!(path(lives.dir()).exists(), "another life's record stays");
    stable(lives.dir(), lives.pid);
    assert!(!path(lives.dir()).exists());
    stable(lives.dir(), lives.pid);
    assert_eq!(lives.start(SOON), StartDecision::Go);
}

#[test]
fn planned_ends_never_count() {
    let mut lives = Lives::new();
    for _ in 0..20 {
        lives.go(1);
        ended_planned(lives.dir(), lives.pid);
    }
    lives.go(3);
    assert_eq!(lives.start(SOON), wait(5, 4));
    ended_planned(lives.dir(), lives.pid);
    assert_eq!(lives.start(SOON), StartDecision::Go, "after a planned end");
    assert_eq!(lives.start(SOON), wait(10, 5), "earlier failures count");
}

#[test]
fn a_hand_over_counts_for_nobody() {
    let mut lives = Lives::new();
    for _ in 0..20 {
        lives.start(SOON);
        let old = lives.pid;
        lives.pid += 1;
        take_over(lives.dir(), &lives.life());
        ended_planned(lives.dir(), old);
        // The predecessor's end is not the successor's.
        let record = read(lives.dir()).unwrap();
        assert_eq!(
            (record.pid, record.standing),
            (lives.pid, LifeState::Started)
        );
        ended_planned(lives.dir(), lives.pid);
    }
    assert_eq!(lives.start(SOON), StartDecision::Go);
    lives.pid += 1;
    take_over(lives.dir(), &lives.life());
    // The death of the successor counts.
    lives.go(2);
    assert_eq!(lives.start(SOON), wait(5, 4));
}

#[test]
fn another_boot_never_counts() {
    let mut lives = Lives::new();
    for boot in 0..20 {
        lives.boot = boot.to_string();
        assert_eq!(lives.start(SOON), StartDecision::Go);
    }
    // Where the kernel gives no identity, a time that lies ahead tells.
    let mut lives = Lives::new();
    lives.boot.clear();
    for _ in 0..20 {
        assert_eq!(lives.start(0), StartDecision::Go);
        lives.now =
            BootTime::from(lives.now.since(BootTime::default()).unwrap() - Duration::from_secs(1));
    }
}

#[test]
fn a_death_soon_after_the_longest_wait_leads_to_safe_mode() {
    let mut lives = Lives::new();
    lives.until_the_longest_wait();
    // The wait itself is no life.
    let StartDecision::Safe {
        reason,
        again: false,
    } = lives.start(120 + 299)
    else {
        panic!("no safe mode")
    };
    assert!(
        reason.starts_with("9 starts") && reason.contains("299 s after"),
        "{reason}"
    );
    let mut lives = Lives::new();
    lives.until_the_longest_wait();
    assert_eq!(
        lives.start(120 + 300),
        wait(120, 10),
        "later than that, it waits again"
    );
    let mut lives = Lives::new();
    lives.until_the_longest_wait();
    ended_planned(lives.dir(), lives.pid);
    assert_eq!(lives.start(SOON), StartDecision::Go, "a stop is no death");
}

#[test]
fn safe_mode_is_left_by_a_trial_that_lasts_and_by_an_operator() {
    let mut lives = Lives::new();
    lives.until_the_longest_wait();
    assert!(matches!(
        lives.start(SOON),
        StartDecision::Safe { again: false, .. }
    ));
    assert!(
        matches!(lives.start(SOON), StartDecision::Safe { again: true, .. }),
        "killed in safe mode, it comes back to it"
    );
    lives.later(600);
    trial(lives.dir(), &lives.life());
    lives.later(299);
    let StartDecision::Safe {
        reason,
        again: false,
    } = lives.start(0)
    else {
        panic!("no safe mode")
    };
    assert!(reason.contains("299 s after"), "{reason}");
    lives.later(600);
    trial(lives.dir(), &lives.life());
    lives.later(600);
    stable(lives.dir(), lives.pid);
    assert_eq!(lives.start(SOON), StartDecision::Go);
    lives.until_the_longest_wait();
    assert!(matches!(lives.start(SOON), StartDecision::Safe { .. }));
    clear(lives.dir());
    assert_eq!(lives.start(SOON), StartDecision::Go);
}

#[test]
fn a_trial_that_failed_leads_back_to_safe_mode() {
    let mut lives = Lives::new();
    assert_eq!(lives.start(0), StartDecision::Go);
    trial(lives.dir(), &lives.life());
    safe(lives.dir(), &lives.life());
    assert!(matches!(
        lives.start(SOON),
        StartDecision::Safe { again: true, .. }
    ));
}

#[test]
fn the_keys_mean_what_they_say() {
    let mut lives = Lives::new();
    lives.throttle = Throttle {
        window: Dur::secs(60),
        threshold: 1,
        base: Dur::secs(2),
        max: Dur::secs(3),
        stable: Dur::secs(1),
    };
    assert_eq!(lives.start(0), StartDecision::Go);
    assert_eq!(lives.start(59), wait(2, 2));
    assert_eq!(lives.start(59), wait(3, 3));
    assert_eq!(lives.start(60), StartDecision::Go);
    lives.throttle.window = Dur::secs(0);
    for _ in 0..20 {
        let start = lives.start(0);
        assert_eq!(
            start,
            StartDecision::Go,
            "without a window nothing is rapid"
        );
    }
    let never = Throttle {
        max: Dur::secs(u64::MAX / 1000),
        ..Throttle::default()
    };
    assert!(
        delay(&never, u32::MAX) > Duration::from_secs(3600),
        "no overflow"
    );
}

#[test]
fn a_file_that_cannot_be_understood_is_set_aside_and_the_start_goes_on() {
    let mut lives = Lives::new();
    let path = path(lives.dir());
    for text in ["", "{", "[]", "{\"count\":-1}", &"x".repeat(10_000)] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(lives.start(SOON), StartDecision::Go, "{text}");
        assert_eq!(
            std::fs::read_to_string(untrusted_file::quarantine_path(&path)).unwrap(),
            text
        );
        assert!(read(lives.dir()).is_some(), "and a new record begun");
    }
}

#[test]
fn a_directory_that_is_missing_or_takes_nothing_stops_no_start() {
    let mut lives = Lives::new();
    let gone = lives.dir().join("gone");
    for _ in 0..10 {
        lives.pid += 1;
        let start = begin(&gone, &lives.throttle, &lives.life());
        assert_eq!(start, StartDecision::Go);
        take_over(&gone, &lives.life());
        safe(&gone, &lives.life());
        trial(&gone, &lives.life());
        ended_planned(&gone, lives.pid);
        stable(&gone, lives.pid);
        clear(&gone);
    }
    // A directory in the file's place can be neither read nor replaced.
    std::fs::create_dir(path(lives.dir())).unwrap();
    let aside = untrusted_file::quarantine_path(&path(lives.dir()));
    std::fs::create_dir(&aside).unwrap();
    std::fs::write(aside.join("full"), "").unwrap();
    lives.go(10);
}
