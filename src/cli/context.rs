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

impl Context {
    pub fn new(global: Global) -> Self {
        Self {
            ui: Ui::new(&global),
            global,
        }
    }

    /// A command that prints nothing, for the gateway of this state directory.
    #[cfg(test)]
    pub fn quiet(state: &std::path::Path) -> Self {
        Self::new(Global {
            state_dir: Some(state.to_owned()),
            quiet: true,
            ..Global::default()
        })
    }
}
