//! Installing an agent of launchd. What a daemon would be is only shown.

use std::path::PathBuf;

use super::address_conflicts;
use super::file_transaction::{FileTransaction, PlannedFile};
use super::instance_files::InstanceFiles;
use super::plan::InstallFacts;
use super::request::InstallRequest;
use super::variables;
use crate::config::{DEFAULT_INSTANCE, Env};
use crate::service::error::{ServiceError, inside};
use crate::service::launchctl::Launchctl;
use crate::service::launchd_drive;
use crate::service::launchd_job::{LaunchdDomain, LaunchdJob};
use crate::service::launchd_plist::JobPlan;
use crate::service::layout::{Installed, Layout, usual_scope};
use crate::service::report::{InstallOutcome, InstallReport, Say};
use crate::service::rights::Rights;
use crate::service::sandbox::Sandbox;
use crate::service::unit_text::RunAs;
use crate::state::paths::{Paths, Scope};
use crate::text::redact::{MASK, Redactor};

/// Of a job in the domain that a login by ssh makes.
const NOBODY_AT_THE_SCREEN: &str = "nobody is logged in at the screen: the job runs until the next boot, and after that from the first login there";

/// Writes configuration and job and loads it, or shows what would be written.
///
/// # Errors
/// Kind Usage for what launchd cannot do, and for a daemon without `--dry-run` or `--diff`. When the job
/// cannot be loaded, everything is as it was before.
pub(super) async fn install(
    env: &Env<'_>,
    request: &InstallRequest,
    say: Say<'_>,
) -> Result<InstallReport, ServiceError> {
    refuse(request)?;
    let plan = AgentPlan::make(env, request)?;
    let mut report = plan.report(request);
    if request.only_shows() {
        return Ok(report);
    }
    plan.refuse_unasked(request)?;
    let job = LaunchdJob::find(&plan.service).await?;
    if job.is_inside() {
        let Installed { unit, instance, .. } = &plan.service;
        return Err(inside(unit, instance, "install"));
    }
    let state = job.state();
    report.pid = state.main_pid;
    report.ready = state.is_active();
    report.outcome = match (plan.files.is_empty(), plan.service.path.exists()) {
        (true, _) => InstallOutcome::AlreadyInstalled,
        (false, true) => InstallOutcome::Updated,
        (false, false) => InstallOutcome::Installed,
    };
    if job.loaded.is_none() && request.now {
        address_conflicts::check_free(plan.contents.config.gateway.listen.iter())?;
    }
    if let LaunchdDomain::User(_) = job.domain {
        report.notes.push(NOBODY_AT_THE_SCREEN.to_owned());
    }
    let applied = plan.write(say)?;
    if !request.now {
        report.notes.extend(applied.keep());
        if job.loaded.is_some() && report.outcome == InstallOutcome::Updated {
            let instance = &plan.service.instance;
            report.notes.push(format!(
                "it runs as before until: gatewayctl restart --instance {instance} --force"
            ));
        }
        return Ok(report);
    }
    let was_loaded = job.loaded.is_some();
    let driven = match was_loaded && !plan.files.is_empty() {
        true => launchd_drive::restart(&plan.service, &plan.contents.config, say).await,
        false => launchd_drive::start(&plan.service, &plan.contents.config, say).await,
    };
    match driven {
        Ok(driven) => {
            report.pid = driven.pid;
            report.ready = true;
            report.notes.extend(applied.keep());
            Ok(report)
        }
        Err(error) => Err(plan.went_wrong(error, applied, was_loaded, say).await),
    }
}

/// What install would make of a request on this machine.
struct AgentPlan {
    service: Installed,
    layout: Layout,
    job: JobPlan,
    contents: InstanceFiles,
    /// Those that change.
    files: Vec<PlannedFile>,
    redactor: Redactor,
}

impl AgentPlan {
    fn make(env: &Env<'_>, request: &InstallRequest) -> Result<Self, ServiceError> {
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
        let files = contents.config_file.clone().into_iter().chain([plist]);
        Ok(Self {
            service: Installed::agent(&facts.layout, instance),
            files: files.filter(PlannedFile::changes).collect(),
            layout: facts.layout,
            job,
            contents,
            redactor,
        })
    }

    /// The report before anything is done.
    fn report(&self, request: &InstallRequest) -> InstallReport {
        let mut actions: Vec<String> = self.files.iter().map(PlannedFile::action).collect();
        let log_dir = self.job.log.parent();
        actions.extend(log_dir.map(|dir| format!("make {}", dir.display())));
        let domain = match self.layout.scope {
            Scope::System => "system".to_owned(),
            Scope::User => format!("gui/{}", nix::unistd::geteuid()),
        };
        actions.push(format!("load {} into {domain}", self.service.unit));
        let shown = self.files.iter().filter(|_| request.only_shows());
        InstallReport {
            files: shown
                .filter_map(|file| file.show(request.diff, &self.redactor))
                .collect(),
            notes: variables::unused(request, &self.contents),
            ..InstallReport::planned(&self.service, &self.layout, &self.contents.config, actions)
        }
    }

    /// Refuses to touch what we did not write, and to put another command in the place of the one that is
    /// installed.
    fn refuse_unasked(&self, request: &InstallRequest) -> Result<(), ServiceError> {
        if request.overwrite {
            return Ok(());
        }
        if let Some(file) = self.files.iter().find(|file| !file.now.is_free()) {
            let diff = self.redactor.text(&file.diff());
            let error = ServiceError::not_ours(&file.path, file.now.why_not(), &diff);
            return Err(
                error.next("gatewayctl install … --overwrite   (writes over it; a copy is kept)")
            );
        }
        match self.contents.other_command() {
            None => Ok(()),
            Some(diff) => Err(ServiceError::refused(format!(
                "{} is installed with another command; nothing was changed",
                self.service.instance
            ))
            .lines(self.redactor.text(diff.trim_end()).lines())
            .next("gatewayctl install … --overwrite   (in its place)\ngatewayctl install --instance NAME --listen ADDRESS …   (a second gateway)")),
        }
    }

    /// Writes what changes, and makes the directory of the log: launchd makes none, and does not start a
    /// job whose log it cannot open.
    fn write(&self, say: Say<'_>) -> Result<FileTransaction, ServiceError> {
        if let Some(dir) = self.job.log.parent() {
            std::fs::create_dir_all(dir)
                .map_err(|error| ServiceError::file("make", dir, &error))?;
        }
        let mut applied = FileTransaction::default();
        for file in &self.files {
            say(&file.doing());
            applied.apply(file)?;
        }
        Ok(applied)
    }

    /// A job that is loaded stays, and keeps trying. Where launchd has not loaded it, the files are as they
    /// were, and what ran before is loaded again.
    async fn went_wrong(
        &self,
        error: ServiceError,
        applied: FileTransaction,
        was_loaded: bool,
        say: Say<'_>,
    ) -> ServiceError {
        let now = LaunchdJob::find(&self.service).await;
        if now.is_ok_and(|job| job.loaded.is_some()) {
            applied.keep();
            return error;
        }
        drop(applied);
        if !was_loaded {
            return error.lines(["nothing is installed: everything is as it was before"]);
        }
        say("loading the job as it was before");
        match launchd_drive::start(&self.service, &self.contents.former, say).await {
            Ok(_) => error.lines(["the job runs again as it was before"]),
            Err(again) => {
                error.lines([format!("it is not loaded as it was before either: {again}")])
            }
        }
    }
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
    let is_shown = request.only_shows();
    if !is_shown && request.scope.unwrap_or_else(usual_scope) == Scope::System {
        return usage(
            "installing a daemon under launchd is not there yet: it can only be shown",
            "the same command with --dry-run, or with --user   (an agent)",
        );
    }
    if !is_shown && Launchctl::find().is_none() {
        return usage(
            "there is no launchd on this machine: what it would be can only be shown",
            "the same command with --dry-run",
        );
    }
    if !is_shown && std::env::var_os("SUDO_UID").is_some() {
        return usage(
            "an agent belongs to the user who installs it, which would be root",
            "the same command without sudo",
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
        Scope::User => agent(env, &facts.layout, instance),
    };
    Ok(JobPlan {
        bin_dir: facts.bin_dir.clone(),
        ..job
    })
}

/// The agent, told where its files are: what says so in this shell (XDG_CONFIG_HOME, XDG_STATE_HOME), and
/// who the user is, counts for nothing where launchd starts it.
fn agent(env: &Env<'_>, layout: &Layout, instance: &str) -> JobPlan {
    let home = env.path("HOME").unwrap_or_else(|| PathBuf::from("/"));
    let mut job = JobPlan::agent(instance, home);
    let state = Paths::usual_states(env, instance).into_iter().next();
    let files = [
        ("GATEWAY_CONFIG", Some(layout.config_file(instance))),
        ("GATEWAY_STATE_DIR", state),
    ];
    for (name, path) in files {
        if let Some(path) = path {
            let path = path.to_string_lossy().into_owned();
            job.environment.insert(name.to_owned(), path);
        }
    }
    job
}
