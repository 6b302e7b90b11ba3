//! What one local user may have at once, so that no user can keep the others out.

mod calls;
mod connections;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Semaphore;

pub use calls::CallsPerUser;
pub use connections::per_user as connections_per_user;

/// The same number of something for each user.
struct Shares {
    each: usize,
    /// What is refused for want of a share.
    refused: Counter,
    users: Mutex<HashMap<u32, Arc<Semaphore>>>,
}

impl Shares {
    fn new(each: usize, refused: Counter) -> Self {
        Self { each: each.min(Semaphore::MAX_PERMITS), refused, users: Mutex::default() }
    }

    /// The share of a user.
    fn of(&self, uid: u32) -> Arc<Semaphore> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = users.get(&uid) {
            return share.clone();
        }
        // A user who has nothing at the moment is forgotten, so that the map stays small.
        users.retain(|_, share| Arc::strong_count(share) > 1);
        users.entry(uid).or_insert_with(|| Arc::new(Semaphore::new(self.each))).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_shares_of_their_own_and_are_forgotten_with_the_last_of_it() {
        let shares = Shares::new(1, Counter::default());
        let held = shares.of(1).try_acquire_owned().unwrap();
        assert!(shares.of(1).try_acquire_owned().is_err(), "one each");
        assert!(shares.of(2).try_acquire_owned().is_ok(), "another user has a share of its own");
        assert!(shares.of(3).try_acquire_owned().is_ok());
        let known = || shares.users.lock().unwrap().len();
        assert_eq!(known(), 2, "user 2 has nothing any more");
        drop(held);
        assert!(shares.of(4).try_acquire_owned().is_ok());
        assert_eq!(known(), 1);
    }
}
