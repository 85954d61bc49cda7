//! The command lines of both programs, declared. `--help`, completions and man pages are generated
//! from these definitions.

mod bench;
mod gateway;
mod gatewayctl;
mod inspect;
mod read;
mod restart;
mod service;
mod tips;

pub use bench::{BenchCommand, BenchRestartArgs};
pub use gateway::{GatewayCli, GatewayCommand};
pub use gatewayctl::{
    Color, CompletionsArgs, ConfigCommand, CtlCli, CtlCommand, DemoArgs, Global, InitArgs, ManArgs,
    SidecarsArgs, SidecarsCommand,
};
pub use inspect::{CleanArgs, DoctorArgs, EventsArgs, HistoryArgs, LogsArgs, StatusArgs, WaitArgs};
pub use read::meant;
pub use restart::{InhibitArgs, RestartArgs, SidecarRestartArgs, UpdateArgs, Wait};
pub use service::{InstallArgs, UninstallArgs};

#[cfg(test)]
mod tests;
