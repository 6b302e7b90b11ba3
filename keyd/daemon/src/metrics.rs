//! What keyd counts, as OpenMetrics text. Each label has few values: operations, reasons, protections, algorithms, and the
//! namespaces of the configuration.
//!
//! Only counters, gauges and histograms are used: readers of Prometheus' older text format refuse the other types.

mod call;
mod snapshot;

use std::fmt;

use keyd_core::{Failure, Namespace, Operation, Protection, Reason};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

pub use call::Call;
pub use snapshot::Snapshot;

/// Upper bounds of the histogram's buckets, in seconds: from a signature in software to the patience of a caller.
const BUCKETS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 25.0];

/// Everything that is counted since keyd started.
pub struct Metrics {
    registry: Registry,
    done: Family<Done, Counter>,
    failed: Family<Failed, Counter>,
    seconds: Family<Kind, Histogram>,
    fallbacks: Family<Fallback, Counter>,
    denied: Family<Denied, Counter>,
    issued: Family<IssuedKind, Counter>,
    not_issued: Family<NotIssued, Counter>,
    limited: Family<Limited, Counter>,
}

/// A bound of `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// On keys in the store.
    Keys,
    /// On calls of a user at once.
    CallsPerUser,
    /// On connections of a user.
    ConnectionsPerUser,
    /// On the length of messages.
    MessageBytes,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Done {
    operation: &'static str,
    namespace: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    operation: &'static str,
    namespace: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    operation: &'static str,
    protection: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fallback {
    namespace: String,
    preferred: &'static str,
    got: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Denied {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuedKind {
    namespace: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NotIssued {
    namespace: String,
    rule: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limited {
    limit: &'static str,
}

impl Limit {
    const ALL: [Self; 4] = [Self::Keys, Self::CallsPerUser, Self::ConnectionsPerUser, Self::MessageBytes];

    /// The name that the configuration uses.
    const fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::CallsPerUser => "calls_per_user",
            Self::ConnectionsPerUser => "connections_per_user",
            Self::MessageBytes => "message_bytes",
        }
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("keyd");
        let (done, failed, fallbacks, denied) =
            (Family::default(), Family::default(), Family::default(), Family::default());
        let seconds = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        registry.register("operations", "Operations on keys that were done", done.clone());
        registry.register("failures", "Operations on keys that failed or were refused", failed.clone());
        registry.register_with_unit(
            "operation_duration",
            "How long operations took that were done",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register(
            "fallbacks",
            "Keys made under another protection than their namespace prefers",
            fallbacks.clone(),
        );
        registry.register("denied", "Calls that the policy denied", denied.clone());
        let (issued, not_issued, limited) = (Family::default(), Family::default(), Family::default());
        registry.register(
            "certificates",
            "Certificates signed by CA keys with an issuance profile",
            issued.clone(),
        );
        registry.register(
            "certificates_refused",
            "What an issuance profile did not allow to be signed",
            not_issued.clone(),
        );
        registry.register("limited", "Calls, connections and keys refused by a limit", limited.clone());
        let metrics =
            Self { registry, done, failed, seconds, fallbacks, denied, issued, not_issued, limited };
        for limit in Limit::ALL {
            metrics.limited(limit);
        }
        metrics
    }

    /// Counts an operation on a key, from now until [`Call::end`].
    pub fn call(&self, operation: Operation, namespace: &Namespace) -> Call<'_> {
        Call::new(self, operation, namespace)
    }

    /// Counts a key that was made under a protection which its namespace does not put first.
    pub fn fell_back(&self, namespace: &Namespace, preferred: Protection, got: Protection) {
        let labels =
            Fallback { namespace: namespace.to_string(), preferred: preferred.name(), got: got.name() };
        self.fallbacks.get_or_create(&labels).inc();
    }

    /// Counts a call that the policy denied.
    pub fn denied(&self, operation: Operation) {
        self.denied.get_or_create(&Denied { operation: operation.name() }).inc();
    }

    /// Counts a certificate that was signed by a CA key with a profile.
    pub fn issued(&self, namespace: &Namespace, ca: bool) {
        let kind = if ca { "ca" } else { "leaf" };
        self.issued.get_or_create(&IssuedKind { namespace: namespace.to_string(), kind }).inc();
    }

    /// Counts what a rule of an issuance profile refused.
    pub fn not_issued(&self, namespace: &Namespace, rule: &'static str) {
        self.not_issued.get_or_create(&NotIssued { namespace: namespace.to_string(), rule }).inc();
    }

    /// What counts the refusals by a limit.
    pub fn limited(&self, limit: Limit) -> Counter {
        self.limited.get_or_create(&Limited { limit: limit.name() }).clone()
    }

    /// Everything as OpenMetrics text, with how keyd is at the moment.
    ///
    /// # Errors
    /// [`Reason::Internal`] where it cannot be written.
    pub fn text(&self, snapshot: &Snapshot) -> Result<String, Failure> {
        let written = || -> Result<String, fmt::Error> {
            let mut text = String::new();
            encode_registry(&mut text, &snapshot.registry())?;
            encode_registry(&mut text, &self.registry)?;
            encode_eof(&mut text)?;
            Ok(text)
        };
        written().map_err(|e| Failure::new(Reason::Internal, format!("cannot write the metrics: {e}")))
    }
}
