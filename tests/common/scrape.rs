//! Values of a Prometheus scrape.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use tokio::time::{sleep, timeout};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Parses the values by name and labels, as `name{label="value"}`.
pub fn scrape(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let value = |line: &str| {
        line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
    };
    lines.map(|line| value(line).unwrap()).collect()
}

/// The handshake metrics: counters by outcome and code, and the number of timed handshakes by outcome.
pub fn handshakes(text: &str) -> BTreeMap<String, f64> {
    let mut scraped = scrape(text);
    let names = ["ws_guard_handshakes_total{", "ws_guard_check_duration_seconds_count{"];
    scraped.retain(|name, _| names.iter().any(|prefix| name.starts_with(prefix)));
    scraped
}

/// The expected result of [`handshakes`].
pub fn expected<'a>(
    outcomes: impl IntoIterator<Item = (&'a str, &'a str, f64)>,
) -> BTreeMap<String, f64> {
    let mut expected = BTreeMap::new();
    for (outcome, code, count) in outcomes {
        let counter = format!("ws_guard_handshakes_total{{outcome=\"{outcome}\",code=\"{code}\"}}");
        let timed = format!("ws_guard_check_duration_seconds_count{{outcome=\"{outcome}\"}}");
        *expected.entry(counter).or_default() += count;
        *expected.entry(timed).or_default() += count;
    }
    expected
}

/// The gauge of open connections and the number of timed ones; the gauge is absent before the first connection.
pub fn connections(text: &str) -> (Option<f64>, f64) {
    let scraped = scrape(text);
    let timed =
        scraped.get("ws_guard_connection_duration_seconds_count").copied().unwrap_or_default();
    (scraped.get("ws_guard_connections").copied(), timed)
}

pub async fn wait_for<T: PartialEq + Copy + std::fmt::Debug>(
    expected: T,
    look: impl AsyncFn() -> T,
) {
    let last = Mutex::new(None);
    let wait = async {
        loop {
            let now = look().await;
            if now == expected {
                break;
            }
            *last.lock().unwrap() = Some(now);
            sleep(Duration::from_millis(5)).await;
        }
    };
    let result = timeout(TIMEOUT, wait).await;
    assert!(result.is_ok(), "{:?} and not {expected:?}", last.into_inner().unwrap());
}

/// Asserts help texts for every metric, in a scrape that has all of them.
pub fn assert_help(text: &str) {
    for name in [
        "ws_guard_handshakes_total",
        "ws_guard_check_duration_seconds",
        "ws_guard_connections",
        "ws_guard_connection_duration_seconds",
    ] {
        assert!(text.contains(&format!("# HELP {name} ")), "{name}: {text}");
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
    }
}
