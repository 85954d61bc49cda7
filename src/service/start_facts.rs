//! What a service manager starts for a service.

use std::path::PathBuf;

use crate::os::credentials::Credentials;

/// How the main process of a service is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceProcess {
    /// 0 when none runs.
    pub main_pid: u32,
    /// The program of ExecStart=.
    pub program: PathBuf,
    /// Its arguments, the name first.
    pub arguments: Vec<String>,
    /// Environment=, EnvironmentFile= where it can be read, and ConfigurationDirectory=.
    pub environment: Vec<(String, String)>,
    /// WorkingDirectory=
    pub directory: PathBuf,
    /// User=, Group= and SupplementaryGroups=; none where systemd has no user for it now.
    pub user: Option<Credentials>,
}
