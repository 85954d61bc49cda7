//! Installing an agent or a daemon of launchd.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::User;

use super::account::account;
use super::address_conflicts;
use super::file_transaction::{FileTransaction, PlannedFile};
use super::instance_files::InstanceFiles;
use super::plan::InstallFacts;
use super::request::InstallRequest;
use super::variables;
use crate::config::{DEFAULT_INSTANCE, Env, VARIABLES_FILE};
use crate::launchd::domain::LaunchdDomain;
use crate::launchd::launchctl::Launchctl;
use crate::service::error::{ServiceError, inside};
use crate::service::launchd_drive;
use crate::service::launchd_job::LaunchdJob;
use crate::service::launchd_plist::JobPlan;
use crate::service::launchd_record::{JobAim, JobRecord};
use crate::service::launchd_written;
use crate::service::layout::{Installed, Layout, usual_scope};
use crate::service::provenance::Written;
use crate::service::report::{InstallOutcome, InstallReport, Say};
use crate::service::rights::Rights;
use crate::service::sandbox::Sandbox;
use crate::service::unit_text::RunAs;
use crate::state::paths::Scope;
use crate::text::redact::Redactor;

/// Of a job in the domain that a login by ssh makes.
const NOBODY_AT_THE_SCREEN: &str = "nobody is logged in at the screen: the job runs until the next boot, and after that from the first login there";

/// Writes configuration and job and loads it, or shows what would be written.
///
/// # Errors
/// Kind Usage for what launchd cannot do, Permission for a daemon by another user than root. When the job
/// cannot be loaded, everything is as it was before.
pub(super) async fn install(
    env: &Env<'_>,
    request: &InstallRequest,
    say: Say<'_>,
) -> Result<InstallReport, ServiceError> {
    refuse(request)?;
    let plan = LaunchdPlan::make(env, request)?;
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
    let record = JobRecord::of(&plan.service);
    let reloads = job.loaded.is_some() && !plan.files.is_empty();
    if request.now {
        // Whatever ends this command from here on: the next one loads what is written.
        record.begin(match reloads {
            true => JobAim::Reloaded,
            false => JobAim::Loaded,
        })?;
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
    let driven = match reloads {
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
struct LaunchdPlan {
    service: Installed,
    layout: Layout,
    job: JobPlan,
    contents: InstanceFiles,
    /// The user of a daemon.
    owner: Option<User>,
    /// Those that change.
    files: Vec<PlannedFile>,
    redactor: Redactor,
}

impl LaunchdPlan {
    fn make(env: &Env<'_>, request: &InstallRequest) -> Result<Self, ServiceError> {
        let scope = request.scope.unwrap_or_else(usual_scope);
        let facts = InstallFacts::gather(env, Layout::launchd(scope, env)?, 0)?;
        let instance = request
            .instance
            .clone()
            .unwrap_or_else(|| DEFAULT_INSTANCE.to_owned());
        variables::check(request, &facts.place)?;
        let contents = InstanceFiles::make(request, instance.clone(), &facts.layout, &facts.place)?;
        let mut job = JobPlan {
            listen: contents.config.gateway.listen.clone(),
            ..job(env, request, &facts, scope, &instance)?
        };
        if let Some(file) = contents.secrets_file() {
            let path = file.to_string_lossy().into_owned();
            job.environment.insert(VARIABLES_FILE.to_owned(), path);
        }
        let redactor = contents.redactor(request);
        let plist = plan_plist(&facts.layout, &job)?;
        let is_shown = request.only_shows();
        let user = job.run_as.as_deref().filter(|_| !is_shown);
        let owner = user.map(account).transpose()?;
        let owned = |file: PlannedFile| PlannedFile {
            owner: owner.as_ref().map(|user| user.uid.as_raw()),
            group: owner.as_ref().map(|user| user.gid.as_raw()),
            ..file
        };
        let of_gateway = [&contents.config_file, &contents.variables];
        let of_gateway = of_gateway.into_iter().flatten().cloned().map(owned);
        let files = of_gateway.chain([plist]);
        Ok(Self {
            service: Installed::job(&facts.layout, instance),
            files: files.filter(PlannedFile::changes).collect(),
            owner,
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
            Scope::System => LaunchdDomain::System,
            Scope::User => LaunchdDomain::Gui(nix::unistd::geteuid().as_raw()),
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
    /// job whose log it cannot open. A daemon's user cannot make its own, nor one for its state.
    fn write(&self, say: Say<'_>) -> Result<FileTransaction, ServiceError> {
        let log = self.job.log.parent().map(Path::to_owned);
        let state = self.layout.state_dir(&self.service.instance);
        let state = state.filter(|_| self.owner.is_some());
        for (dir, mode) in [(log, 0o755), (state, 0o700)] {
            if let Some(dir) = dir {
                self.make_directory(&dir, mode)?;
            }
        }
        let mut applied = FileTransaction::default();
        for file in &self.files {
            say(&file.doing());
            applied.apply(file)?;
        }
        Ok(applied)
    }

    fn make_directory(&self, dir: &Path, mode: u32) -> Result<(), ServiceError> {
        let failed = |error: &std::io::Error| ServiceError::file("make", dir, error);
        std::fs::create_dir_all(dir).map_err(|error| failed(&error))?;
        let Some(user) = &self.owner else {
            return Ok(());
        };
        // What is above it belongs to root, so no other user puts a link in its place.
        let own = std::os::unix::fs::lchown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()));
        let mode = std::fs::Permissions::from_mode(mode);
        own.and_then(|()| std::fs::set_permissions(dir, mode))
            .map_err(|error| failed(&error))
    }

    /// A job that is loaded stays, and keeps trying; where it was to be loaded anew and was not, its record still
    /// says so, and the next command does it. Where launchd has not loaded it, the files are as they were, and
    /// what ran before is loaded again.
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
            let _ = JobRecord::of(&self.service).end();
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

/// The property list, which everybody may read, as what launchd shows of a job.
fn plan_plist(layout: &Layout, job: &JobPlan) -> Result<PlannedFile, ServiceError> {
    let text = job.text();
    let text = text.map_err(|error| ServiceError::usage(error.to_string()))?;
    let path = layout.units.join(format!("{}.plist", job.label()));
    PlannedFile::new(path, Some(text), 0o644)
}

fn refuse(request: &InstallRequest) -> Result<(), ServiceError> {
    let usage = |what: &str, next: &str| Err(ServiceError::usage(what).next(next));
    let is_shown = request.only_shows();
    let is_daemon = request.scope.unwrap_or_else(usual_scope) == Scope::System;
    if !is_shown && is_daemon && !nix::unistd::geteuid().is_root() {
        return Err(
            ServiceError::permission("only root may install a daemon of the machine")
                .next(Rights::now().again_as_root("")),
        );
    }
    if !is_shown && Launchctl::find().is_none() {
        return usage(
            "there is no launchd on this machine: what it would be can only be shown",
            "the same command with --dry-run",
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
                Some(RunAs::User(name)) => Some(name.clone()),
                _ => user_before(&facts.layout, instance).or_else(|| facts.sudo_user.clone()),
            };
            let user = user.ok_or_else(|| {
                ServiceError::usage("a daemon needs a user to run as: launchd makes up none")
                    .next("the same command with --run-as USER")
            })?;
            JobPlan {
                log: Installed::job(&facts.layout, instance.to_owned()).launchd_log(),
                ..JobPlan::daemon(instance, &user)
            }
        }
        Scope::User if request.run_as.is_some() => {
            return Err(ServiceError::usage(
                "--run-as is for the machine's services: a user's services run as that user",
            )
            .next(Rights::now().again_as_root("--system")));
        }
        Scope::User => {
            let home = env.path("HOME").unwrap_or_else(|| PathBuf::from("/"));
            JobPlan::agent(instance, home)
        }
    };
    // It is told where its files are: what says so in this shell (XDG_CONFIG_HOME, XDG_STATE_HOME), and who
    // the user is, counts for nothing where launchd starts it.
    let mut environment = job.environment;
    let files = [
        ("GATEWAY_CONFIG", Some(facts.layout.config_file(instance))),
        ("GATEWAY_STATE_DIR", facts.layout.state_dir(instance)),
    ];
    for (name, path) in files {
        if let Some(path) = path {
            let path = path.to_string_lossy().into_owned();
            environment.insert(name.to_owned(), path);
        }
    }
    Ok(JobPlan {
        bin_dir: facts.bin_dir.clone(),
        environment,
        ..job
    })
}

/// The user of the daemon that is installed.
fn user_before(layout: &Layout, instance: &str) -> Option<String> {
    let path = Installed::job(layout, instance.to_owned()).path;
    let written = Written::look(&path).ok()?;
    let keys = launchd_written::keys(written.text()?.as_bytes()).ok()?;
    let user = keys.get("UserName")?.as_string()?;
    Some(user.to_owned())
}
