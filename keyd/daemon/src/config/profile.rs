//! `profile`: which algorithms this node uses at all.

use keyd_core::{Algorithm, Failure, KeyId, Reason};
use serde::Deserialize;

/// A profile that leaves out algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// CNSA 2.0: ML-DSA-87 and ML-KEM-1024 alone.
    Cnsa2,
}

impl Profile {
    /// The name that the configuration uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cnsa2 => "cnsa2",
        }
    }

    /// Whether keys of this algorithm are made and used.
    pub const fn allows(self, algorithm: Algorithm) -> bool {
        match self {
            Self::Cnsa2 => matches!(algorithm, Algorithm::MlDsa87 | Algorithm::MlKem1024),
        }
    }

    /// Refuses to make or use a key of an algorithm that has no place here.
    ///
    /// # Errors
    /// [`Reason::ProfileForbids`], naming key, profile and what it allows.
    pub fn check(self, id: &KeyId, algorithm: Algorithm) -> Result<(), Failure> {
        if self.allows(algorithm) {
            return Ok(());
        }
        let allowed: Vec<_> =
            Algorithm::ALL.into_iter().filter(|a| self.allows(*a)).map(Algorithm::name).collect();
        Err(Failure::new(
            Reason::ProfileForbids,
            format!(
                "key {id} is {algorithm}, and the profile {} of keyd.toml allows {} alone",
                self.name(),
                allowed.join(" and ")
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cnsa2_allows_two_algorithms_and_names_them_when_it_refuses() {
        let id = "n/a".parse().unwrap();
        let allowed: Vec<_> =
            Algorithm::ALL.into_iter().filter(|a| Profile::Cnsa2.check(&id, *a).is_ok()).collect();
        assert_eq!(allowed, [Algorithm::MlDsa87, Algorithm::MlKem1024]);
        let refusal = Profile::Cnsa2.check(&id, Algorithm::MlDsa65).unwrap_err();
        assert_eq!(refusal.reason, Reason::ProfileForbids);
        assert!(refusal.message.contains("ml-dsa-87 and ml-kem-1024 alone"), "{refusal}");
    }
}
