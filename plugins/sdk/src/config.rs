//! plugin_data: read strictly, checked, taken into use.

use std::sync::{Arc, PoisonError, RwLock};

use keyd_api::status::from_failure;
use keyd_core::{Failure, Reason};
use serde::de::DeserializeOwned;
use tonic::{Request, Response, Status};

use crate::hcl;
use crate::proto::config::config_server::Config;
use crate::proto::config::{
    ConfigureRequest, ConfigureResponse, CoreConfiguration, ValidateRequest, ValidateResponse,
};

/// A plugin as its configuration makes it.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// What `plugin_data` holds. It should refuse unknown fields, and values that can never be right.
    type Config: DeserializeOwned + Send;

    /// Makes the plugin. Should not wait for keyd: a SPIRE that starts before keyd then starts all the same.
    ///
    /// # Errors
    /// A sentence that SPIRE prints as it ends.
    fn configure(
        config: Self::Config,
        trust_domain: &str,
    ) -> impl Future<Output = Result<Self, Failure>> + Send;
}

/// Where the plugin stands once SPIRE has configured it. Clones share it.
pub struct Configured<P>(Arc<RwLock<Option<Arc<P>>>>);

impl<P: Plugin> Configured<P> {
    /// The plugin of the latest configuration.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` before the first.
    pub fn plugin(&self) -> Result<Arc<P>, Status> {
        let slot = self.0.read().unwrap_or_else(PoisonError::into_inner);
        slot.clone().ok_or_else(|| Status::failed_precondition("the plugin is not configured yet"))
    }

    fn replace(&self, plugin: P) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(plugin));
    }
}

impl<P> Default for Configured<P> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<P> Clone for Configured<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[tonic::async_trait]
impl<P: Plugin> Config for Configured<P> {
    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureResponse>, Status> {
        let request = request.into_inner();
        let config = read::<P>(request.core_configuration.as_ref(), &request.hcl_configuration);
        let (config, trust_domain) = config.map_err(|f| from_failure(&f))?;
        let plugin = P::configure(config, trust_domain).await.map_err(|f| from_failure(&f))?;
        self.replace(plugin);
        Ok(Response::new(ConfigureResponse {}))
    }

    async fn validate(
        &self,
        request: Request<ValidateRequest>,
    ) -> Result<Response<ValidateResponse>, Status> {
        let request = request.into_inner();
        let notes = match read::<P>(request.core_configuration.as_ref(), &request.hcl_configuration) {
            Ok(_) => Vec::new(),
            Err(failure) => vec![failure.message],
        };
        Ok(Response::new(ValidateResponse { valid: notes.is_empty(), notes }))
    }
}

fn read<'a, P: Plugin>(
    core: Option<&'a CoreConfiguration>,
    text: &str,
) -> Result<(P::Config, &'a str), Failure> {
    let trust_domain = core.map(|c| c.trust_domain.as_str()).filter(|name| !name.is_empty());
    let trust_domain = trust_domain
        .ok_or_else(|| Failure::new(Reason::BadConfig, "SPIRE named no trust domain to the plugin"))?;
    Ok((hcl::parse(text)?, trust_domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        socket: String,
    }

    #[derive(Debug)]
    struct ExamplePlugin(String);

    impl Plugin for ExamplePlugin {
        type Config = Example;
        async fn configure(config: Example, trust_domain: &str) -> Result<Self, Failure> {
            Ok(Self(format!("{trust_domain} {}", config.socket)))
        }
    }

    fn core() -> Option<CoreConfiguration> {
        Some(CoreConfiguration { trust_domain: "example.org".to_owned() })
    }

    async fn configure(slot: &Configured<ExamplePlugin>, hcl: &str) -> Result<(), Status> {
        let request = ConfigureRequest { core_configuration: core(), hcl_configuration: hcl.to_owned() };
        slot.configure(Request::new(request)).await.map(drop)
    }

    #[tokio::test]
    async fn a_bad_reconfiguration_leaves_the_plugin_as_it_was() {
        let slot = Configured::<ExamplePlugin>::default();
        assert_eq!(slot.plugin().unwrap_err().code(), tonic::Code::FailedPrecondition);
        configure(&slot, "socket = \"/a\"").await.unwrap();
        let error = configure(&slot, "sokcet = \"/b\"").await.unwrap_err();
        assert!(error.message().ends_with("Did you mean \"socket\"?"), "{error}");
        assert_eq!(slot.plugin().unwrap().0, "example.org /a");
    }

    #[tokio::test]
    async fn validation_has_notes_only_when_something_is_wrong() {
        let slot = Configured::<ExamplePlugin>::default();
        let validate = async |hcl: &str| {
            let request = ValidateRequest { core_configuration: core(), hcl_configuration: hcl.to_owned() };
            slot.validate(Request::new(request)).await.unwrap().into_inner()
        };
        let good = validate("\"socket\" = \"/a\"").await;
        assert!(good.valid && good.notes.is_empty(), "{good:?}");
        let bad = validate("").await;
        assert!(!bad.valid && bad.notes.len() == 1, "{bad:?}");
        assert!(slot.plugin().is_err(), "validation configures nothing");
    }
}
