//! `gatewayctl list`: what runs here, and what is installed and does not.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::services::{self, InstalledService, StageWord};
use crate::cli::target::{self, Target};
use crate::cli::{CliError, Context, Exit};
use crate::config::Env;
use crate::os::process::Stat;
use crate::service::{self, LocalUser};
use crate::state::paths::{Paths, Scope};
use crate::text::human::columns;
use crate::text::log::escape;

/// A gateway that runs here or is installed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct ListedGateway {
    /// Its name.
    instance: String,
    /// What it is doing.
    stage: StageWord,
    /// Its process.
    pid: Option<u32>,
    /// Its generation.
    generation: Option<u64>,
    /// Its addresses.
    listeners: Vec<String>,
    /// Its control socket, when it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<String>,
    /// Its unit, when it is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    /// Whose service manager has the unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<Scope>,
    /// Whose it is, for root; absent for the machine's and root's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
}

impl ListedGateway {
    fn new(instance: String, stage: StageWord) -> Self {
        Self {
            instance,
            stage,
            pid: None,
            generation: None,
            listeners: Vec::new(),
            control: None,
            unit: None,
            scope: None,
            user: None,
        }
    }
}

/// The answer of `list`.
#[derive(Serialize, JsonSchema)]
pub struct GatewayList {
    /// Every gateway that runs here or is installed.
    instances: Vec<ListedGateway>,
}

/// Lists the gateways that run here or are installed.
///
/// # Errors
/// [`Exit::NotRunning`] when there is none; with `--json` that is the exit code of an empty list.
pub async fn list(ctx: &Context) -> Result<Exit, CliError> {
    let env = Env::real();
    let services = services::all(ctx).await;
    let of_users = of_users(ctx, &env).await;
    let mut found = target::alive(&ctx.global, &env);
    if found.is_empty() && services.is_empty() && of_users.is_empty() {
        match Target::find(&ctx.global, &env) {
            Ok(target) => found.push(target),
            Err(none) if ctx.ui.is_json() && is_for_all(ctx, &env) => {
                // Whoever reads lists reads an empty one.
                ctx.ui.object(&GatewayList {
                    instances: Vec::new(),
                });
                return Ok(none.exit);
            }
            // This error says what to do.
            Err(none) => return Err(none),
        }
    }
    let mut instances = Vec::new();
    for target in &found {
        instances.extend(running(target).await);
    }
    for service in services {
        join(&mut instances, &service);
    }
    instances.extend(of_users);
    for line in table(&instances) {
        ctx.ui.say(line);
    }
    ctx.ui.object(&GatewayList { instances });
    Ok(Exit::Done)
}

/// An error with the list of the gateways of which one must be named.
pub async fn with_choices(ctx: &Context, mut error: CliError) -> CliError {
    let choices = std::mem::take(&mut error.choices);
    if choices.is_empty() {
        return error;
    }
    let mut instances = Vec::new();
    for choice in choices {
        let target = Target::at(&choice.instance, choice.control);
        instances.extend(running(&target).await);
    }
    // One that runs only: of those that are down, none is asked for here.
    for service in services::all(ctx).await {
        let before = instances.len();
        join(&mut instances, &service);
        instances.truncate(before);
    }
    error.lines.extend(table(&instances));
    error
}

/// Whether nobody asked for a certain gateway.
fn is_for_all(ctx: &Context, env: &Env<'_>) -> bool {
    let global = &ctx.global;
    target::wanted_name(global, env).is_none() && target::named_by_path(global, env).is_none()
}

/// Prints the names of the gateways that run here or are installed; none is no error.
pub fn names(ctx: &Context) -> Exit {
    let env = Env::real();
    let scope = target::scope(&ctx.global);
    let running = Paths::instances(&env, scope)
        .into_iter()
        .map(|(name, _)| name);
    let installed = service::installed(&env, scope);
    let installed = installed.into_iter().map(|unit| unit.instance);
    let names: BTreeSet<String> = running.chain(installed).collect();
    let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
    ctx.ui.page(&lines);
    Exit::Done
}

/// The gateways of the ordinary users, for root, who asked for no other one.
async fn of_users(ctx: &Context, env: &Env<'_>) -> Vec<ListedGateway> {
    let global = &ctx.global;
    let is_theirs = target::scope(global).is_none() && target::named_by_path(global, env).is_none();
    let name = target::wanted_name(global, env);
    let mut all = Vec::new();
    if is_theirs {
        for user in service::users() {
            all.extend(of_user(&user).await);
        }
    }
    all.retain(|item| name.as_ref().is_none_or(|name| *name == item.instance));
    all
}

/// What runs of a user, and what is installed and does not answer. Its service manager is not asked: its
/// word would be the user's, as that of a gateway is.
async fn of_user(user: &LocalUser) -> Vec<ListedGateway> {
    let mut all = Vec::new();
    for (instance, control) in Paths::instances_of(user.uid, &user.home) {
        all.extend(running(&Target::at(&instance, control)).await);
    }
    for unit in user.installed() {
        let (name, scope) = (Some(unit.unit), Some(unit.scope));
        let mut same = all.iter_mut();
        let same = same.find(|item| item.unit.is_none() && item.instance == unit.instance);
        if let Some(item) = same {
            (item.unit, item.scope) = (name, scope);
        } else {
            all.push(ListedGateway {
                unit: name,
                scope,
                ..ListedGateway::new(unit.instance, StageWord::NotRunning)
            });
        }
    }
    for item in &mut all {
        item.user = Some(user.name.clone());
    }
    all
}

async fn running(target: &Target) -> Option<ListedGateway> {
    let control = Some(target.control.display().to_string());
    let mut client = match target.connect().await {
        Ok(client) => client,
        Err(error) if error.exit == Exit::NotRunning => return None,
        Err(_) => {
            return Some(ListedGateway {
                control,
                ..ListedGateway::new(target.instance.clone(), StageWord::NoAnswer)
            });
        }
    };
    let pid = client.peer().pid();
    match target.status_over(&mut client).await {
        Ok(status) => Some(ListedGateway {
            pid: Some(status.pid),
            generation: Some(status.generation),
            listeners: status.listeners,
            control,
            ..ListedGateway::new(status.instance, status.stage.into())
        }),
        Err(_) => {
            let suspended = pid
                .and_then(Stat::read)
                .is_some_and(|stat| stat.is_stopped());
            let stage = match suspended {
                true => StageWord::Suspended,
                false => StageWord::NoAnswer,
            };
            Some(ListedGateway {
                pid,
                control,
                ..ListedGateway::new(target.instance.clone(), stage)
            })
        }
    }
}

/// Adds a service: to the line of its main process, or as a line of its own.
fn join(instances: &mut Vec<ListedGateway>, service: &InstalledService) {
    let pid = service
        .state
        .as_ref()
        .map(|state| state.main_pid)
        .filter(|pid| *pid != 0);
    let unit = Some(service.unit.unit.clone());
    let scope = Some(service.unit.scope);
    let silent = |item: &&mut ListedGateway| {
        item.pid.is_none() && item.unit.is_none() && item.instance == service.unit.instance
    };
    let mut same = instances
        .iter_mut()
        .filter(|item| pid.is_some() && (item.pid == pid || silent(item)));
    if let Some(item) = same.next() {
        (item.unit, item.scope, item.pid) = (unit, scope, pid);
        return;
    }
    instances.push(ListedGateway {
        pid,
        unit,
        scope,
        ..ListedGateway::new(service.unit.instance.clone(), service.stage())
    });
}

/// The list for people: name, stage, process, unit and addresses under each other.
fn table(instances: &[ListedGateway]) -> Vec<String> {
    let row = |item: &ListedGateway| {
        let pid = item
            .pid
            .map_or("no process".to_owned(), |pid| format!("pid {pid}"));
        let unit = match (&item.unit, item.scope, &item.user) {
            (Some(unit), _, Some(user)) => format!("{unit} (user {user})"),
            (Some(unit), Some(scope), None) => format!("{unit} ({scope})"),
            (_, _, Some(user)) => format!("by hand (user {user})"),
            _ => "by hand".to_owned(),
        };
        [
            item.instance.clone(),
            item.stage.to_string(),
            pid,
            unit,
            item.listeners.join(", "),
        ]
        .map(|cell| escape(&cell).into_owned())
    };
    let rows: Vec<[String; 5]> = instances.iter().map(row).collect();
    let line = |cells: &[String; 5]| cells.join("  ").trim_end().to_owned();
    columns(&rows).iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::service::{Installed, ServiceManagerKind, UnitState};

    fn service(instance: &str, active: &str, main_pid: u32) -> InstalledService {
        let unit = Installed {
            instance: instance.into(),
            scope: Scope::System,
            manager: ServiceManagerKind::Systemd,
            unit: format!("gateway@{instance}.service"),
            path: PathBuf::new(),
            socket: None,
        };
        InstalledService {
            unit,
            state: Some(UnitState {
                active: active.into(),
                main_pid,
                ..UnitState::default()
            }),
        }
    }

    #[test]
    fn a_service_joins_its_process_and_one_that_is_down_has_its_own_line() {
        let by_hand = ListedGateway {
            pid: Some(7),
            generation: Some(1),
            listeners: vec!["127.0.0.1:1".into()],
            ..ListedGateway::new("a".into(), StageWord::Ready)
        };
        let mut all = vec![
            by_hand.clone(),
            ListedGateway {
                instance: "b".into(),
                pid: Some(8000),
                ..by_hand
            },
        ];
        for service in [
            service("b", "active", 8000),
            service("a", "inactive", 0),
            service("web", "failed", 0),
        ] {
            join(&mut all, &service);
        }
        assert_eq!(
            table(&all),
            [
                "a    ready    pid 7       by hand                       127.0.0.1:1",
                "b    ready    pid 8000    gateway@b.service (system)    127.0.0.1:1",
                "a    stopped  no process  gateway@a.service (system)",
                "web  failed   no process  gateway@web.service (system)",
            ]
        );
    }
}
