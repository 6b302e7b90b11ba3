//! Keeps what the agent has up to date: its own SVID, the server's entries, bundles, and the workloads' SVIDs.
//!
//! One task does it, round after round. Whoever serves sees the last [`Snapshot`] and never waits for a round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBuilder};
use keyd_core::{Failure, Reason};
use keyd_x509::{Certificate, SpiffeId, TrustDomain};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::entry::Entry;
use crate::error::{AgentError, Standing};
use crate::keyd_key::KeydKey;
use crate::own::{Attestor, Own};
use crate::server::{BATCH, SpireServer};
use crate::snapshot::{Bundle, Snapshot};
use crate::state::State;
use crate::svid::cache::Cache;
use crate::svid::lifetime::chance;
use crate::svid::mint::{Begun, Maker};

/// How often the server is asked for news.
const POLL: Duration = Duration::from_secs(5);
/// Waits between rounds that failed.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How long a renewal that failed is left alone while the SVID before it is good.
const RENEWAL_RETRY: Duration = Duration::from_secs(30);

/// How the agent is, for the operator.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Its SPIFFE ID, its key's id in keyd, and when its SVID ends.
    pub own: Option<(SpiffeId, String, SystemTime)>,
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
    must_attest: bool,
    renewal_from: Instant,
    cache: Cache,
    heard: bool,
    leftovers: bool,
    bundles: BTreeMap<TrustDomain, (Bundle, Option<u64>)>,
    asks: watch::Receiver<BTreeSet<String>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    health: watch::Sender<Health>,
}

impl Manager {
    /// A manager that has done nothing yet.
    pub fn new(parts: Parts) -> (Self, Told) {
        let Parts { server, attestor, maker, state, bundle, chain } = parts;
        let trust_domain = attestor.trust_domain.clone();
        let bundles = BTreeMap::from([(trust_domain.clone(), (Bundle::from(bundle), None))]);
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
        self.health.send_if_modified(|health| {
            health.last_contact = Some(SystemTime::now());
            health.trouble = None;
            true
        });
        Ok(())
    }

    /// Has an SVID of the agent's own that the server takes.
    async fn see_to_own(&mut self) -> Result<(), AgentError> {
        let now = SystemTime::now();
        if let Some(chain) = self.chain.clone() {
            let own = self.attestor.resume(chain, now).await?;
            self.chain = None;
            if let Some(own) = own {
                tracing::info!(id = %own.id, "the agent goes on with the SVID that it has");
                self.adopt(own)?;
            }
        }
        match &self.own {
            Some(own) if !own.lifetime.ended(now) && !self.must_attest => {
                if !own.lifetime.renewal_due(now) || Instant::now() < self.renewal_from {
                    return Ok(());
                }
                if let Err(error) = self.attest().await {
                    tracing::warn!(error = %Failure::from(error), "cannot renew the agent's SVID yet");
                    self.renewal_from = Instant::now() + RENEWAL_RETRY;
                }
                Ok(())
            }
            _ => self.attest().await,
        }
    }

    async fn attest(&mut self) -> Result<(), AgentError> {
        let key = match self.spare.take() {
            Some(key) => key,
            None => self.attestor.fresh_key(self.own.as_ref().map(|own| &own.key)).await?,
        };
        self.spare = Some(key.clone());
        let own = self.attestor.attest(&self.server, key).await?;
        self.spare = None;
        self.must_attest = false;
        // On disk before it is shown: once the server has seen the new one, the old one is of no use.
        let (state, chain) = (self.state.clone(), own.chain.clone());
        off_worker(move || state.keep_chain(&chain)).await?;
        tracing::info!(id = %own.id, key = %own.key.id(), "the agent is attested");
        self.adopt(own)
    }

    fn adopt(&mut self, own: Own) -> Result<(), AgentError> {
        self.server.show(Some(own.identity()?));
        let told = (own.id.clone(), own.key.id().to_string(), own.lifetime.not_after);
        if self.own.replace(own).is_none() {
            keyd_unix::tell_manager("READY=1");
        }
        self.health.send_modify(|health| health.own = Some(told));
        Ok(())
    }

    /// Takes in the server's entries and bundles.
    async fn hear(&mut self) -> Result<(), AgentError> {
        let entries = self.server.entries().await?;
        let trust_domain = self.attestor.trust_domain.clone();
        let mut refused = Vec::new();
        let entries: Vec<Entry> = entries
            .into_iter()
            .filter_map(|e| Entry::new(e, &trust_domain).map_err(|why| refused.push(why)).ok().flatten())
            .collect();
        let federated: BTreeSet<_> = entries.iter().flat_map(|e| e.federates_with.clone()).collect();
        let count = entries.len();
        let mut changed = !std::mem::replace(&mut self.heard, true);
        if self.cache.set_entries(entries, SystemTime::now()) {
            changed = true;
            tracing::info!(entries = count, "the server's entries changed");
            refused.iter().for_each(|why| tracing::warn!(%why, "an entry is left out"));
            self.take_asks();
        }
        changed |= self.hear_own_bundle(&trust_domain).await?;
        changed |= self.hear_federated(&federated).await;
        if changed {
            self.publish();
        }
        Ok(())
    }

    async fn hear_own_bundle(&mut self, trust_domain: &TrustDomain) -> Result<bool, AgentError> {
        let known = self.bundles.get(trust_domain).and_then(|(_, sequence)| *sequence);
        let Some(new) = self.server.bundle(known).await? else { return Ok(false) };
        self.server.believe(&new.authorities)?;
        let (state, bundle) = (self.state.clone(), new.authorities.clone());
        off_worker(move || state.keep_bundle(&bundle)).await?;
        tracing::info!(authorities = new.authorities.len(), "the trust bundle is up to date");
        let bundle = (Bundle::from(new.authorities), Some(new.sequence));
        self.bundles.insert(trust_domain.clone(), bundle);
        Ok(true)
    }

    /// A foreign bundle that cannot be had now keeps nothing else from going on.
    async fn hear_federated(&mut self, wanted: &BTreeSet<TrustDomain>) -> bool {
        let own = &self.attestor.trust_domain;
        let before = self.bundles.len();
        self.bundles.retain(|name, _| name == own || wanted.contains(name));
        let mut changed = self.bundles.len() != before;
        for name in wanted {
            let known = self.bundles.get(name).and_then(|(_, sequence)| *sequence);
            match self.server.federated_bundle(name, known).await {
                Ok(Some(new)) => {
                    let bundle = (Bundle::from(new.authorities), Some(new.sequence));
                    self.bundles.insert(name.clone(), bundle);
                    changed = true;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(trust_domain = %name, error = %Failure::from(error), "no federated bundle");
                }
            }
        }
        changed
    }

    /// Makes the SVIDs that are due.
    async fn mint(&mut self) -> Result<(), AgentError> {
        if std::mem::replace(&mut self.leftovers, false)
            && let Err(failure) = self.maker.destroy_leftovers().await
        {
            tracing::warn!(%failure, "keys by handle of an earlier run may be left in keyd");
        }
        let due = self.cache.due(SystemTime::now());
        for batch in due.chunks(BATCH) {
            let mut begun = Vec::new();
            for want in batch {
                match self.maker.begin(want.clone()).await {
                    Ok(made) => begun.push(made),
                    Err(error) => {
                        let error = Failure::from(error);
                        tracing::warn!(entry = want.entry, %error, "cannot make a key");
                        self.cache.failed(want.clone(), SystemTime::now());
                    }
                }
                tokio::task::yield_now().await;
            }
            self.mint_batch(begun).await?;
        }
        Ok(())
    }

    async fn mint_batch(&mut self, begun: Vec<Begun>) -> Result<(), AgentError> {
        if begun.is_empty() {
            return Ok(());
        }
        let requests = begun.iter().map(|b| (b.want.entry.clone(), b.csr.clone())).collect();
        let results = match self.server.mint(requests).await {
            Ok(results) => results,
            Err(error) => {
                self.maker.destroy(begun.iter().filter_map(Begun::in_keyd)).await;
                return Err(error);
            }
        };
        for (begun, result) in begun.into_iter().zip(results) {
            let now = SystemTime::now();
            let want = begun.want.clone();
            let finished = match self.cache.entry(&want.entry) {
                Some(entry) => result.and_then(|chain| begun.finish(entry, &chain, now)),
                None => Err("its entry is gone".to_owned()),
            };
            match finished {
                Ok(svid) => {
                    tracing::info!(id = %svid.spiffe_id, custody = ?want.custody, "an SVID is issued");
                    self.cache.install(want, Arc::new(svid), now);
                }
                Err(why) => {
                    tracing::warn!(entry = want.entry, %why, "no SVID");
                    self.maker.destroy(begun.in_keyd()).await;
                    self.cache.failed(want, now);
                }
            }
        }
        self.publish();
        Ok(())
    }

    /// Drops what has ended, and destroys the keys in keyd that sign no more.
    async fn tidy(&mut self) {
        let now = SystemTime::now();
        let ended = self.cache.expire(now);
        let spent = self.cache.spent(now);
        if ended || !spent.is_empty() {
            self.publish();
        }
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

    /// The operator banned this node: from now on it vouches for nobody.
    async fn give_everything_up(&mut self) {
        tracing::error!("the server has banned this agent; no workload is served any more");
        self.cache.clear(SystemTime::now());
        self.own = None;
        self.server.show(None);
        self.health.send_modify(|health| health.own = None);
        self.tidy().await;
        self.publish();
        let state = self.state.clone();
        if let Err(error) = off_worker(move || state.forget_chain()).await {
            tracing::error!(error = %Failure::from(error), "the agent's certificate stays on disk");
        }
    }

    fn publish(&self) {
        let trust_domain = self.attestor.trust_domain.clone();
        let snapshot = Snapshot::new(trust_domain, plain(&self.bundles), self.heard, &self.cache);
        self.snapshots.send_replace(Arc::new(snapshot));
    }
}

fn plain(bundles: &BTreeMap<TrustDomain, (Bundle, Option<u64>)>) -> BTreeMap<TrustDomain, Bundle> {
    bundles.iter().map(|(name, (bundle, _))| (name.clone(), Arc::clone(bundle))).collect()
}

async fn off_worker<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AgentError> + Send + 'static,
) -> Result<T, AgentError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Failure::new(Reason::Internal, format!("a task broke off: {e}")).into()))
}
