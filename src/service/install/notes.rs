//! What somebody who installs a service should know besides.

use nix::unistd::User;

use super::instance_files::InstanceFiles;
use crate::os::process;
use crate::service::sandbox::Sandbox;
use crate::service::unit_text::{RunAs, UnitPlan};
use crate::service::version_manager::version_manager;
use crate::state::paths::Scope;

/// What the operator should know of this plan.
pub(super) fn of(unit: &UnitPlan, contents: &InstanceFiles) -> Vec<String> {
    let dynamic = unit.is_dynamic();
    let notes = [
        (
            unit.scope == Scope::User && unit.sandbox == Sandbox::Strict,
            "in user scope `strict` is the same as `app`: the rest of it takes a privileged manager",
        ),
        (
            dynamic,
            "it runs as a temporary user (DynamicUser); --run-as USER chooses another",
        ),
        (
            is_of_its_user(unit),
            "its program lies where its user can replace it, and so can its servers; gateway and gatewayctl in /usr/local/bin, and install from there, keep them from it",
        ),
        (
            dynamic && contents.tells_in_command(),
            "everybody on this machine can read the secret in the command; --set NAME=SECRET hides one, --run-as USER the whole",
        ),
    ];
    let holding = notes.into_iter().filter(|(holds, _)| *holds);
    let holding = holding.map(|(_, note)| note.to_owned());
    holding.chain(of_one_version(contents)).collect()
}

/// A program that is gone with its version. doctor says the same later.
fn of_one_version(contents: &InstanceFiles) -> Option<String> {
    let programs = contents.config.sidecar.values();
    let mut programs = programs.filter_map(|spec| spec.command.first());
    let (program, by) = programs.find_map(|program| Some((program, version_manager(program)?)))?;
    Some(format!(
        "{program} belongs to one version of {by}: when that is removed, the service does not start; install again then, or use a path that stays"
    ))
}

/// Whether the user of a machine's service can replace the program of it.
fn is_of_its_user(unit: &UnitPlan) -> bool {
    match (unit.scope, &unit.run_as) {
        (Scope::System, RunAs::User(name)) => {
            let user = User::from_name(name).ok().flatten();
            user.is_some_and(|user| {
                process::can_replace(user.uid.as_raw(), &unit.bin_dir.join("gateway"))
            })
        }
        _ => false,
    }
}
