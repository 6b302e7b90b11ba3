//! A plugin's life, from the handshake to SPIRE's Shutdown.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;

use crate::config::{Configured, Plugin};
use crate::error::Error;
use crate::goplugin::{Broker, Controller, Stdio};
use crate::hclog;
use crate::init::Lifecycle;
use crate::proto::config::config_server::{self, ConfigServer};
use crate::proto::goplugin::grpc_broker_server::GrpcBrokerServer;
use crate::proto::goplugin::grpc_controller_server::GrpcControllerServer;
use crate::proto::goplugin::grpc_stdio_server::GrpcStdioServer;
use crate::proto::init::init_server::InitServer;
use crate::socket::{self, Socket};

/// The service whose health go-plugin asks for.
const HEALTH: &str = "plugin";

/// How long calls may still run after Shutdown; SPIRE kills the process after 2 s.
const GRACE: Duration = Duration::from_millis(500);

/// The gRPC services of one plugin type.
pub struct Services {
    routes: RoutesBuilder,
    names: Lifecycle,
}

impl Services {
    /// Begins with the configuration that the services of `configured` need.
    pub fn new<P: Plugin>(configured: &Configured<P>) -> Self {
        let mut routes = RoutesBuilder::default();
        routes.add_service(ConfigServer::new(configured.clone()));
        Self { routes, names: Lifecycle::new(config_server::SERVICE_NAME) }
    }

    /// Adds a service that SPIRE's server calls.
    #[must_use]
    pub fn server<S>(mut self, service: S) -> Self
    where
        S: GrpcService,
        S::Future: Send + 'static,
    {
        self.names.server.push(S::NAME);
        self.routes.add_service(service);
        self
    }

    /// Adds a service that SPIRE's agent calls.
    #[must_use]
    pub fn agent<S>(mut self, service: S) -> Self
    where
        S: GrpcService,
        S::Future: Send + 'static,
    {
        self.names.agent.push(S::NAME);
        self.routes.add_service(service);
        self
    }
}

/// Any generated server.
pub trait GrpcService:
    Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcService for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Serves the plugin until SPIRE ends it. SIGINT and SIGTERM are ignored: systemd sends them to plugin and SPIRE alike,
/// and SPIRE still needs its plugins while it stops.
pub async fn run(services: Services) -> ExitCode {
    hclog::install();
    match serve(services, &std::env::temp_dir()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "The plugin cannot serve");
            ExitCode::FAILURE
        }
    }
}

async fn serve(services: Services, parent: &Path) -> Result<(), Error> {
    // A handler, once there, stays for the life of the process.
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        drop(signal(kind).map_err(Error::Signal)?);
    }
    socket::sweep(parent).await;
    let Socket { listener, path, dir } =
        Socket::listen(parent).map_err(|source| Error::Socket { parent: parent.to_path_buf(), source })?;

    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status(HEALTH, tonic_health::ServingStatus::Serving).await;
    let controller = Controller::new();
    let server = Server::builder()
        .add_routes(services.routes.routes())
        .add_service(health)
        .add_service(GrpcBrokerServer::new(Broker))
        .add_service(GrpcControllerServer::new(controller.clone()))
        .add_service(GrpcStdioServer::new(Stdio))
        .add_service(InitServer::new(services.names))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), controller.shut_down());
    announce(&path).map_err(Error::Handshake)?;

    tokio::select! {
        served = server => served.map_err(Error::Serve)?,
        () = controller.overdue(GRACE) => {}
    }
    drop(dir);
    Ok(())
}

/// The one line that go-plugin expects on stdout: its own protocol version, the plugin's, and where to connect.
fn announce(socket: &Path) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "1|1|unix|{}|grpc|", socket.display())?;
    stdout.flush()
}
