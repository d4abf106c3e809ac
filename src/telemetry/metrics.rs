use std::{collections::HashMap, sync::LazyLock, time::Duration};

use ::metrics::{
    Key, Label, Level, Metadata, Unit, describe_counter, describe_gauge, describe_histogram,
    with_recorder,
};

use crate::rejection::RejectionKind;

const HANDSHAKES: &str = "ws_guard_handshakes_total";
const CHECK_DURATION: &str = "ws_guard_check_duration_seconds";
pub(super) const CONNECTIONS: &str = "ws_guard_connections";
pub(super) const CONNECTION_DURATION: &str = "ws_guard_connection_duration_seconds";
#[cfg(feature = "jwt")]
const KEYS_FETCHED: &str = "ws_guard_jwt_keys_fetched_timestamp_seconds";
#[cfg(feature = "jwt")]
const KEY_FETCHES: &str = "ws_guard_jwt_key_fetches_total";

/// Describes the metrics to the installed recorder, for the help texts of its output.
pub fn describe_metrics() {
    describe_counter!(HANDSHAKES, Unit::Count, "WebSocket handshakes by outcome and code");
    describe_histogram!(
        CHECK_DURATION,
        Unit::Seconds,
        "Duration of the checks of a WebSocket handshake"
    );
    describe_gauge!(CONNECTIONS, Unit::Count, "Open upgraded connections");
    describe_histogram!(CONNECTION_DURATION, Unit::Seconds, "Duration of an upgraded connection");
    #[cfg(feature = "jwt")]
    {
        let fetched = "Unix time of the last successful fetch of keys for JSON Web Tokens";
        describe_gauge!(KEYS_FETCHED, Unit::Seconds, fetched);
        let fetches = "Fetches of keys for JSON Web Tokens by outcome";
        describe_counter!(KEY_FETCHES, Unit::Count, fetches);
    }
}

pub(super) const ACCEPTED: &str = "accepted";
pub(super) const REJECTED: &str = "rejected";

/// Made once, as the others, because a key with labels is allocated.
static ACCEPTED_HANDSHAKES: LazyLock<Key> = LazyLock::new(|| counter(ACCEPTED, ACCEPTED));

static COUNTERS: LazyLock<HashMap<(&str, &str), Key>> = LazyLock::new(|| {
    let kinds = RejectionKind::ALL.iter().map(|kind| kind.code());
    let codes = kinds.chain(super::outcome::CODES);
    codes
        .flat_map(|code| {
            [ACCEPTED, REJECTED].map(|outcome| ((outcome, code), counter(outcome, code)))
        })
        .collect()
});

static HISTOGRAMS: LazyLock<[Key; 2]> = LazyLock::new(|| {
    [ACCEPTED, REJECTED].map(|outcome| {
        Key::from_parts(CHECK_DURATION, vec![Label::from_static_parts("outcome", outcome)])
    })
});

fn counter(outcome: &'static str, code: &'static str) -> Key {
    let labels =
        vec![Label::from_static_parts("outcome", outcome), Label::from_static_parts("code", code)];
    Key::from_parts(HANDSHAKES, labels)
}

pub(super) fn count(outcome: &'static str, code: &'static str, checks: Duration) {
    static METADATA: Metadata<'static> =
        Metadata::new("tower_ws_guard", Level::INFO, Some(module_path!()));

    let custom;
    // Most handshakes are accepted. This spares them the look-up.
    let key = if (outcome, code) == (ACCEPTED, ACCEPTED) {
        &*ACCEPTED_HANDSHAKES
    } else if let Some(key) = COUNTERS.get(&(outcome, code)) {
        key
    } else {
        custom = counter(outcome, code);
        &custom
    };
    let duration = &HISTOGRAMS[usize::from(outcome == REJECTED)];
    with_recorder(|recorder| {
        recorder.register_counter(key, &METADATA).increment(1);
        recorder.register_histogram(duration, &METADATA).record(checks);
    });
}

#[cfg(feature = "jwt")]
pub(super) fn count_key_fetch(
    name: &std::sync::Arc<str>,
    succeeded: bool,
    last: Option<std::time::SystemTime>,
) {
    let keys = || ::metrics::SharedString::from(std::sync::Arc::clone(name));
    let outcome = if succeeded { "succeeded" } else { "failed" };
    ::metrics::counter!(KEY_FETCHES, "keys" => keys(), "outcome" => outcome).increment(1);
    let last = last.and_then(|last| last.duration_since(std::time::SystemTime::UNIX_EPOCH).ok());
    if let Some(last) = last {
        ::metrics::gauge!(KEYS_FETCHED, "keys" => keys()).set(last.as_secs_f64());
    }
}
