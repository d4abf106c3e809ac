use std::{collections::HashMap, sync::LazyLock, time::Duration};

use ::metrics::{Key, Label, Level, Metadata, Unit, describe_counter, describe_histogram, with_recorder};

use crate::rejection::RejectionKind;

const HANDSHAKES: &str = "ws_guard_handshakes_total";
const CHECKS: &str = "ws_guard_check_duration_seconds";
#[cfg(feature = "responder")]
pub(super) const CONNECTIONS: &str = "ws_guard_connections";
#[cfg(feature = "responder")]
pub(super) const CONNECTION: &str = "ws_guard_connection_duration_seconds";

/// Tells the installed recorder what the metrics are, for the help texts of its output.
pub fn describe_metrics() {
    describe_counter!(HANDSHAKES, Unit::Count, "WebSocket handshakes by outcome and code");
    describe_histogram!(CHECKS, Unit::Seconds, "How long the checks of a WebSocket handshake took");
    #[cfg(feature = "responder")]
    {
        ::metrics::describe_gauge!(CONNECTIONS, Unit::Count, "Upgraded connections that are open");
        describe_histogram!(CONNECTION, Unit::Seconds, "How long an upgraded connection was open");
    }
}

pub(super) const ACCEPTED: &str = "accepted";
pub(super) const REFUSED: &str = "refused";

/// Made once, because a key with labels is allocated.
static COUNTERS: LazyLock<HashMap<(&str, &str), Key>> = LazyLock::new(|| {
    let kinds = RejectionKind::ALL.iter().map(|kind| kind.code());
    let codes = kinds.chain(super::decision::CODES);
    codes.flat_map(|code| [ACCEPTED, REFUSED].map(|outcome| ((outcome, code), counter(outcome, code)))).collect()
});

static HISTOGRAMS: LazyLock<[Key; 2]> = LazyLock::new(|| {
    [ACCEPTED, REFUSED].map(|outcome| Key::from_parts(CHECKS, vec![Label::from_static_parts("outcome", outcome)]))
});

fn counter(outcome: &'static str, code: &'static str) -> Key {
    let labels = vec![Label::from_static_parts("outcome", outcome), Label::from_static_parts("code", code)];
    Key::from_parts(HANDSHAKES, labels)
}

pub(super) fn count(outcome: &'static str, code: &'static str, checks: Duration) {
    static METADATA: Metadata<'static> = Metadata::new("tower_ws_guard", Level::INFO, Some(module_path!()));

    let own;
    let key = match COUNTERS.get(&(outcome, code)) {
        Some(key) => key,
        None => {
            own = counter(outcome, code);
            &own
        }
    };
    let duration = &HISTOGRAMS[usize::from(outcome == REFUSED)];
    with_recorder(|recorder| {
        recorder.register_counter(key, &METADATA).increment(1);
        recorder.register_histogram(duration, &METADATA).record(checks);
    });
}
