//! Compiles the protocol buffers; protox needs no installed protoc.

const FILES: [&str; 9] = [
    "goplugin.proto",
    "spire/config.proto",
    "spire/credentialcomposer.proto",
    "spire/init.proto",
    "spire/keymanager_agent.proto",
    "spire/keymanager_server.proto",
    "spire/nodeattestor_agent.proto",
    "spire/nodeattestor_server.proto",
    "spire/upstreamauthority.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tonic_prost_build::configure()
        // The agent's messages are the server's in another package: one set of types serves both.
        .extern_path(".spire.plugin.agent.keymanager.v1", "crate::proto::keymanager::server")
        .include_file("packages.rs")
        .compile_fds(protox::compile(FILES, ["proto"])?)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
