//! SPIRE's first and last word.

use tonic::{Request, Response, Status};

use crate::proto::init::init_server::Init;
use crate::proto::init::{DeinitRequest, DeinitResponse, InitRequest, InitResponse};

/// How the names of host services begin that SPIRE's server alone offers.
const SERVER_ONLY: &str = "spire.hostservice.server.";

/// Answers Init with the names of the services that the caller can use.
///
/// The magic cookie does not say whether server or agent started the plugin, and SPIRE warns at each start about a
/// service it cannot use. The host services it offers tell the two apart.
#[derive(Clone, Debug)]
pub(crate) struct Lifecycle {
    config: &'static str,
    pub(crate) server: Vec<&'static str>,
    pub(crate) agent: Vec<&'static str>,
}

impl Lifecycle {
    pub(crate) fn new(config: &'static str) -> Self {
        Self { config, server: Vec::new(), agent: Vec::new() }
    }

    fn names(&self, host_services: &[String]) -> Vec<String> {
        let by_server = host_services.iter().any(|name| name.starts_with(SERVER_ONLY));
        let own = if by_server { &self.server } else { &self.agent };
        own.iter().chain([&self.config]).map(|name| (*name).to_owned()).collect()
    }
}

#[tonic::async_trait]
impl Init for Lifecycle {
    async fn init(&self, request: Request<InitRequest>) -> Result<Response<InitResponse>, Status> {
        let plugin_service_names = self.names(&request.into_inner().host_service_names);
        Ok(Response::new(InitResponse { plugin_service_names }))
    }

    async fn deinit(&self, _: Request<DeinitRequest>) -> Result<Response<DeinitResponse>, Status> {
        Ok(Response::new(DeinitResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_hears_of_its_own_services() {
        let services = Lifecycle { config: "config", server: vec!["server"], agent: vec!["agent"] };
        let metrics = "spire.hostservice.common.metrics.v1.Metrics".to_owned();
        let identity = "spire.hostservice.server.identityprovider.v1.IdentityProvider".to_owned();
        assert_eq!(services.names(&[identity, metrics.clone()]), ["server", "config"]);
        assert_eq!(services.names(&[metrics]), ["agent", "config"]);
    }
}
