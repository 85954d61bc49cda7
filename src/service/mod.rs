//! Installing a gateway as a service and driving it there.
//!
//! `install` looks and decides first (`plan`), shows or refuses, then proves, writes, enables and
//! starts; what fails is undone. Everything is asked of the manager itself over D-Bus; systemctl is
//! never run; launchd is asked through launchctl, which is all that it has. Files are ours only as long as the hash in their first line fits ([`provenance`]).

mod address_claim;
mod backup;
pub mod drift;
mod error;
mod install;
mod launchd_drive;
mod launchd_job;
mod launchd_lives;
mod launchd_now;
pub mod launchd_plist;
mod launchd_process;
mod launchd_record;
mod launchd_survey;
mod launchd_written;
mod layout;
pub mod linger;
pub mod manager;
mod manager_kind;
mod neighbours;
pub mod provenance;
mod report;
mod rights;
pub mod sandbox;
mod service_process;
mod start_facts;
mod start_stop;
mod unapplied;
mod uninstall;
pub mod unit_text;
mod version_manager;
mod wait_ready;

pub use address_claim::address_claim;
pub use error::{ServiceError, ServiceErrorKind};
pub use install::{ChosenOption, InstallRequest, install};
pub use launchd_drive::resume;
pub use launchd_lives::JobLife;
pub use launchd_now::{JobNow, job_now};
pub use launchd_survey::{JobSurvey, survey_job};
pub use layout::{Installed, Layout, find, installed, state_dirs};
pub use manager::{UnitState, last_words};
pub use manager_kind::ServiceManagerKind;
pub use neighbours::{LocalUser, neighbours, users};
pub use report::{Driven, DrivenOutcome, InstallOutcome, InstallReport, Uninstalled};
pub use rights::{Rights, as_user, more_rights};
pub use start_facts::ServiceProcess;
pub use start_stop::{
    configuration, is_inside, read_configuration, refuse_inside, restart, run_outside, select,
    start, state, stop,
};
pub use unapplied::{
    FileRole, RunningGateway, UnappliedFile, changed, check_variables, read_units, unapplied,
};
pub use uninstall::uninstall;
pub use version_manager::version_manager;
pub use wait_ready::ways_on;
