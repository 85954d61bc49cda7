//! The commands, one file each, and what they share.

pub mod args;
pub mod exit;
pub mod install;
pub mod start;
pub mod stop;
pub mod target;
pub mod ui;
pub mod uninstall;

pub use exit::Exit;
pub use ui::{CliError, Ui};

use args::Global;

/// What every command gets.
#[derive(Clone, Debug)]
pub struct Context {
    /// Flags of every command.
    pub global: Global,
    /// Where it prints.
    pub ui: Ui,
}
