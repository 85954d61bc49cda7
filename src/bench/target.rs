//! Any server that can be restarted, to be measured as the gateway is.

use std::process::Command;
use std::str::FromStr;

use nix::sys::signal::Signal;

/// What begins a trigger that is a signal.
const SIGNAL: &str = "signal:";

/// How a server is told to restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// To the process that was started.
    Signal(Signal),
    /// A line for sh; `BENCH_PID` and `BENCH_PORT` say whom it is about. The restart is done when it has
    /// ended with 0.
    Command(String),
}

impl FromStr for Trigger {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(name) = text.strip_prefix(SIGNAL) else {
            return match text.trim().is_empty() {
                true => Err("a command, or signal:NAME as in signal:HUP".to_owned()),
                false => Ok(Self::Command(text.to_owned())),
            };
        };
        let upper = name.to_ascii_uppercase();
        let full = match upper.starts_with("SIG") {
            true => upper,
            false => format!("SIG{upper}"),
        };
        let signal = full.parse::<Signal>();
        let signal = signal.map_err(|_| format!("{name} is no signal; signal:HUP is one"))?;
        Ok(Self::Signal(signal))
    }
}

/// A server that is not a gateway.
#[derive(Clone, Debug)]
pub struct BenchTarget {
    /// A line for sh that becomes the server.
    pub command: String,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    pub trigger: Trigger,
    /// What is asked.
    pub ready: String,
}

impl BenchTarget {
    /// The command that becomes the server.
    pub fn server(&self) -> Command {
        self.shell(&format!("exec {}", self.command))
    }

    /// The command of a trigger, for the process `pid`.
    pub fn trigger_command(&self, line: &str, pid: u32) -> Command {
        let mut command = self.shell(line);
        command.env("BENCH_PID", pid.to_string());
        command
    }

    fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(line)
            .env("BENCH_PORT", self.port.to_string());
        command
    }
}

/// A path that a request can name: what else is in a request line would end it.
pub fn path(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_graphic();
    match text.starts_with('/') && text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("a path begins with / and has no blanks, as /healthz".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_read() {
        let read = |text: &str| text.parse::<Trigger>();
        for text in ["signal:HUP", "signal:SIGHUP", "signal:hup"] {
            assert_eq!(read(text), Ok(Trigger::Signal(Signal::SIGHUP)));
        }
        let command = "kill -HUP $BENCH_PID";
        assert_eq!(read(command), Ok(Trigger::Command(command.to_owned())));
        assert!(read("signal:NO").is_err() && read(" ").is_err());
        assert!(path("/healthz?x=1").is_ok());
        assert!(path("healthz").is_err() && path("/a b").is_err() && path("/a\r\nb").is_err());
    }
}
