//! The property list of a launchd job. Pure: what is known goes in, text comes out. `launchd/`
//! holds what the defaults give.
//!
//! Left out on purpose: `EnableTransactions` (launchd may then kill at once on a stop),
//! `SoftResourceLimits` and `HardResourceLimits` (NumberOfFiles of a daemon sets kern.maxfiles and
//! kern.maxfilesperproc for the whole machine, launchd.plist(5): the gateway raises its own limit),
//! `AbandonProcessGroup` (a server must not outlive the gateway), `KeepAlive` with conditions (the gateway must always come back, after exit 0
//! too: that is how it restarts itself there).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use plist::{Dictionary, Value};

use crate::config::{Config, DEFAULT_INSTANCE, Listen};
use crate::launchd::LABEL;
use crate::launchd::sockets::SOCKETS;
use crate::state::paths::Scope;

/// Seconds from SIGTERM to SIGKILL, as TimeoutStopSec= of the units: the gateway forces its own end
/// after 25.
const EXIT_TIME_OUT: i64 = 30;

/// Seconds from one start to the next, the least that launchd takes (0 is ignored, unset is 10):
/// the gateway slows itself down, with its port open.
const THROTTLE_INTERVAL: i64 = 1;

/// 077, which a property list can only say in decimal.
const UMASK: i64 = 63;

/// Everything that a job says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPlan {
    pub instance: String,
    /// System: a daemon of the machine; user: an agent of that user.
    pub scope: Scope,
    /// The directory of `gateway`.
    pub bin_dir: PathBuf,
    /// Which user a daemon runs as: launchd makes up none, and root would be too much. Without
    /// meaning for an agent.
    pub run_as: Option<String>,
    /// The directory it starts in; servers have their own.
    pub cwd: PathBuf,
    /// Where its log goes, a crash's last words included.
    pub log: PathBuf,
    /// Where clients reach it: launchd holds what it can, so that no connection is refused between two lives.
    pub listen: Vec<Listen>,
    /// Variables, secrets among them: then the file is its owner's alone.
    pub environment: BTreeMap<String, String>,
}

/// A property list cannot say this.
#[derive(Debug, thiserror::Error)]
pub enum PlistError {
    /// XML has no form for most control characters, and for U+FFFE and U+FFFF.
    #[error("launchd cannot be told about {0:?}: it has a control character")]
    Control(String),
    /// Property lists are UTF-8.
    #[error("launchd cannot be told about {}: it is not UTF-8", .0.display())]
    NotText(PathBuf),
    #[error("cannot write a property list: {0}")]
    Other(#[from] plist::Error),
}

impl JobPlan {
    /// The daemon that `launchd/` ships.
    pub fn daemon(instance: &str, run_as: &str) -> Self {
        let environment = [
            ("GATEWAY_CONFIG", format!("/etc/gateway/{instance}.toml")),
            ("GATEWAY_STATE_DIR", format!("/var/db/gateway/{instance}")),
        ];
        Self {
            instance: instance.to_owned(),
            scope: Scope::System,
            bin_dir: "/usr/local/bin".into(),
            run_as: Some(run_as.to_owned()),
            cwd: "/".into(),
            listen: Config::default().gateway.listen,
            log: log(Path::new("/Library"), Scope::System, instance),
            environment: environment
                .map(|(key, value)| (key.to_owned(), value))
                .into(),
        }
    }

    /// An agent of the user with this home.
    pub fn agent(instance: &str, home: PathBuf) -> Self {
        Self {
            instance: instance.to_owned(),
            scope: Scope::User,
            bin_dir: "/usr/local/bin".into(),
            run_as: None,
            log: log(&home.join("Library"), Scope::User, instance),
            cwd: home,
            listen: Config::default().gateway.listen,
            environment: BTreeMap::new(),
        }
    }

    /// `org.gatewayctl.gateway` or the like: the job's name, and the file's without `.plist`.
    pub fn label(&self) -> String {
        format!("{LABEL}{}", self.instance)
    }

    /// The property list.
    pub fn text(&self) -> Result<String, PlistError> {
        let mut job = Dictionary::new();
        let mut set = |key: &str, value: Value| drop(job.insert(key.to_owned(), value));
        set("Label", text(&self.label())?);
        let program = path(&self.bin_dir.join("gateway"))?;
        let arguments = ["run", "--instance"].map(|word| Value::String(word.to_owned()));
        set(
            "ProgramArguments",
            Value::Array([&[program][..], &arguments, &[text(&self.instance)?]].concat()),
        );
        match (self.scope, &self.run_as) {
            (Scope::System, Some(name)) => set("UserName", text(name)?),
            (Scope::System, None) => {}
            // Without `Background` it would not run for a user who only came by ssh.
            (Scope::User, _) => set(
                "LimitLoadToSessionType",
                Value::Array(["Aqua", "Background"].map(Value::from).into()),
            ),
        }
        let sockets: Vec<Value> = self.listen.iter().filter_map(socket).collect();
        if !sockets.is_empty() {
            let named = Dictionary::from_iter([(SOCKETS.to_owned(), Value::Array(sockets))]);
            set("Sockets", Value::Dictionary(named));
        }
        set("RunAtLoad", true.into());
        set("KeepAlive", true.into());
        set("ThrottleInterval", THROTTLE_INTERVAL.into());
        set("ExitTimeOut", EXIT_TIME_OUT.into());
        // Everything else is slowed down by macOS.
        set("ProcessType", "Interactive".into());
        set("Umask", UMASK.into());
        set("WorkingDirectory", path(&self.cwd)?);
        set("StandardErrorPath", path(&self.log)?);
        if !self.environment.is_empty() {
            let entries = self
                .environment
                .iter()
                .map(|(key, value)| text(key).and(Ok((key.clone(), text(value)?))));
            set(
                "EnvironmentVariables",
                Value::Dictionary(entries.collect::<Result<_, PlistError>>()?),
            );
        }
        let mut out = Vec::new();
        Value::Dictionary(job).to_writer_xml(&mut out)?;
        let mut out = String::from_utf8_lossy(&out).into_owned();
        if !out.ends_with('\n') {
            out.push('\n');
        }
        Ok(out)
    }
}

impl Default for JobPlan {
    fn default() -> Self {
        Self::daemon(DEFAULT_INSTANCE, "_gateway")
    }
}

/// One of Sockets. None for what launchd cannot hold: a port that the kernel chooses, an address of one
/// interface, and a path, whose directory is not there yet when launchd would bind it. The family is named, or
/// a name could lead to two sockets.
fn socket(listen: &Listen) -> Option<Value> {
    let Listen::Tcp(address) = listen else {
        return None;
    };
    let family = match address {
        SocketAddr::V4(_) => "IPv4",
        SocketAddr::V6(address) if address.scope_id() == 0 => "IPv6",
        SocketAddr::V6(_) => return None,
    };
    let entries = [
        ("SockType", "stream".to_owned()),
        ("SockFamily", family.to_owned()),
        ("SockNodeName", address.ip().to_string()),
        ("SockServiceName", address.port().to_string()),
    ];
    let entries = entries.map(|(key, value)| (key.to_owned(), Value::String(value)));
    (address.port() != 0).then(|| Value::Dictionary(Dictionary::from_iter(entries)))
}

fn text(text: &str) -> Result<Value, PlistError> {
    let refused = |c: char| match c {
        '\t' | '\n' => false,
        c => c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'),
    };
    if text.contains(refused) {
        return Err(PlistError::Control(text.to_owned()));
    }
    Ok(Value::String(text.to_owned()))
}

/// The log of a job below the Library that has it. launchd opens it as the job's user, so that one must be able
/// to write in its directory: a daemon has one of its own.
pub fn log(library: &Path, scope: Scope, instance: &str) -> PathBuf {
    let logs = library.join("Logs/gateway");
    match scope {
        Scope::User => logs.join(format!("{instance}.log")),
        Scope::System => logs.join(instance).join("gateway.log"),
    }
}

fn path(path: &Path) -> Result<Value, PlistError> {
    text(
        path.to_str()
            .ok_or_else(|| PlistError::NotText(path.to_owned()))?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launchd::keys;

    #[test]
    fn the_shipped_jobs_are_what_the_defaults_give() {
        for (file, plan) in [
            ("daemon/org.gatewayctl.gateway.plist", JobPlan::default()),
            (
                "agent/org.gatewayctl.gateway.plist",
                JobPlan::agent(DEFAULT_INSTANCE, "/Users/me".into()),
            ),
        ] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("launchd")
                .join(file);
            let text = plan.text().unwrap();
            if std::env::var_os("UPDATE_UNITS").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            assert_eq!(
                std::fs::read_to_string(&path).unwrap_or_default(),
                text,
                "launchd/{file}: run the tests with UPDATE_UNITS=1"
            );
        }
    }

    #[test]
    fn it_says_what_it_must_and_is_read_back_as_it_was() {
        let hostile = " a <b> & \"c\" 'd' %n $HOME \\ ü\t]]> \n--> ";
        let mut plan = JobPlan::daemon("web", "app");
        plan.environment
            .insert("VALUE".to_owned(), hostile.to_owned());
        plan.bin_dir = "/Applications/My & <App>".into();
        let text = plan.text().unwrap();
        let read = Value::from_reader_xml(text.as_bytes())
            .unwrap()
            .into_dictionary()
            .unwrap();
        assert_eq!(
            read["EnvironmentVariables"].as_dictionary().unwrap()["VALUE"].as_string(),
            Some(hostile),
            "{text}"
        );
        let words: Vec<&str> = read["ProgramArguments"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_string)
            .collect();
        assert_eq!(
            words,
            [
                "/Applications/My & <App>/gateway",
                "run",
                "--instance",
                "web"
            ]
        );
        assert_eq!(
            (read["Label"].as_string(), read["UserName"].as_string()),
            (Some("org.gatewayctl.web"), Some("app"))
        );
        assert_eq!(
            (
                read["Umask"].as_signed_integer(),
                read["KeepAlive"].as_boolean()
            ),
            (Some(0o077), Some(true))
        );
        let agent = JobPlan::agent("web", "/Users/me".into()).text().unwrap();
        assert!(
            !agent.contains("UserName") && agent.contains("<string>Background</string>"),
            "{agent}"
        );
    }

    #[test]
    fn every_key_that_is_written_is_one_of_launchd_s() {
        for plan in [
            JobPlan::daemon("web", "app"),
            JobPlan::agent("web", "/Users/me".into()),
        ] {
            let read = Value::from_reader_xml(plan.text().unwrap().as_bytes()).unwrap();
            let problems = keys::problems(read.as_dictionary().unwrap(), plan.scope);
            assert!(problems.is_empty(), "{problems:?}");
        }
    }

    #[test]
    fn launchd_holds_the_addresses_that_it_can() {
        let plan = JobPlan {
            listen: ["127.0.0.1:80", "[::]:443", "127.0.0.1:0", "unix:/x"]
                .map(|listen| listen.parse().unwrap())
                .into(),
            ..JobPlan::default()
        };
        let read = Value::from_reader_xml(plan.text().unwrap().as_bytes()).unwrap();
        let sockets = &read.as_dictionary().unwrap()["Sockets"];
        let sockets = sockets.as_dictionary().unwrap()["gateway"].as_array();
        let said = |socket: &Value| {
            ["SockFamily", "SockNodeName", "SockServiceName"].map(|key| {
                let value = &socket.as_dictionary().unwrap()[key];
                value.as_string().unwrap().to_owned()
            })
        };
        let said: Vec<_> = sockets.unwrap().iter().map(said).collect();
        assert_eq!(said, [["IPv4", "127.0.0.1", "80"], ["IPv6", "::", "443"]]);
    }

    #[test]
    fn what_xml_cannot_carry_is_refused() {
        let mut plan = JobPlan::default();
        plan.environment
            .insert("VALUE".to_owned(), "a\u{1b}b".to_owned());
        assert!(matches!(plan.text(), Err(PlistError::Control(_))));
    }
}
