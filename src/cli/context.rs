//! What every command gets.

use super::args::Global;
use super::error::CliError;
use super::target::Target;
use super::ui::Ui;
use crate::config::Env;

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

    /// The running gateway that the flags select; see [`Target::find`].
    pub fn target(&self) -> Result<Target, CliError> {
        Target::find(&self.global, &Env::real())
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

    /// A command that prints without colours.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self::new(Global {
            color: super::args::Color::Never,
            ..Global::default()
        })
    }
}
