//! Adapter: drives Terraform or OpenTofu for one directory, so that it can be looked at first, followed, stopped and
//! begun again on another machine.
//!
//! Each change is planned afresh and that plan is applied, or thrown away. Secrets travel in the environment of the program
//! alone, which inherits nothing else but what is named. The state belongs into a backend that every machine sees.

use std::collections::BTreeMap;
use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::secret::Secret;

mod beforehand;
mod error;
mod events;
mod look;
pub mod names;
mod process;
mod workplace;

pub use beforehand::{Module, hash_of, packages};
pub use error::Error;
pub use events::{Action, Change, Changes, Diagnostic, Lock, Phase, Progress};

use events::Account;
use process::Ended;
use workplace::Workplace;

/// What the program needs of our own environment in any case.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "USER", "LANG", "TMPDIR"];

/// The end of its standard error is enough to tell.
const TOLD_BYTES: usize = 4 << 10;

/// One stage's directory, and how to work on it.
#[derive(Debug, Clone)]
pub struct Terraform {
    /// Path of the program; without one, the first of `terraform` and `tofu` on PATH.
    pub program: Option<PathBuf>,
    /// Where the configuration (`*.tf`) is. Read only, but for a lock file that is not there yet.
    pub dir: PathBuf,
    /// Where providers and plans are kept on this machine (`TF_DATA_DIR`).
    pub data_dir: PathBuf,
    /// Values of its variables.
    pub variables: BTreeMap<String, Value>,
    /// Values of its variables that are secret; they get to it as `TF_VAR_…`, and its provisioners see them too.
    pub secrets: BTreeMap<String, Secret>,
    /// Further variables of its environment, such as `ARM_CLIENT_SECRET`.
    pub environment: BTreeMap<String, Secret>,
    /// Names of variables of our own environment that it may see as well: credentials, proxies, `SSL_CERT_FILE`.
    pub pass: Vec<String>,
    /// Another state beside the real one; it is made where it is not there yet. None: the default one.
    pub workspace: Option<String>,
    /// `-backend-config`: where the state is. Shown in argv, so a key belongs into `environment` (`ARM_ACCESS_KEY`).
    pub backend: BTreeMap<String, String>,
    /// What `terraform providers mirror` made. With one, no registry is asked.
    pub mirror: Option<PathBuf>,
    /// Address of a proxy that everything it asks for goes through; see [`Terraform::in_the_dark`].
    pub dark: Option<String>,
    /// The state is not asked for; see [`Terraform::without_state`].
    pub is_stateless: bool,
    /// Types and addresses that no plan may destroy or replace; see [`events::protected`].
    pub protected: Vec<String>,
    /// How long somebody else's lock on the state is waited for.
    pub lock_timeout: Duration,
    /// How long it may take to stop after a SIGINT, before it is killed. A cloud finishes what it began: minutes.
    pub patience: Duration,
}

/// An output of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Plain(Value),
    /// A string as it is; anything else as JSON.
    Sensitive(Secret),
}

impl Output {
    /// For where it is needed: a string as it is, anything else as JSON. May be secret.
    pub fn expose(&self) -> String {
        match self {
            Self::Plain(value) => text(value),
            Self::Sensitive(secret) => secret.expose().to_owned(),
        }
    }

    pub fn is_sensitive(&self) -> bool {
        matches!(self, Self::Sensitive(_))
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[derive(Deserialize)]
struct WrittenOutput {
    sensitive: bool,
    value: Value,
}

/// What one run of the program was: how it ended and what it said.
struct Run {
    ended: Ended,
    account: Account,
    stderr: String,
}

impl Terraform {
    /// No variables, no mirror, nothing protected; a lock is waited for 30 s, an end for 10 min.
    pub fn new(dir: impl Into<PathBuf>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            program: None,
            dir: dir.into(),
            data_dir: data_dir.into(),
            variables: BTreeMap::new(),
            secrets: BTreeMap::new(),
            environment: BTreeMap::new(),
            pass: Vec::new(),
            workspace: None,
            backend: BTreeMap::new(),
            mirror: None,
            dark: None,
            is_stateless: false,
            protected: Vec::new(),
            lock_timeout: Duration::from_secs(30),
            patience: Duration::from_mins(10),
        }
    }

    /// Prepares this machine: providers (from the mirror, if there is one) and the backend. Comes before everything else;
    /// harmless to repeat. State is never moved from one backend to another.
    ///
    /// # Errors
    /// [`Error::Init`] with what to do beforehand; [`Error::NotInstalled`].
    pub async fn init(&self, cancel: &CancellationToken) -> Result<(), Error> {
        // A program that is started where there is nothing is said not to be there itself.
        if !self.dir.is_dir() {
            return Err(Error::NoDirectory(self.dir.clone()));
        }
        let place = self.workplace()?;
        let mut args = vec!["-reconfigure".to_owned()];
        let locked = self.dir.join(".terraform.lock.hcl").exists();
        args.extend(locked.then(|| "-lockfile=readonly".to_owned()));
        match self.is_stateless {
            true => args.push("-backend=false".to_owned()),
            false => args.extend(
                self.backend
                    .iter()
                    .map(|(key, value)| format!("-backend-config={key}={value}")),
            ),
        }
        let run = self
            .run(&place, "init", &args, Account::default(), &|_| {}, cancel)
            .await?;
        self.stopped("init", &run)?;
        if run.ended.status.success() {
            return Ok(());
        }
        let detail = match run.stderr.is_empty() {
            true => run.ended.how(),
            false => run.stderr,
        };
        let mirror = self
            .mirror
            .as_ref()
            .map_or("MIRROR".into(), |path| path.display().to_string());
        let chdir = self.dir.display();
        Err(Error::Init {
            dir: self.dir.clone(),
            detail,
            hint: format!(
                "If a provider is missing: while the registry can be reached, type `terraform -chdir={chdir} providers mirror \
                 {mirror}` and `terraform -chdir={chdir} providers lock -fs-mirror={mirror}`, keep both, and name the \
                 mirror in the configuration. If it is the backend: look at its address and credentials"
            ),
        })
    }

    /// Looks: what would an apply do? Changes nothing and keeps nothing.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Failed`], [`Error::Cancelled`] and the like.
    pub async fn plan(&self, cancel: &CancellationToken) -> Result<Changes, Error> {
        self.planned(&self.workplace()?, false, &|_| {}, cancel).await
    }

    /// Plans, and applies that plan. Gives what was changed; with nothing to change, nothing is.
    ///
    /// # Errors
    /// [`Error::Protected`] before anything was done; [`Error::Failed`] and [`Error::Cancelled`] maybe half-way, after
    /// which the next apply goes on from there; [`Error::Locked`].
    pub async fn apply(
        &self,
        progress: &(dyn Fn(Progress) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Changes, Error> {
        self.carry_out(false, progress, cancel).await
    }

    /// Plans to destroy everything that the state has, and does it, unless something of it is protected.
    ///
    /// # Errors
    /// As [`Terraform::apply`].
    pub async fn destroy(
        &self,
        progress: &(dyn Fn(Progress) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Changes, Error> {
        self.carry_out(true, progress, cancel).await
    }

    /// The outputs of the state as it is.
    ///
    /// # Errors
    /// [`Error::Failed`] if the state cannot be read; [`Error::Unexpected`].
    pub async fn outputs(&self, cancel: &CancellationToken) -> Result<BTreeMap<String, Output>, Error> {
        let place = self.workplace()?;
        let args = ["-json".to_owned()];
        let run = self
            .run(&place, "output", &args, Account::default(), &|_| {}, cancel)
            .await?;
        self.stopped("output", &run)?;
        if !run.ended.status.success() {
            return Err(self.failed("output", run));
        }
        let written =
            std::fs::read_to_string(place.stdout()).map_err(|error| io("read Terraform's outputs", &error))?;
        let written = Zeroizing::new(written);
        // The parser's message could quote a value.
        let outputs: BTreeMap<String, WrittenOutput> = serde_json::from_str(&written)
            .map_err(|_| self.unexpected("output", "it printed something else than outputs in JSON".into()))?;
        let output = |written: WrittenOutput| match written.sensitive {
            true => Output::Sensitive(Secret::new(text(&written.value))),
            false => Output::Plain(written.value),
        };
        Ok(outputs.into_iter().map(|(name, w)| (name, output(w))).collect())
    }

    async fn carry_out(
        &self,
        destroy: bool,
        progress: &(dyn Fn(Progress) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Changes, Error> {
        let place = self.workplace()?;
        let mut again = true;
        loop {
            let changes = self.planned(&place, destroy, progress, cancel).await?;
            if !changes.anything {
                return Ok(changes);
            }
            let protected = events::protected(&changes, &self.protected);
            if !protected.is_empty() {
                return Err(Error::Protected(protected));
            }
            let args = [
                "-json".to_owned(),
                self.lock_timeout(),
                place.plan().display().to_string(),
            ];
            let account = Account::of(&changes);
            let run = self.run(&place, "apply", &args, account, progress, cancel).await?;
            self.check_saved()?;
            self.stopped("apply", &run)?;
            if run.ended.status.success() {
                return match run.account.closed {
                    Some(_) => Ok(changes),
                    None => Err(self.no_summary("apply", &run)),
                };
            }
            // Somebody changed the state between our plan and our apply.
            if !(run.account.is_stale() && std::mem::take(&mut again)) {
                return Err(self.failed("apply", run));
            }
        }
    }

    async fn planned(
        &self,
        place: &Workplace,
        destroy: bool,
        progress: &(dyn Fn(Progress) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Changes, Error> {
        self.check_saved()?;
        let variables = serde_json::to_vec(&self.variables).unwrap_or_default();
        std::fs::write(place.variables(), variables).map_err(|error| io("write Terraform's variables", &error))?;
        let mut args = vec![
            "-json".to_owned(),
            "-detailed-exitcode".to_owned(),
            // Who only looks must hold nobody up, nor leave a lock behind when it is killed.
            if self.dark.is_some() {
                "-lock=false".to_owned()
            } else {
                self.lock_timeout()
            },
            format!("-var-file={}", place.variables().display()),
            format!("-out={}", place.plan().display()),
        ];
        args.extend(destroy.then(|| "-destroy".to_owned()));
        let run = self
            .run(place, "plan", &args, Account::default(), progress, cancel)
            .await?;
        self.stopped("plan", &run)?;
        // 0: nothing to do; 2: something. https://developer.hashicorp.com/terraform/cli/commands/plan
        let anything = match run.ended.status.code() {
            Some(0) => false,
            Some(2) => true,
            _ => return Err(self.failed("plan", run)),
        };
        match run.account.closed {
            Some(_) => Ok(Changes {
                anything,
                ..run.account.changes
            }),
            None => Err(self.no_summary("plan", &run)),
        }
    }

    /// Runs one command of the program, its progress told as it comes.
    async fn run(
        &self,
        place: &Workplace,
        command: &str,
        args: &[String],
        mut account: Account,
        progress: &(dyn Fn(Progress) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Run, Error> {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled {
                command: command.to_owned(),
                partial: false,
            });
        }
        let mut program = self.command(place)?;
        // `providers mirror` is two words.
        program.args(command.split(' ')).arg("-no-color");
        if ["init", "plan", "apply"].contains(&command) {
            program.arg("-input=false");
        }
        program.args(args);
        // Only these speak in lines of JSON.
        let speaks = ["plan", "apply"].contains(&command);
        let mut on_line = |line: &str| {
            if speaks && let Some(step) = account.take(line) {
                progress(step);
            }
        };
        let outputs = (place.stdout(), place.stderr());
        let ended = process::run(program, (&outputs.0, &outputs.1), self.patience, cancel, &mut on_line).await?;
        let stderr = std::fs::read(&outputs.1).map_err(|error| io("read Terraform's errors", &error))?;
        let stderr = String::from_utf8_lossy(&stderr[stderr.len().saturating_sub(TOLD_BYTES)..]).into_owned();
        for error in &mut account.errors {
            error.summary = self.without_secrets(&error.summary);
            error.detail = self.without_secrets(&error.detail);
        }
        account.strange = account.strange.map(|line| self.without_secrets(&line));
        Ok(Run {
            ended,
            account,
            stderr: self.without_secrets(stderr.trim()),
        })
    }

    fn command(&self, place: &Workplace) -> Result<Command, Error> {
        let mut command = Command::new(self.program()?);
        let own = ENVIRONMENT.into_iter().chain(self.pass.iter().map(String::as_str));
        command
            .current_dir(&self.dir)
            .env_clear()
            .envs(own.filter_map(|name| Some((name, env::var_os(name)?))))
            .envs(self.environment.iter().map(|(name, secret)| (name, secret.expose())))
            .envs(
                self.secrets
                    .iter()
                    .map(|(name, s)| (format!("TF_VAR_{name}"), s.expose())),
            )
            .env("TF_DATA_DIR", absolute(&self.data_dir)?)
            .envs(self.workspace.iter().map(|name| ("TF_WORKSPACE", name)))
            .env("TF_IN_AUTOMATION", "1")
            .env("CHECKPOINT_DISABLE", "1");
        self.darken(&mut command);
        if let Some(config) = self.provider_sources()? {
            std::fs::write(place.cli_config(), config).map_err(|error| io("write Terraform's settings", &error))?;
            command.env("TF_CLI_CONFIG_FILE", place.cli_config());
        }
        Ok(command)
    }

    fn program(&self) -> Result<PathBuf, Error> {
        let runs = |path: &Path| {
            path.metadata()
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        if let Some(program) = &self.program {
            let program = absolute(program)?;
            return match runs(&program) {
                true => Ok(program),
                false => Err(Error::NotInstalled {
                    looked_for: program.display().to_string(),
                }),
            };
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let found = ["terraform", "tofu"].iter().find_map(|name| {
            env::split_paths(&path)
                .map(|dir| dir.join(name))
                .find(|file| runs(file))
        });
        found.ok_or_else(|| Error::NotInstalled {
            looked_for: "neither terraform nor tofu is on PATH: the program".into(),
        })
    }

    fn workplace(&self) -> Result<Workplace, Error> {
        let data_dir = absolute(&self.data_dir)?;
        let what = format!("make a directory for a run below {}", data_dir.display());
        Workplace::new(&data_dir).map_err(|error| io(&what, &error))
    }

    fn lock_timeout(&self) -> String {
        format!("-lock-timeout={}s", self.lock_timeout.as_secs())
    }

    /// A state that could not be stored lies in `errored.tfstate`. Planning without it would make everything twice.
    fn check_saved(&self) -> Result<(), Error> {
        let file = self.dir.join("errored.tfstate");
        match file.exists() {
            true => Err(Error::StateNotSaved {
                push: format!("{} state push errored.tfstate", self.typed()),
                file,
            }),
            false => Ok(()),
        }
    }

    /// How a person calls the program on this directory.
    fn typed(&self) -> String {
        let program = self.program().unwrap_or_else(|_| "terraform".into());
        let (data_dir, dir) = (self.data_dir.display(), self.dir.display());
        format!("TF_DATA_DIR={data_dir} {} -chdir={dir}", program.display())
    }

    /// An error if it was stopped by us before it was done.
    fn stopped(&self, command: &str, run: &Run) -> Result<(), Error> {
        let command = command.to_owned();
        if run.ended.status.success() || run.ended.status.code() == Some(2) {
            return Ok(());
        }
        if run.ended.killed {
            let patience = self.patience;
            return Err(Error::Killed { command, patience });
        }
        if run.ended.interrupted {
            let partial = run.account.begun > 0;
            return Err(Error::Cancelled { command, partial });
        }
        Ok(())
    }

    /// What a run that ended badly by itself means.
    fn failed(&self, command: &str, run: Run) -> Error {
        if let Some(lock) = run.account.lock() {
            let unlock = format!("{} force-unlock {}", self.typed(), lock.id);
            let lock = Box::new(lock);
            return Error::Locked { lock, unlock };
        }
        let partial = run.account.begun > 0;
        let mut diagnostics = run.account.errors;
        if diagnostics.is_empty() || run.ended.status.code().is_none() {
            let strange = run.account.strange.map(|line| format!("it printed {line:?}"));
            diagnostics.push(Diagnostic {
                summary: format!("it {}", run.ended.how()),
                detail: [Some(run.stderr).filter(|text| !text.is_empty()), strange]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join("; "),
                address: None,
            });
        }
        Error::Failed {
            command: command.to_owned(),
            diagnostics,
            partial,
        }
    }

    fn no_summary(&self, command: &str, run: &Run) -> Error {
        let printed = match &run.account.strange {
            Some(line) => format!("it printed {line:?}"),
            None => "it printed nothing of the kind".to_owned(),
        };
        self.unexpected(command, format!("it {} without a summary: {printed}", run.ended.how()))
    }

    fn unexpected(&self, command: &str, detail: String) -> Error {
        Error::Unexpected {
            command: command.to_owned(),
            program: self.program().unwrap_or_default(),
            detail,
        }
    }

    fn without_secrets(&self, text: &str) -> String {
        let secrets = self.secrets.values().chain(self.environment.values());
        let mut values: Vec<&str> = secrets.map(Secret::expose).filter(|value| !value.is_empty()).collect();
        // The longest first: one may be a part of another.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let hide = |text: String, value: &str| text.replace(value, "[secret]");
        values.into_iter().fold(text.to_owned(), hide)
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| io(&format!("find {}", path.display()), &error))
}

fn io(what: &str, error: &std::io::Error) -> Error {
    Error::Io {
        what: what.to_owned(),
        detail: error.to_string(),
    }
}
