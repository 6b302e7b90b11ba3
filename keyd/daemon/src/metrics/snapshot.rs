//! How keyd is at the moment that somebody asks for metrics.

use std::collections::BTreeMap;

use keyd_core::{Health, HealthState};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

use crate::store::KeyRecord;

/// The states that a device can be in.
const STATES: [HealthState; 4] =
    [HealthState::Ok, HealthState::Absent, HealthState::Replaced, HealthState::LockedOut];

type Labels = [(&'static str, String); 2];

/// Counts of what there is, and the state of the devices.
#[derive(Default)]
pub struct Snapshot {
    started_at: i64,
    keys: BTreeMap<(&'static str, &'static str), i64>,
    devices: Vec<(&'static str, HealthState)>,
    worker_starts: Option<u64>,
}

impl Snapshot {
    /// Of a keyd that started then, in seconds since 1970-01-01T00:00:00Z.
    pub fn new(started_at: i64) -> Self {
        Self { started_at, ..Self::default() }
    }

    /// Counts a key.
    pub fn key(&mut self, record: &KeyRecord) {
        *self.keys.entry((record.protection.name(), record.algorithm.name())).or_default() += 1;
    }

    /// Notes how a device is.
    pub fn device(&mut self, name: &'static str, health: &Health) {
        self.devices.push((name, health.state));
    }

    /// Notes how often a worker was started for the token.
    pub fn worker_starts(&mut self, starts: u64) {
        self.worker_starts = Some(starts);
    }

    pub(super) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("keyd");
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let build = Family::<_, Gauge>::default();
        build.get_or_create(&version).set(1);
        registry.register("build_info", "The version of keyd that runs", build);
        registry.register_with_unit(
            "start_time",
            "When keyd started, since 1970-01-01T00:00:00Z",
            Unit::Seconds,
            ConstGauge::new(self.started_at),
        );
        let keys = Family::<Labels, Gauge>::default();
        for ((protection, algorithm), count) in &self.keys {
            let labels = [("protection", (*protection).to_owned()), ("algorithm", (*algorithm).to_owned())];
            keys.get_or_create(&labels).set(*count);
        }
        registry.register("keys", "Keys in the store", keys);
        let states = Family::<Labels, Gauge>::default();
        for (device, is) in &self.devices {
            for state in STATES {
                let labels = [("device", (*device).to_owned()), ("state", state.name().to_owned())];
                states.get_or_create(&labels).set((state == *is).into());
            }
        }
        registry.register("device_state", "1 for the state that the device is in, 0 for the others", states);
        if let Some(starts) = self.worker_starts {
            registry.register(
                "token_worker_starts",
                "PKCS#11 workers started; each after the first took the place of one that died or hung",
                ConstCounter::new(starts),
            );
        }
        registry
    }
}
