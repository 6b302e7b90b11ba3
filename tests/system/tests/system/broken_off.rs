//! Changes of many keys, one after the other, that keyd is killed in the midst of.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyd_api::Client;
use keyd_core::{Failure, KeyId, Reason};
use system::keyd::Keyd;
use tokio::time::sleep;

/// How many keys are changed.
pub const KEYS: usize = 24;
/// How often a change is begun and broken off before it may come to its end.
const KILLS: usize = 4;

/// The keys that keyd has said it is done with.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<BTreeSet<KeyId>>>);

impl Told {
    /// keyd said it of this key.
    pub fn add(&self, key: &str) {
        self.0.lock().unwrap().insert(key.parse().unwrap());
    }

    pub fn has(&self, key: &KeyId) -> bool {
        self.0.lock().unwrap().contains(key)
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Begins a change that takes so long, kills keyd before that, and starts it again; and so on. `check` is asked after each
/// start. Then the change comes to its end. Gives keyd, and how many kills met a change that had done some keys.
pub async fn again_and_again<F>(
    dir: &Path,
    mut keyd: Keyd,
    takes: Duration,
    change: impl Fn(Client, Told) -> F,
    check: impl AsyncFn(&Keyd, &Told),
) -> (Keyd, usize)
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let (told, mut met) = (Told::default(), 0);
    let latest = u64::try_from(takes.as_millis()).unwrap().max(2);
    for _ in 0..KILLS {
        let before = told.len();
        let running = tokio::spawn(change(keyd.client(), told.clone()));
        sleep(Duration::from_millis(fastrand::u64(1..latest))).await;
        keyd.kill().await.unwrap();
        if let Err(failure) = running.await.unwrap() {
            assert_eq!(failure.reason, Reason::Unreachable, "{failure}");
            met += usize::from(told.len() > before);
        }
        keyd = Keyd::restart(dir).await.unwrap();
        check(&keyd, &told).await;
    }
    change(keyd.client(), told.clone()).await.unwrap();
    assert_eq!(told.len(), KEYS, "each key is done in the end");
    check(&keyd, &told).await;
    (keyd, met)
}
