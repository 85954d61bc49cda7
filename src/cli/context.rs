//! What every command gets.

use super::args::Global;
use super::ui::Ui;

/// What every command gets.
#[derive(Clone, Debug)]
pub struct Context {
    /// Flags of every command.
    pub global: Global,
    pub ui: Ui,
}
