//! What install would write for launchd. It is only shown: nothing here speaks to launchctl.

use std::path::PathBuf;

use super::file_transaction::PlannedFile;
use super::instance_files::InstanceFiles;
use super::plan::InstallFacts;
use super::request::InstallRequest;
use super::variables;
use crate::config::{DEFAULT_INSTANCE, Env};
use crate::service::error::ServiceError;
use crate::service::launchd_plist::JobPlan;
use crate::service::layout::{Installed, Layout, usual_scope};
use crate::service::report::InstallReport;
use crate::service::rights::Rights;
use crate::service::sandbox::Sandbox;
use crate::service::unit_text::RunAs;
use crate::state::paths::Scope;
use crate::text::redact::{MASK, Redactor};

/// Shows configuration and job.
///
/// # Errors
/// Kind Usage for what launchd cannot do, and without `--dry-run` or `--diff`.
pub(super) fn look(env: &Env<'_>, request: &InstallRequest) -> Result<InstallReport, ServiceError> {
    refuse(request)?;
    let scope = request.scope.unwrap_or_else(usual_scope);
    let facts = InstallFacts::gather(env, Layout::launchd(scope, env)?, 0)?;
    let instance = request
        .instance
        .clone()
        .unwrap_or_else(|| DEFAULT_INSTANCE.to_owned());
    variables::check(request, &facts.place)?;
    let contents = InstanceFiles::make(request, instance.clone(), &facts.layout, &facts.place)?;
    let job = job(env, request, &facts, scope, &instance)?;
    let redactor = contents.redactor(request);
    let plist = plan_plist(&facts.layout, &job, &contents, &redactor)?;
    let service = Installed {
        instance,
        scope,
        unit: job.label(),
        path: plist.path.clone(),
        socket: None,
    };
    let mut files: Vec<PlannedFile> = contents.config_file.into_iter().chain([plist]).collect();
    files.retain(PlannedFile::changes);
    let mut actions: Vec<String> = files.iter().map(PlannedFile::action).collect();
    let log_dir = job.log.parent();
    actions.extend(log_dir.map(|dir| format!("make {}", dir.display())));
    let domain = match scope {
        Scope::System => "system".to_owned(),
        Scope::User => format!("gui/{}", nix::unistd::geteuid()),
    };
    actions.push(format!("load {} into {domain}", job.label()));
    Ok(InstallReport {
        files: files
            .iter()
            .filter_map(|file| file.show(request.diff, &redactor))
            .collect(),
        journal: format!("tail -f '{}'", job.log.display()),
        ..InstallReport::planned(&service, &facts.layout, &contents.config, actions)
    })
}

/// The job with its variables; with their values hidden for people's eyes.
fn plan_plist(
    layout: &Layout,
    job: &JobPlan,
    contents: &InstanceFiles,
    redactor: &Redactor,
) -> Result<PlannedFile, ServiceError> {
    let text = |shown: bool| {
        let mut job = job.clone();
        let secrets = contents
            .secrets
            .variables()
            .map(|(key, value)| (key.to_owned(), if shown { MASK } else { value }.to_owned()));
        job.environment.extend(secrets);
        job.environment.extend(contents.set_names());
        job.text()
            .map_err(|error| ServiceError::usage(error.to_string()))
    };
    // A user who can read it sees the variables.
    let mode = if contents.secrets.is_empty() {
        0o644
    } else {
        0o600
    };
    let path = layout.units.join(format!("{}.plist", job.label()));
    let plist = PlannedFile::new(path, Some(text(false)?), mode)?;
    let before = plist.now.text().map(|text| redactor.text(text));
    Ok(PlannedFile {
        shown: Some((before.unwrap_or_default(), text(true)?)),
        ..plist
    })
}

fn refuse(request: &InstallRequest) -> Result<(), ServiceError> {
    let usage = |what: &str, next: &str| Err(ServiceError::usage(what).next(next));
    if !(request.dry_run || request.diff) {
        return usage(
            "installing under launchd is not there yet: it can only be shown",
            "the same command with --dry-run",
        );
    }
    if request.socket {
        return usage(
            "--socket is for systemd: the gateway does not take sockets from launchd yet",
            "the same command without it",
        );
    }
    if request
        .sandbox
        .is_some_and(|sandbox| sandbox != Sandbox::App)
    {
        return usage(
            "--sandbox is for systemd: launchd has none",
            "the same command without it",
        );
    }
    Ok(())
}

fn job(
    env: &Env<'_>,
    request: &InstallRequest,
    facts: &InstallFacts,
    scope: Scope,
    instance: &str,
) -> Result<JobPlan, ServiceError> {
    let job = match scope {
        Scope::System => {
            let user = match &request.run_as {
                Some(RunAs::User(name)) => Some(name),
                _ => facts.sudo_user.as_ref(),
            };
            let user = user.ok_or_else(|| {
                ServiceError::usage("a daemon needs a user to run as: launchd makes up none")
                    .next("the same command with --run-as USER")
            })?;
            JobPlan::daemon(instance, user)
        }
        Scope::User if request.run_as.is_some() => {
            return Err(ServiceError::usage(
                "--run-as is for the machine's services: a user's services run as that user",
            )
            .next(Rights::now().again_as_root("--system")));
        }
        Scope::User => JobPlan::agent(
            instance,
            env.path("HOME").unwrap_or_else(|| PathBuf::from("/")),
        ),
    };
    Ok(JobPlan {
        bin_dir: facts.bin_dir.clone(),
        ..job
    })
}
