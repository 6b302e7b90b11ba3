//! Compiles the protocol buffers; protox needs no installed protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["keyd/v1/keyd.proto", "keyd/agent/v1/agent.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        // They hold secrets.
        .skip_debug([
            ".keyd.v1.ActivateCredentialResponse",
            ".keyd.v1.DecapsulateResponse",
            ".keyd.v1.RestoreEscrowTerms",
        ])
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
