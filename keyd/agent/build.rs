//! Compiles the protocol buffers; protox needs no installed protoc.

const FILES: [&str; 6] = [
    "admin.proto",
    "spire/agent.proto",
    "spire/bundle.proto",
    "spire/entry.proto",
    "spire/svid.proto",
    "workload.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tonic_prost_build::configure()
        // It holds a private key.
        .skip_debug([".X509SVID"])
        .include_file("packages.rs")
        .compile_fds(protox::compile(FILES, ["proto"])?)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
