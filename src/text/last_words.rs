//! Which lines of a program's last output tell why it ended.
//!
//! Python prints the error below its stack, Node above it, with more lines and its version below.
//! So the error line of the last stack counts, and what was printed after that stack.

/// So many lines are shown where none is known to be the error.
const SHOWN: usize = 5;

/// More lines after an error mean that the program went on, and ended for another reason.
const AFTER_MAX: usize = 3;

/// First words of lines that begin an error, where no name of an error stands before the colon.
const BEGINNINGS: [&str; 6] = [
    "error:",
    "fatal:",
    "panic:",
    "fatal error:",
    "Caused by:",
    "Exception in thread ",
];

/// The lines that tell why the program ended, the oldest first: at most [`SHOWN`].
pub fn telling(lines: &[String]) -> Vec<String> {
    let error = lines.iter().rposition(|line| begins_error(line));
    if let Some(index) = error {
        let message = 1 + usize::from(is_rust_panic(&lines[index]));
        let (error, rest) = lines[index..].split_at(message.min(lines.len() - index));
        let after = after_stack(rest);
        if after.len() <= AFTER_MAX {
            return error.iter().chain(after).cloned().collect();
        }
    }
    let mut last: Vec<String> = lines
        .iter()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(SHOWN)
        .cloned()
        .collect();
    last.reverse();
    last
}

/// Words of a program that ended because another one has what it needs: its address, its lock, its place.
const OF_ANOTHER: [&str; 26] = [
    "address already in use",
    "address in use",
    "eaddrinuse",
    "port already in use",
    "already in use",
    "is in use",
    "already running",
    "already started",
    "already listening",
    "another process",
    "another instance",
    "another copy",
    "another server",
    "another gateway",
    "another program",
    "is locked",
    "was locked",
    "been locked",
    "already locked",
    "locked by",
    "lock file",
    "a lock",
    "the lock",
    "not lock",
    "resource temporarily unavailable",
    "device or resource busy",
];

/// Whether a program that ended while a copy of it ran says that this is why. One that says nothing does
/// not say that it is not.
pub fn may_blame_another(lines: &[String]) -> bool {
    let blames = |line: &String| {
        let line = line.to_lowercase();
        OF_ANOTHER.iter().any(|words| line.contains(words))
    };
    lines.iter().all(|line| line.trim().is_empty()) || lines.iter().any(blames)
}

/// Whether a line is the first of an error: `TypeError [ERR_X]: …`, `json.JSONDecodeError: …`,
/// `Caused by: java.io.IOException: …`, `thread 'main' panicked at …`.
fn begins_error(line: &str) -> bool {
    if is_rust_panic(line) {
        return true;
    }
    let begins = |beginning: &&str| {
        let start = line.get(..beginning.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(beginning))
    };
    if BEGINNINGS.iter().any(begins) {
        return true;
    }
    let head = line.split_once(": ").map_or(line, |(head, _)| head);
    let head = head.strip_prefix("Uncaught ").unwrap_or(head);
    // As Node shows one that has no stack.
    let head = head.strip_prefix('[').unwrap_or(head);
    let name = head.split_once(" [").map_or(head, |(name, _)| name);
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._$".contains(c);
    let ends = ["Error", "Exception", "UnhandledPromiseRejection"];
    name.chars().all(is_name) && ends.iter().any(|end| name.ends_with(end))
}

fn is_rust_panic(line: &str) -> bool {
    line.starts_with("thread '") && line.contains("panicked at ")
}

/// What was printed after the stack below an error.
fn after_stack(lines: &[String]) -> Vec<&String> {
    let in_stack = |line: &String| line.starts_with([' ', '\t']) || line == "}";
    let end = lines.iter().rposition(in_stack).map_or(0, |last| last + 1);
    let lines = lines[end..].iter();
    lines.filter(|line| !is_trailer(line)).collect()
}

/// What Node, Rust and Go print below every error, and npm, pnpm and yarn below that of a script.
fn is_trailer(line: &str) -> bool {
    const BEGINNINGS: [&str; 10] = [
        "Node.js v",
        "note: run with ",
        "goroutine ",
        "exit status ",
        "npm error",
        "npm ERR!",
        "npm notice",
        "ELIFECYCLE",
        "error Command failed with ",
        "info Visit https://yarnpkg.com",
    ];
    let line = line.trim_start_matches(|c: char| c.is_whitespace() || !c.is_ascii());
    line.is_empty()
        || BEGINNINGS
            .iter()
            .any(|beginning| line.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        telling(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn only_words_of_another_copy_blame_one() {
        let blames = |text: &str| {
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            may_blame_another(&lines)
        };
        for text in [
            "",
            "Error: listen EADDRINUSE: address already in use 127.0.0.1:3000",
            "OSError: [Errno 98] Address already in use",
            "sqlite3.OperationalError: database is locked",
            "Gateway already running locally (pid 7)",
            "FATAL:  lock file \"postmaster.pid\" already exists",
            "could not lock /var/lib/x",
            "BlockingIOError: [Errno 11] Resource temporarily unavailable",
        ] {
            assert!(blames(text), "{text}");
        }
        for text in [
            "ModuleNotFoundError: No module named 'app'",
            "the new version is broken",
            "SyntaxError: Unexpected token in block, see package-lock.json",
            "Error: clock skew\n    at deadlock (x.js:1)",
        ] {
            assert!(!blames(text), "{text}");
        }
    }

    #[test]
    fn the_error_of_the_last_stack_and_what_follows_it() {
        for (name, text, expected) in [
            (
                "Node",
                "up\n/a.js:2\n  throw err;\n  ^\n\nTypeError [ERR_X]: no\nRequire stack:\n- /a.js\n    at b (/a.js:2:21)\n    at c {\n  code: 'X'\n}\n\nNode.js v20.20.2",
                vec!["TypeError [ERR_X]: no"],
            ),
            (
                "Node with an event's error",
                "node:events:502\n      throw er;\n\nError: listen EADDRINUSE\n    at x\nEmitted 'error' event on Server instance at:\n    at y {\n  port: 1\n}\n\nNode.js v20",
                vec!["Error: listen EADDRINUSE"],
            ),
            (
                "Node under npm, whose own lines are below",
                "> app@1.0.0 start\n> node server.js\n\nnode:internal/modules/cjs/loader:1210\n  throw err;\n  ^\n\nError: Cannot find module 'express'\nRequire stack:\n- /srv/server.js\n    at Module._load (node:internal:1)\n    at a (b:2) {\n  code: 'MODULE_NOT_FOUND'\n}\n\nNode.js v20.20.2\nnpm error Lifecycle script `start` failed with error:\nnpm error code 1\nnpm error path /srv\nnpm error workspace app@1.0.0\nnpm error location /srv\nnpm error command failed\nnpm error command sh -c node server.js",
                vec!["Error: Cannot find module 'express'"],
            ),
            (
                "Node with a rejection that nobody took",
                "node:internal/process/promises:394\n      triggerUncaughtException(err, true /* fromPromise */);\n      ^\n\n[UnhandledPromiseRejection: This error originated either by throwing inside of an async function] {\n  code: 'ERR_UNHANDLED_REJECTION'\n}\n\nNode.js v20.20.2",
                vec![
                    "[UnhandledPromiseRejection: This error originated either by throwing inside of an async function] {",
                ],
            ),
            (
                "Python, an error while one was handled",
                "Traceback (most recent call last):\n  File \"a\"\nValueError: 'x'\n\nDuring handling:\n\nTraceback (most recent call last):\n  File \"b\"\nRuntimeError: broken",
                vec!["RuntimeError: broken"],
            ),
            (
                "Python, with a last word of its caller",
                "Traceback (most recent call last):\n  File \"a\"\njson.decoder.JSONDecodeError: empty\ngiving up",
                vec!["json.decoder.JSONDecodeError: empty", "giving up"],
            ),
            (
                "Java",
                "Exception in thread \"main\" java.lang.Exception: a\n\tat A.main(A.java:1)\nCaused by: java.io.IOException: b\n\t... 1 more",
                vec!["Caused by: java.io.IOException: b"],
            ),
            (
                "Rust",
                "thread 'main' panicked at src/main.rs:2:5:\nno configuration\nnote: run with `RUST_BACKTRACE=1`",
                vec![
                    "thread 'main' panicked at src/main.rs:2:5:",
                    "no configuration",
                ],
            ),
            (
                "Go",
                "panic: no configuration\n\ngoroutine 1 [running]:\nmain.main()\n\t/a.go:4 +0x1d\nexit status 2",
                vec!["panic: no configuration"],
            ),
            (
                "an error alone",
                "Error: the disk is on fire",
                vec!["Error: the disk is on fire"],
            ),
            (
                "no error",
                "1\n2\n\n3\n4\n5\n6",
                vec!["2", "3", "4", "5", "6"],
            ),
            (
                "an error long ago",
                "Error: a client left\n1\n2\n3\n4\n5\n6",
                vec!["2", "3", "4", "5", "6"],
            ),
            ("nothing", "", vec![]),
        ] {
            assert_eq!(of(text), expected, "{name}");
        }
    }
}
