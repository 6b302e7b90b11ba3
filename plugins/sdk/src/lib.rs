//! go-plugin and SPIRE's plugin services in Rust.
//!
//! A plugin is a type that implements [`Plugin`]: what its `plugin_data` holds, and how it comes out of that. Its gRPC
//! service reaches it through [`Configured`]:
//!
//! ```
//! use keyd_core::Failure;
//! use plugin_sdk::proto::keymanager::server::key_manager_server::{KeyManager, KeyManagerServer};
//! # use plugin_sdk::proto::keymanager::server::*;
//! use plugin_sdk::{Configured, Deadline, KeydSocket, Plugin, Services};
//! use tonic::{Request, Response, Status};
//!
//! /// plugin_data
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     #[serde(default)]
//!     socket: KeydSocket,
//! }
//!
//! struct Keys {
//!     keyd: keyd_api::Client,
//! }
//!
//! impl Plugin for Keys {
//!     type Config = Config;
//!     async fn configure(config: Config, _trust_domain: &str) -> Result<Self, Failure> {
//!         Ok(Self { keyd: config.socket.client() })
//!     }
//! }
//!
//! struct Service(Configured<Keys>);
//!
//! #[tonic::async_trait]
//! impl KeyManager for Service {
//!     async fn get_public_keys(
//!         &self,
//!         request: Request<GetPublicKeysRequest>,
//!     ) -> Result<Response<GetPublicKeysResponse>, Status> {
//!         let plugin = self.0.plugin()?;
//!         // Tried again while keyd restarts, until SPIRE's patience ends.
//!         let keys = Deadline::of(&request).call(&plugin.keyd, |keyd| async move { keyd.list_keys(None).await });
//!         let _keys = keys.await.map_err(|f| keyd_api::status::from_failure(&f))?;
//!         Ok(Response::new(GetPublicKeysResponse::default()))
//!     }
//! #   async fn generate_key(&self, _: Request<GenerateKeyRequest>) -> Result<Response<GenerateKeyResponse>, Status> { unimplemented!() }
//! #   async fn get_public_key(&self, _: Request<GetPublicKeyRequest>) -> Result<Response<GetPublicKeyResponse>, Status> { unimplemented!() }
//! #   async fn sign_data(&self, _: Request<SignDataRequest>) -> Result<Response<SignDataResponse>, Status> { unimplemented!() }
//! }
//!
//! /// What the binary serves when SPIRE asks for this type.
//! pub fn services() -> Services {
//!     let configured = Configured::<Keys>::default();
//!     Services::new(&configured).server(KeyManagerServer::new(Service(configured)))
//! }
//! ```
//!
//! A type that exists on both sides adds its agent's service with [`Services::agent`]. The binary finds the type with
//! [`PluginType::asked_for`] and hands its services to [`run`].
//!
//! Logs go through `tracing`: a constant message, data in fields, from modules of crates named `plugin…` or `keyd…`.
//! They reach SPIRE's log. Nothing may be printed.

mod config;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod goplugin;
mod hcl;
mod hclog;
mod init;
mod keyd;
mod patience;
mod plugin_type;
pub mod proto;
mod serve;
mod socket;

use std::pin::Pin;

pub use config::{Configured, Plugin};
pub use error::Error;
pub use goplugin::held_open;
pub use keyd::KeydSocket;
pub use patience::Deadline;
pub use plugin_type::PluginType;
pub use serve::{GrpcService, Services, run};

/// The responses of a streaming call.
pub type Responses<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, tonic::Status>> + Send>>;
