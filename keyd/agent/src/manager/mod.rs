//! Keeps what the agent has up to date: its own SVID, the server's entries, bundles, and the workloads' SVIDs.
//!
//! One task does it, round after round. Whoever serves sees the last [`Snapshot`] and never waits for a round.

mod mint;
mod news;
mod own;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBuilder};
use keyd_core::Failure;
use keyd_x509::{Certificate, TrustDomain};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::error::{AgentError, Standing};
use crate::keyd_key::KeydKey;
use crate::own::{Attestor, Own};
use crate::server::SpireServer;
use crate::snapshot::{Bundle, Snapshot};
use crate::state::State;
use crate::svid::cache::Cache;
use crate::svid::lifetime::chance;
use crate::svid::mint::Maker;

/// How often the server is asked for news.
const POLL: Duration = Duration::from_secs(5);
/// Waits between rounds that failed.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How the agent is, for the operator.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Its own SVID.
    pub own: Option<Own>,
    /// When the server last answered.
    pub last_contact: Option<SystemTime>,
    /// What keeps the agent from its server or its keys now.
    pub trouble: Option<String>,
}

/// What a manager is made of.
pub struct Parts {
    /// The link to the server.
    pub server: SpireServer,
    /// Makes the agent's own SVID.
    pub attestor: Attestor,
    /// Makes the workloads' SVIDs.
    pub maker: Maker,
    /// What outlives the process.
    pub state: State,
    /// The bundle that the link began with.
    pub bundle: Vec<Certificate>,
    /// The chain of an earlier run.
    pub chain: Option<Vec<Certificate>>,
}

/// What a manager tells others.
pub struct Told {
    /// What is known.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// How the agent is.
    pub health: watch::Receiver<Health>,
    /// Takes asks.
    pub asks: Arc<Asks>,
}

/// The ids of entries for which somebody wants a key in keyd. Only ids of entries that there are go in.
pub type Asks = watch::Sender<BTreeSet<String>>;

/// A bundle, and the server's number for it once it has given one.
struct Known {
    bundle: Bundle,
    sequence: Option<u64>,
}

/// See the module.
pub struct Manager {
    server: SpireServer,
    attestor: Attestor,
    maker: Maker,
    state: State,
    /// The chain of an earlier run, until it was looked at.
    chain: Option<Vec<Certificate>>,
    own: Option<Own>,
    /// A key that no attestation has used up.
    spare: Option<KeydKey>,
    /// The server takes the SVID no longer.
    must_attest: bool,
    /// When a renewal may be tried again.
    renewal_from: Instant,
    cache: Cache,
    /// Whether the server has named its entries.
    heard: bool,
    /// Whether an earlier run may have left keys by handle.
    leftovers: bool,
    bundles: BTreeMap<TrustDomain, Known>,
    /// Why the server's last bundle is not believed.
    refused_bundle: Option<String>,
    /// Whether something is to be published.
    changed: bool,
    asks: watch::Receiver<BTreeSet<String>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    health: watch::Sender<Health>,
}

impl Manager {
    /// A manager that has done nothing yet.
    pub fn new(parts: Parts) -> (Self, Told) {
        let Parts { server, attestor, maker, state, bundle, chain } = parts;
        let trust_domain = attestor.trust_domain.clone();
        let known = Known { bundle: bundle.into(), sequence: None };
        let bundles = BTreeMap::from([(trust_domain.clone(), known)]);
        let cache = Cache::default();
        let first = Snapshot::new(trust_domain, plain(&bundles), false, &cache);
        let (snapshots, snapshot) = watch::channel(Arc::new(first));
        let (health, told) = watch::channel(Health::default());
        let (sender, asks) = watch::channel(BTreeSet::new());
        let manager = Self {
            server,
            attestor,
            maker,
            state,
            chain,
            own: None,
            spare: None,
            must_attest: false,
            renewal_from: Instant::now(),
            cache,
            heard: false,
            leftovers: true,
            bundles,
            refused_bundle: None,
            changed: false,
            asks,
            snapshots,
            health,
        };
        (manager, Told { snapshot, health: told, asks: Arc::new(sender) })
    }

    /// Goes on until dropped.
    pub async fn run(mut self) {
        let delays =
            ExponentialBuilder::new().with_min_delay(BACKOFF_MIN).with_max_delay(BACKOFF_MAX).with_jitter();
        let mut delay = delays.without_max_times().build();
        loop {
            let pause = match self.round().await {
                Ok(()) => {
                    delay = delays.without_max_times().build();
                    POLL.mul_f64(0.9 + 0.2 * chance())
                }
                Err(error) => {
                    self.trouble(error).await;
                    delay.next().unwrap_or(BACKOFF_MAX)
                }
            };
            self.publish();
            self.pause(Instant::now() + pause).await;
        }
    }

    /// Waits, yet not when somebody asks for what is not there, and never past the end of an SVID unseen.
    async fn pause(&mut self, end: Instant) {
        loop {
            let look = (Instant::now() + POLL).min(end);
            tokio::select! {
                // Fails once nobody can ask any more; then only the end of the pause is left.
                Ok(()) = self.asks.changed() => {}
                () = sleep_until(look) => {}
            }
            let new = self.take_asks();
            self.tidy().await;
            if new || Instant::now() >= end {
                return;
            }
        }
    }

    /// Gives whether one of them is new.
    fn take_asks(&mut self) -> bool {
        let asked = self.asks.borrow_and_update();
        asked.iter().fold(false, |new, entry| self.cache.ask(entry) | new)
    }

    async fn round(&mut self) -> Result<(), AgentError> {
        self.see_to_own().await?;
        self.hear().await?;
        self.mint().await?;
        self.health.send_modify(|health| health.trouble = self.refused_bundle.clone());
        Ok(())
    }

    /// Drops what has ended, and destroys the keys in keyd that sign no more.
    async fn tidy(&mut self) {
        let now = SystemTime::now();
        self.changed |= self.cache.expire(now);
        let spent = self.cache.spent(now);
        self.changed |= !spent.is_empty();
        self.publish();
        self.maker.destroy(&spent).await;
    }

    async fn trouble(&mut self, error: AgentError) {
        let standing = error.standing();
        let failure = Failure::from(error);
        tracing::warn!(reason = failure.reason.name(), %failure, "trouble");
        match standing {
            Standing::Good => {}
            Standing::MustAttest => self.must_attest = true,
            Standing::Banned => self.give_everything_up().await,
        }
        self.health.send_modify(|health| health.trouble = Some(failure.message));
    }

    /// Shows what has changed, if anything has.
    fn publish(&mut self) {
        if !std::mem::replace(&mut self.changed, false) {
            return;
        }
        let trust_domain = self.attestor.trust_domain.clone();
        let snapshot = Snapshot::new(trust_domain, plain(&self.bundles), self.heard, &self.cache);
        self.snapshots.send_replace(Arc::new(snapshot));
    }
}

fn plain(bundles: &BTreeMap<TrustDomain, Known>) -> BTreeMap<TrustDomain, Bundle> {
    bundles.iter().map(|(name, known)| (name.clone(), Arc::clone(&known.bundle))).collect()
}
