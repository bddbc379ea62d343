//! What a configuration would make, and what a state has, shown without touching either.

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::events::Account;
use super::workplace::Workplace;
use super::{Error, Terraform, io};

impl Terraform {
    /// The plan for what is not there yet, as `terraform show -json` tells it. Nothing is locked, refreshed or kept. Secret values are in it.
    ///
    /// # Errors
    /// As [`Terraform::plan`].
    pub async fn plan_shown(&self, cancel: &CancellationToken) -> Result<Value, Error> {
        let place = self.workplace()?;
        let variables = serde_json::to_vec(&self.variables).unwrap_or_default();
        std::fs::write(place.variables(), variables).map_err(|error| io("write Terraform's variables", &error))?;
        let args = [
            "-json".to_owned(),
            "-lock=false".to_owned(),
            "-refresh=false".to_owned(),
            format!("-var-file={}", place.variables().display()),
            format!("-out={}", place.plan().display()),
        ];
        let run = self
            .run(&place, "plan", &args, Account::default(), &|_| {}, cancel)
            .await?;
        self.stopped("plan", &run)?;
        if !run.ended.status.success() {
            return Err(self.failed("plan", run));
        }
        let plan = place.plan().display().to_string();
        self.shown(&place, &["-json".to_owned(), plan], cancel).await
    }

    /// The state of the workspace, in the same words.
    ///
    /// # Errors
    /// [`Error::Failed`] if the state cannot be read; [`Error::Unexpected`].
    pub async fn state_shown(&self, cancel: &CancellationToken) -> Result<Value, Error> {
        let place = self.workplace()?;
        self.shown(&place, &["-json".to_owned()], cancel).await
    }

    async fn shown(&self, place: &Workplace, args: &[String], cancel: &CancellationToken) -> Result<Value, Error> {
        let run = self
            .run(place, "show", args, Account::default(), &|_| {}, cancel)
            .await?;
        self.stopped("show", &run)?;
        if !run.ended.status.success() {
            return Err(self.failed("show", run));
        }
        let written =
            std::fs::read_to_string(place.stdout()).map_err(|error| io("read what Terraform shows", &error))?;
        let written = Zeroizing::new(written);
        // The parser's message could quote a value.
        serde_json::from_str(&written)
            .map_err(|_| self.unexpected("show", "it printed something else than JSON".into()))
    }
}
