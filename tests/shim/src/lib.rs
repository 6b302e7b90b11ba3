//! A PKCS#11 module that stands between keyd's worker and a real module, and fails where a test says so, or knows
//! algorithms by other numbers.
//!
//! A test makes [`Faults`] in a directory, gives the worker [`module`] as its module and [`Faults::environment`] as its
//! environment, and then injects and lifts faults while everything runs. Whatever has no fault goes through to the real
//! module unchanged.

mod fault;
mod ffi;
mod plan;
mod renumber;

pub use cryptoki_sys as code;
pub use fault::{Action, Fault, When};
pub use plan::Faults;
pub use renumber::Renumbering;

use std::path::PathBuf;
use std::{env, io};

/// The shim as a file, which Cargo builds beside the tests that depend on this crate.
///
/// # Errors
/// It is not there.
pub fn module() -> io::Result<PathBuf> {
    let mut path = env::current_exe()?;
    path.set_file_name("libfault_shim.so");
    path.exists()
        .then_some(path.clone())
        .ok_or_else(|| io::Error::other(format!("{} was not built", path.display())))
}
