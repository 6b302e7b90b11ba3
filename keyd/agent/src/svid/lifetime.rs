//! How long a certificate chain is good, and when to replace it.

use std::time::SystemTime;

use keyd_x509::Certificate;

/// How far from the half of its life a chain may be replaced, as a part of that life: ±5 %, so that what was issued
/// together is not replaced together.
const SPREAD: f64 = 0.1;

/// From when to when a chain is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// When to ask for another one.
    pub renew_at: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
}

impl Lifetime {
    /// The life of a chain, leaf first, to be replaced about its half; `chance` is in 0 to 1 and decides where exactly.
    /// A leaf is of no use beyond the end of what vouches for it.
    pub fn of(chain: &[Certificate], chance: f64) -> Option<Self> {
        let not_before = chain.first()?.not_before();
        let not_after = chain.iter().map(Certificate::not_after).min()?;
        Some(Self::between(not_before, not_after, chance))
    }

    fn between(not_before: SystemTime, not_after: SystemTime, chance: f64) -> Self {
        let life = not_after.duration_since(not_before).unwrap_or_default();
        let part = 0.5 + SPREAD * (chance.clamp(0.0, 1.0) - 0.5);
        Self { renew_at: not_before + life.mul_f64(part), not_after }
    }

    /// Whether it is over.
    pub fn ended(&self, now: SystemTime) -> bool {
        self.not_after <= now
    }

    /// Whether it is time for another one.
    pub fn renewal_due(&self, now: SystemTime) -> bool {
        self.renew_at <= now
    }
}

/// A random part, 0 to 1. Without randomness it is the middle: then nothing is spread, and nothing else is lost.
pub fn chance() -> f64 {
    let mut bytes = [0; 4];
    match keyd_core::crypto::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn renewal_is_due_about_the_half_and_never_far_from_it() {
        assert_eq!(Lifetime::between(at(0), at(1000), 0.5).renew_at, at(500));
        assert_eq!(Lifetime::between(at(0), at(1000), 0.0).renew_at, at(450));
        assert_eq!(Lifetime::between(at(0), at(1000), 1.0).renew_at, at(550));
        assert_eq!(Lifetime::between(at(0), at(1000), 7.0).renew_at, at(550));
        assert!((0..100).map(|_| chance()).all(|c| (0.0..=1.0).contains(&c)));
    }

    #[test]
    fn a_life_has_a_last_moment() {
        let life = Lifetime::between(at(100), at(200), 0.5);
        assert!(!life.renewal_due(at(149)) && life.renewal_due(at(150)));
        assert!(!life.ended(at(199)) && life.ended(at(200)));
    }

    #[test]
    fn a_life_that_ends_before_it_begins_is_over() {
        let life = Lifetime::between(at(200), at(100), 0.5);
        assert!(life.ended(at(200)) && life.renewal_due(at(200)));
    }
}
