//! The protocol against a TPM in software, which can be made to lie.

mod attestation;
mod authority;
mod certificates;
mod parsers;
mod tpm;

use rustls_pki_types::UnixTime;
use std::time::Duration;

use crate::{
    Attested, EkCertificate, EkRoots, Enrolled, Fresh, Manifest, Payload, PcrSet, PcrValues, Policy,
    References, Refusal, Verifier, node,
};
use authority::{Authority, Issue};
use tpm::{Ek, SoftTpm};

const KEY: [u8; 32] = [7; 32];

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// The TPM's payload without a certificate, for one key.
fn payload(tpm: &SoftTpm) -> Payload {
    Payload::new(None, tpm.ek_public(), &tpm.ak_public(), vec![KEY]).unwrap()
}

fn manifest(tpm: &SoftTpm) -> Manifest {
    Manifest {
        version: 1,
        node: "edge-17".to_owned(),
        ek_sha256: tpm.ek_sha256(),
        ek_certificate: None,
        ak_name: tpm.ak_name(),
        manufacturer: "IBM".to_owned(),
        firmware_version: "1".to_owned(),
        pcrs: References::default(),
    }
}

fn enrolled(manifests: &[Manifest]) -> Enrolled {
    Enrolled::from_texts(manifests.iter().map(|m| (&m.node, m.to_json().unwrap()))).unwrap()
}

/// A verifier that lets in the TPM of this manifest alone.
fn verifier(manifest: &Manifest) -> Verifier {
    let enrolled = Some(enrolled(std::slice::from_ref(manifest)));
    Verifier::new(Policy { ek_roots: None, enrolled, pcrs: PcrSet::new([0, 7]).unwrap() }).unwrap()
}

/// Both ends, one after the other, ten seconds apart.
fn run(verifier: &Verifier, tpm: &SoftTpm, payload: &Payload) -> Result<Attested, Refusal> {
    let (state, bytes) = node::begin(payload);
    let (pending, challenge) = verifier.begin(&Payload::decode(&bytes)?, at(1000), Fresh::generate()?)?;
    let (state, credential) = state.challenge(&challenge)?;
    let secret = tpm.activate(&credential).expect("the credential is for this TPM");
    let (state, request) = state.secret(&secret);
    let (attest, signature, values) = tpm.quote(&request);
    pending.verify(&state.quote(attest, signature, values)?, at(1010))
}
