//! `keyd token remove-orphan`.

use std::io::{IsTerminal, Write};

use clap::Args;
use keyd_api::Client;
use keyd_core::{Failure, Reason};
use keyd_unix::Output;
use serde_json::json;

/// Destroy an object in keyd's token that no key uses; `keyd doctor` lists those
///
/// What a crash between token and store, or an older store that was put back, leaves in the token. An object that one of
/// keyd's records names is never touched. Where several keyds share the token, `keyd doctor` lists the others' keys too:
/// then leave them alone. Needs the operation "repair".
#[derive(Args)]
pub struct RemoveOrphan {
    /// The object's CKA_ID, hexadecimal, as `keyd doctor` prints it
    #[arg(value_name = "OBJECT", value_parser = handle)]
    object: Handle,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// A CKA_ID.
#[derive(Clone)]
struct Handle(Vec<u8>);

impl RemoveOrphan {
    /// Asks the operator, then keyd.
    pub async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let name = hex::encode(&self.object.0);
        if !self.yes {
            confirm(&name)?;
        }
        let label = client.remove_orphan(self.object.0).await?;
        output.show(&json!({ "object": name, "label": label, "removed": true }), |_| {
            format!("object {name} ({label}) is destroyed")
        })
    }
}

fn confirm(name: &str) -> Result<(), Failure> {
    let refuse = |why: &str| Err(Failure::new(Reason::BadRequest, why));
    if !std::io::stdin().is_terminal() {
        return refuse("nothing was done: there is no terminal to ask on; give --yes where you are sure");
    }
    let question = format!(
        "This destroys the private key {name} in the token for good. Another keyd that shares the token may use it.\n\
         Destroy it? (yes/no) "
    );
    let _ = std::io::stderr().write_all(question.as_bytes());
    let mut answer = String::new();
    match std::io::stdin().read_line(&mut answer) {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => refuse("nothing was done"),
    }
}

fn handle(text: &str) -> Result<Handle, String> {
    hex::decode(text).map(Handle).map_err(|e| {
        format!("not a CKA_ID in hexadecimal: {e}; `keyd doctor` prints those of objects without a key")
    })
}
