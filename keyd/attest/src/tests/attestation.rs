use super::*;
use crate::{ANSWER_DEADLINE, Challenge, Response};

#[test]
fn an_enrolled_tpm_attests_with_any_kind_of_endorsement_key() {
    for ek in [Ek::Rsa2048, Ek::P256, Ek::P384] {
        let tpm = SoftTpm::new(ek);
        let attested = run(&verifier(&manifest(&tpm)), &tpm, &payload(&tpm)).unwrap();
        let ek = hex::encode(tpm.ek_sha256());
        assert_eq!(attested.agent_path, format!("/spire/agent/keyd_tpm/{ek}"));
        let (pcr0, pcr7) = (hex::encode([0; 32]), hex::encode([7; 32]));
        let selectors = [format!("ek:{ek}"), format!("pcr:sha256:0:{pcr0}"), format!("pcr:sha256:7:{pcr7}")];
        assert_eq!(attested.selectors, selectors);
        assert_eq!(attested.keys, [KEY]);
        assert_eq!(attested.node.as_deref(), Some("edge-17"));
    }
}

#[test]
fn an_attestation_key_on_p384_attests() {
    let tpm = SoftTpm::new(Ek::P384).with_p384_ak();
    run(&verifier(&manifest(&tpm)), &tpm, &payload(&tpm)).unwrap();
}

#[test]
fn an_unknown_tpm_is_refused_before_a_challenge_is_made() {
    let (known, unknown) = (SoftTpm::new(Ek::P256), SoftTpm::new(Ek::P256));
    let refusal = run(&verifier(&manifest(&known)), &unknown, &payload(&unknown)).unwrap_err();
    assert!(
        matches!(&refusal, Refusal::EkNotEnrolled { ek } if *ek == hex::encode(unknown.ek_sha256())),
        "{refusal}"
    );
}

#[test]
fn a_policy_that_accepts_everyone_or_quotes_nothing_is_refused() {
    let pcrs = PcrSet::new([7]).unwrap();
    assert!(matches!(Verifier::new(Policy { pcrs, ..Policy::default() }), Err(Refusal::NoPolicy)));
    let enrolled = Some(Enrolled::default());
    let quotes_nothing = Policy { enrolled, ..Policy::default() };
    assert!(matches!(Verifier::new(quotes_nothing), Err(Refusal::NoPcrs)));
}

#[test]
fn another_attestation_key_than_the_enrolled_one_is_refused() {
    let tpm = SoftTpm::new(Ek::P256);
    let manifest = Manifest { ak_name: [&[0, 0xb], [9; 32].as_slice()].concat(), ..manifest(&tpm) };
    let refusal = run(&verifier(&manifest), &tpm, &payload(&tpm)).unwrap_err();
    assert!(matches!(refusal, Refusal::AkNotEnrolled { .. }), "{refusal}");
}

#[test]
fn a_tpm_that_does_not_hold_the_endorsement_key_cannot_open_the_credential() {
    let (named, other) = (SoftTpm::new(Ek::Rsa2048), SoftTpm::new(Ek::Rsa2048));
    let (_, challenge) =
        verifier(&manifest(&named)).begin(&payload(&named), at(0), Fresh::generate().unwrap()).unwrap();
    let credential = Challenge::decode(&challenge).unwrap().credential;
    assert!(named.activate(&credential).is_some());
    assert!(other.activate(&credential).is_none());
}

#[test]
fn a_credential_does_not_open_for_another_attestation_key() {
    let mut tpm = SoftTpm::new(Ek::P256);
    let (_, challenge) =
        verifier(&manifest(&tpm)).begin(&payload(&tpm), at(0), Fresh::generate().unwrap()).unwrap();
    let credential = Challenge::decode(&challenge).unwrap().credential;
    tpm = tpm.with_p384_ak();
    assert!(tpm.activate(&credential).is_none());
}

#[test]
fn keys_that_are_no_attestation_keys_are_refused() {
    // fixedTPM, fixedParent, sensitiveDataOrigin, restricted and sign missing; decrypt and x509sign set.
    let attributes = [
        tpm::AK_ATTRIBUTES & !(1 << 1),
        tpm::AK_ATTRIBUTES & !(1 << 4),
        tpm::AK_ATTRIBUTES & !(1 << 5),
        tpm::AK_ATTRIBUTES & !(1 << 16),
        tpm::AK_ATTRIBUTES & !(1 << 18),
        tpm::AK_ATTRIBUTES | 1 << 17,
        tpm::AK_ATTRIBUTES | 1 << 19,
    ];
    for ak_attributes in attributes {
        let mut tpm = SoftTpm::new(Ek::P256);
        tpm.ak_attributes = ak_attributes;
        let refusal = run(&verifier(&manifest(&tpm)), &tpm, &payload(&tpm)).unwrap_err();
        assert!(matches!(refusal, Refusal::AkUnfit { .. }), "{ak_attributes:#x}: {refusal}");
    }
}

#[test]
fn endorsement_keys_off_the_template_are_refused() {
    let tpm = SoftTpm::new(Ek::P256);
    for attributes in
        [tpm::EK_ATTRIBUTES & !(1 << 16), tpm::EK_ATTRIBUTES & !(1 << 1), tpm::EK_ATTRIBUTES | 1 << 18]
    {
        let refusal =
            Payload::new(None, tpm.ek_public_with(attributes), &tpm.ak_public(), vec![KEY]).unwrap_err();
        assert!(matches!(refusal, Refusal::EkUnfit { .. }), "{refusal}");
    }
}

#[test]
fn an_endorsement_key_off_its_curve_is_refused() {
    let mut tpm = SoftTpm::new(Ek::P256);
    let mut public = tpm.ek_public();
    *public.last_mut().unwrap() ^= 1;
    tpm.ak_attributes = tpm::AK_ATTRIBUTES;
    let payload = Payload::new(None, public, &tpm.ak_public(), vec![KEY]).unwrap();
    let manifest = Manifest { ek_sha256: payload.ek.sha256(), ..manifest(&tpm) };
    let refusal = verifier(&manifest).begin(&payload, at(0), Fresh::generate().unwrap()).unwrap_err();
    assert!(matches!(refusal, Refusal::EkUnfit { .. }), "{refusal}");
}

#[test]
fn an_answer_to_one_challenge_is_refused_for_another() {
    let tpm = SoftTpm::new(Ek::P256);
    let verifier = verifier(&manifest(&tpm));
    let payload = payload(&tpm);
    let (first, challenge) = verifier.begin(&payload, at(0), Fresh::generate().unwrap()).unwrap();
    let (second, _) = verifier.begin(&payload, at(0), Fresh::generate().unwrap()).unwrap();
    let answer = answer(&tpm, &payload, &challenge);
    first.verify(&answer, at(1)).unwrap();
    assert!(matches!(second.verify(&answer, at(1)), Err(Refusal::NotBound)));
}

#[test]
fn a_quote_for_one_key_does_not_vouch_for_another() {
    let tpm = SoftTpm::new(Ek::P256);
    let keys = |keys: Vec<[u8; 32]>| Payload::new(None, tpm.ek_public(), &tpm.ak_public(), keys).unwrap();
    let attested = keys(vec![[1; 32]]);
    for claimed in [keys(vec![[2; 32]]), keys(vec![[1; 32], [2; 32]]), keys(vec![[2; 32], [1; 32]])] {
        let verifier = verifier(&manifest(&tpm));
        let (pending, challenge) = verifier.begin(&claimed, at(0), Fresh::generate().unwrap()).unwrap();
        assert!(matches!(
            pending.verify(&answer(&tpm, &attested, &challenge), at(1)),
            Err(Refusal::NotBound)
        ));
    }
}

#[test]
fn a_quote_without_the_activated_secret_is_refused() {
    let tpm = SoftTpm::new(Ek::P256);
    let payload = payload(&tpm);
    let (pending, challenge) =
        verifier(&manifest(&tpm)).begin(&payload, at(0), Fresh::generate().unwrap()).unwrap();
    let (state, _) = node::begin(&payload).0.challenge(&challenge).unwrap();
    let (state, request) = state.secret(&keyd_core::Secret::new(vec![0; 32]));
    let (attest, signature, values) = tpm.quote(&request);
    let answer = state.quote(attest, signature, values).unwrap();
    assert!(matches!(pending.verify(&answer, at(1)), Err(Refusal::NotBound)));
}

#[test]
fn a_late_answer_is_refused_and_so_is_one_before_its_challenge() {
    let tpm = SoftTpm::new(Ek::P256);
    let late = 1000 + ANSWER_DEADLINE.as_secs() + 1;
    for (now, in_time) in [(late - 1, true), (late, false), (999, false)] {
        let payload = payload(&tpm);
        let (pending, challenge) =
            verifier(&manifest(&tpm)).begin(&payload, at(1000), Fresh::generate().unwrap()).unwrap();
        let result = pending.verify(&answer(&tpm, &payload, &challenge), at(now));
        assert_eq!(result.is_ok(), in_time, "{now}");
        assert!(in_time || matches!(result, Err(Refusal::TooLate { .. })));
    }
}

#[test]
fn a_moved_pcr_is_refused_with_both_values() {
    let mut tpm = SoftTpm::new(Ek::P256);
    let mut manifest = manifest(&tpm);
    // PCR 4 is not among those of the policy: the manifest adds it.
    manifest.pcrs.sha256 = PcrValues::new([(4, [4; 32]), (7, [7; 32])]).unwrap();
    let attested = run(&verifier(&manifest), &tpm, &payload(&tpm)).unwrap();
    assert!(attested.selectors.contains(&format!("pcr:sha256:4:{}", hex::encode([4; 32]))));

    tpm.pcrs[4].1 = [0xee; 32];
    match run(&verifier(&manifest), &tpm, &payload(&tpm)).unwrap_err() {
        Refusal::PcrMoved { index, expected, actual } => {
            assert_eq!((index, expected, actual), (4, hex::encode([4; 32]), hex::encode([0xee; 32])));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn values_that_were_not_quoted_are_refused() {
    let tpm = SoftTpm::new(Ek::P256);
    let refusal = tampered(&tpm, |response| {
        response.pcrs = PcrValues::new([(0, [0; 32]), (7, [8; 32])]).unwrap();
    });
    assert!(matches!(refusal, Refusal::PcrDigest), "{refusal}");
}

#[test]
fn a_quote_over_other_pcrs_is_refused() {
    let mut tpm = SoftTpm::new(Ek::P256);
    let request =
        |pcrs: &[u8], data: Vec<u8>| node::QuoteRequest { pcrs: pcrs.to_vec(), qualifying_data: data };
    for pcrs in [[0].as_slice(), &[0, 7, 8], &[0, 8]] {
        let refusal = requoted(&tpm, |data| tpm.quote(&request(pcrs, data)));
        assert!(matches!(refusal, Refusal::PcrSelection { .. }), "{pcrs:?}: {refusal}");
    }
    tpm.bank = 0x000c;
    let refusal = requoted(&tpm, |data| tpm.quote(&request(&[0, 7], data)));
    assert!(matches!(refusal, Refusal::PcrSelection { .. }), "{refusal}");
}

#[test]
fn what_a_tpm_did_not_generate_is_refused() {
    let mut tpm = SoftTpm::new(Ek::P256);
    tpm.magic = 0xff54_4348;
    let refusal = run(&verifier(&manifest(&tpm)), &tpm, &payload(&tpm)).unwrap_err();
    assert!(matches!(refusal, Refusal::NotGenerated), "{refusal}");
}

#[test]
fn another_kind_of_attestation_is_refused() {
    let mut tpm = SoftTpm::new(Ek::P256);
    tpm.kind = 0x8017; // TPM_ST_ATTEST_CERTIFY
    let refusal = run(&verifier(&manifest(&tpm)), &tpm, &payload(&tpm)).unwrap_err();
    assert!(matches!(refusal, Refusal::NotQuote { kind: 0x8017 }), "{refusal}");
}

#[test]
fn a_quote_signed_by_another_key_or_changed_afterwards_is_refused() {
    let (tpm, other) = (SoftTpm::new(Ek::P256), SoftTpm::new(Ek::P256));
    let refusal = tampered(&tpm, |response| response.signature = other.sign(&response.attest));
    assert!(matches!(refusal, Refusal::Signature), "{refusal}");
    let refusal = tampered(&tpm, |response| *response.attest.last_mut().unwrap() ^= 1);
    assert!(matches!(refusal, Refusal::Signature), "{refusal}");
}

#[test]
fn a_node_does_not_send_values_of_other_pcrs_than_it_was_asked_for() {
    let tpm = SoftTpm::new(Ek::P256);
    let payload = payload(&tpm);
    let (_, challenge) =
        verifier(&manifest(&tpm)).begin(&payload, at(0), Fresh::generate().unwrap()).unwrap();
    let (state, _) = node::begin(&payload).0.challenge(&challenge).unwrap();
    let (state, _) = state.secret(&keyd_core::Secret::new(vec![0; 32]));
    let values = PcrValues::new([(0, [0; 32])]).unwrap();
    assert!(matches!(state.quote(vec![1], vec![1], values), Err(Refusal::PcrSelection { .. })));
}

/// The node's answer to a challenge.
fn answer(tpm: &SoftTpm, payload: &Payload, challenge: &[u8]) -> Vec<u8> {
    let (state, credential) = node::begin(payload).0.challenge(challenge).unwrap();
    let (state, request) = state.secret(&tpm.activate(&credential).unwrap());
    let (attest, signature, values) = tpm.quote(&request);
    state.quote(attest, signature, values).unwrap()
}

/// The refusal of an answer that was changed on the way.
fn tampered(tpm: &SoftTpm, change: impl FnOnce(&mut Response)) -> Refusal {
    let payload = payload(tpm);
    let (pending, challenge) =
        verifier(&manifest(tpm)).begin(&payload, at(0), Fresh::generate().unwrap()).unwrap();
    let mut response = Response::decode(&answer(tpm, &payload, &challenge)).unwrap();
    change(&mut response);
    pending.verify(&response.encode(), at(1)).unwrap_err()
}

/// The refusal of an answer whose quote the node made as it liked, with the right qualifying data.
fn requoted(tpm: &SoftTpm, quote: impl FnOnce(Vec<u8>) -> (Vec<u8>, Vec<u8>, PcrValues)) -> Refusal {
    let payload = payload(tpm);
    let (pending, challenge) =
        verifier(&manifest(tpm)).begin(&payload, at(0), Fresh::generate().unwrap()).unwrap();
    let (state, credential) = node::begin(&payload).0.challenge(&challenge).unwrap();
    let (_, request) = state.secret(&tpm.activate(&credential).unwrap());
    let (attest, signature, pcrs) = quote(request.qualifying_data);
    pending.verify(&Response { attest, signature, pcrs }.encode(), at(1)).unwrap_err()
}
