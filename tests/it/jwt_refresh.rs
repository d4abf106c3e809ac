//! Keys of an issuer that rotates them: when they are fetched, and what handshakes with unknown keys wait for. Time is
//! paused, so every duration is exact.

use std::{
    error::Error,
    future::pending,
    iter::successors,
    mem::take,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::request::Parts;
use jsonwebtoken::{EncodingKey, Header, encode};
use metrics::set_default_local_recorder;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tokio::{
    task::{JoinSet, yield_now},
    time::{Instant, advance, sleep, timeout},
};
use tower::ServiceExt;
use tower_ws_guard::{
    Rejection, StaticTokens, Token, TokenPolicy, VerifyToken,
    telemetry::describe_metrics,
    token::jwt::{JwtAlgorithm::HS256, JwtKey, JwtKeys, JwtRefresh, JwtVerifier},
};
use tracing::{Level, level_filters::LevelFilter};

use crate::{
    common::{handshake, scrape::scrape},
    decisions::{app, bearer, guard},
    telemetry_log::Recorder,
};

/// In the year 2100.
const FUTURE: u64 = 4_102_444_800;
const ACCEPTED: &str = "accepted";
const INVALID: &str = "token-invalid";
const FAILED: &str = "verifier-failed";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A secret that differs by its first byte.
fn secret(name: &str) -> [u8; 32] {
    [name.as_bytes()[0]; 32]
}

/// The key of this name, with the name as `kid` if it is a single letter.
fn key(name: &str) -> JwtKey {
    let key = JwtKey::hmac(HS256, &secret(name)).unwrap();
    if name.len() == 1 { key.key_id(name) } else { key }
}

fn sign(kid: Option<&str>, secret: &[u8], claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::default() };
    encode(&header, claims, &EncodingKey::from_secret(secret).unwrap()).unwrap()
}

fn good() -> Value {
    json!({ "exp": FUTURE, "sub": "alice" })
}

fn token(name: &str) -> String {
    sign((name.len() == 1).then_some(name), &secret(name), &good())
}

#[derive(Clone, Copy, Debug)]
enum Behavior {
    /// Publishes the keys of these names.
    Keys(&'static [&'static str]),
    Slow(Duration, &'static [&'static str]),
    Fails,
    Panics,
    Hangs,
}

use Behavior::{Fails, Hangs, Keys, Panics, Slow};

/// An issuer that records when its keys were fetched.
#[derive(Clone)]
struct Issuer(Arc<State>);

struct State {
    behavior: Mutex<Behavior>,
    started: Instant,
    fetches: Mutex<Vec<Duration>>,
}

impl Issuer {
    fn new(behavior: Behavior) -> Self {
        let behavior = Mutex::new(behavior);
        Self(Arc::new(State { behavior, started: Instant::now(), fetches: Mutex::default() }))
    }

    fn set(&self, behavior: Behavior) {
        *self.0.behavior.lock().unwrap() = behavior;
    }

    async fn fetch(self) -> Result<Vec<JwtKey>, String> {
        self.0.fetches.lock().unwrap().push(self.0.started.elapsed());
        let behavior = *self.0.behavior.lock().unwrap();
        let names = match behavior {
            Keys(names) => names,
            Slow(delay, names) => {
                sleep(delay).await;
                names
            }
            Fails => return Err("connection\nrefused".to_owned()),
            Panics => panic!("a fetch panics in this test"),
            Hangs => pending().await,
        };
        Ok(names.iter().map(|name| key(name)).collect())
    }

    fn keys(&self, settings: JwtRefresh) -> JwtKeys {
        let issuer = self.clone();
        JwtKeys::refresh(move || issuer.clone().fetch(), settings)
    }

    /// The times of the fetches since the last call.
    fn take_fetches(&self) -> Vec<Duration> {
        take(&mut self.0.fetches.lock().unwrap())
    }
}

/// No scheduled fetch, except for the first.
fn once() -> JwtRefresh {
    JwtRefresh::new().interval(secs(24 * 3600)).unwrap()
}

/// The code of the outcome in a guard, and the reason.
async fn outcome(keys: &JwtKeys, token: &str) -> (&'static str, String) {
    let policy = TokenPolicy::bearer(JwtVerifier::<Value>::new(keys.clone()));
    let app = app(guard().token(policy).unwrap());
    let response = app.oneshot(bearer(token).request()).await.unwrap();
    let Some(rejection) = response.extensions().get::<Rejection>() else {
        return (ACCEPTED, String::new());
    };
    let sources = successors(rejection.source(), |&error| error.source());
    (rejection.kind().code(), sources.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

async fn code(keys: &JwtKeys, token: &str) -> &'static str {
    outcome(keys, token).await.0
}

fn parts() -> Parts {
    handshake().request::<()>().into_parts().0
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_at_the_interval() {
    for (settings, interval) in [
        (JwtRefresh::new(), secs(300)),
        (JwtRefresh::default().interval(secs(1)).unwrap(), secs(1)),
        (once(), secs(24 * 3600)),
    ] {
        let issuer = Issuer::new(Keys(&["a"]));
        let keys = issuer.keys(settings);
        keys.ready().await;
        sleep(interval * 3 - Duration::from_millis(1)).await;
        assert_eq!(issuer.take_fetches(), [secs(0), interval, interval * 2]);
        assert_eq!(keys.age(), Some(interval - Duration::from_millis(1)));
        assert!(keys.last_error().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn removed_key_is_rejected_after_the_next_fetch() {
    let issuer = Issuer::new(Keys(&["a", "b"]));
    let keys = issuer.keys(JwtRefresh::new());
    assert_eq!(code(&keys, &token("a")).await, ACCEPTED);
    issuer.set(Keys(&["b", "c"]));
    sleep(secs(299)).await;
    assert_eq!(code(&keys, &token("a")).await, ACCEPTED);
    sleep(secs(2)).await;
    assert_eq!(code(&keys, &token("a")).await, INVALID);
    assert_eq!(code(&keys, &token("b")).await, ACCEPTED);
    assert_eq!(code(&keys, &token("c")).await, ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn concurrent_handshakes_with_unknown_keys_share_one_fetch() {
    let issuer = Issuer::new(Keys(&["a"]));
    let keys = issuer.keys(once());
    keys.ready().await;
    assert_eq!(issuer.take_fetches().len(), 1);
    issuer.set(Slow(secs(3), &["a", "b"]));

    let started = Instant::now();
    let mut handshakes = JoinSet::new();
    for number in 0..1000 {
        let keys = keys.clone();
        let (token, expected) = match number % 2 {
            0 => (token("b"), ACCEPTED),
            _ => (sign(Some(&format!("random {number}")), &secret("x"), &good()), INVALID),
        };
        handshakes.spawn(async move {
            assert_eq!(code(&keys, &token).await, expected);
            assert_eq!(started.elapsed(), secs(3));
        });
    }
    // A handshake that gives up does not stop the fetch for the others.
    assert!(timeout(secs(1), code(&keys, &token("b"))).await.is_err());
    // A known key does not wait.
    assert_eq!(code(&keys, &token("a")).await, ACCEPTED);
    assert_eq!(started.elapsed(), secs(1));
    handshakes.join_all().await;
    assert_eq!(issuer.take_fetches(), [secs(0)]);
}

/// A client sends a token with another random `kid` every second.
#[tokio::test(start_paused = true)]
async fn unknown_keys_cause_one_fetch_per_cool_down() {
    for (settings, cool_down) in [
        (once(), 30),
        (once().cool_down(secs(1)).unwrap(), 1),
        (once().cool_down(secs(60)).unwrap(), 60),
    ] {
        let issuer = Issuer::new(Keys(&["a"]));
        let keys = issuer.keys(settings);
        keys.ready().await;
        for second in 0..180 {
            let forged = sign(Some(&format!("random {second}")), &secret("x"), &good());
            let (code, reason) = outcome(&keys, &forged).await;
            assert_eq!(code, INVALID);
            let age = second % cool_down;
            let hint = format!(
                "the keys were fetched {age}s ago, and unknown keys cause an early fetch every {cool_down}s at most"
            );
            assert!(reason.ends_with(&hint), "{reason}");
            sleep(secs(1)).await;
        }
        let early = (0..180).step_by(cool_down as usize).map(secs);
        assert_eq!(issuer.take_fetches(), [secs(0)].into_iter().chain(early).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn early_fetch_is_only_for_a_token_that_a_new_key_may_verify() {
    type Configure = fn(JwtVerifier<Value>) -> JwtVerifier<Value>;
    let plain: Configure = |verifier| verifier;
    let ours: Configure = |verifier| verifier.issuer("https://id.example.com");
    let with = |members: Value| {
        let Value::Object(mut claims) = good() else { unreachable!() };
        claims.extend(members.as_object().unwrap().clone());
        claims
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let of = |claims: Value| sign(Some("b"), &secret("b"), &Value::Object(with(claims)));
    let header = r#"{"alg":"HS256","kid":"b","crit":["exp"]}"#;
    let encoded = |text: &str| {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        URL_SAFE_NO_PAD.encode(text)
    };
    let crit = format!("{}.{}.c2ln", encoded(header), encoded(&good().to_string()));
    let unreadable = format!("{}.c2ln.c2ln", encoded(r#"{"alg":"HS256","kid":"b"}"#));

    let cases: Vec<(&str, &'static [&'static str], Configure, String, bool)> = vec![
        ("an unknown kid", &["a"], plain, token("b"), true),
        ("a known key", &["a"], plain, token("a"), false),
        (
            "a known kid and a wrong signature",
            &["a"],
            plain,
            sign(Some("a"), &secret("b"), &good()),
            false,
        ),
        ("no kid, but all keys have one", &["a"], plain, token("b without kid"), true),
        (
            "neither token nor keys have a kid",
            &["a without kid"],
            plain,
            token("b without kid"),
            true,
        ),
        ("a key without kid that fits", &["a without kid"], plain, token("a"), false),
        ("a key without kid that does not fit", &["a without kid"], plain, token("b"), true),
        (
            "a named key and another",
            &["a", "b without kid"],
            plain,
            sign(Some("a"), &secret("c"), &good()),
            false,
        ),
        ("an expired token", &["a"], plain, of(json!({ "exp": now - 100 })), false),
        ("a token in its leeway", &["a"], plain, of(json!({ "exp": now - 30 })), true),
        ("the right issuer", &["a"], ours, of(json!({ "iss": "https://id.example.com" })), true),
        ("another issuer", &["a"], ours, of(json!({ "iss": "https://id.example.net" })), false),
        ("no issuer", &["a"], ours, token("b"), false),
        ("an unsupported extension", &["a"], plain, crit, false),
        ("claims that cannot be read", &["a"], plain, unreadable, false),
        ("no token", &["a"], plain, "guess".to_owned(), false),
    ];
    for (name, names, configure, token, fetches) in cases {
        let issuer = Issuer::new(Keys(names));
        let keys = issuer.keys(once());
        keys.ready().await;
        let verifier = configure(JwtVerifier::new(keys.clone()));
        let token = Token::new(token);
        assert_eq!(verifier.verify_now(&token, &parts()).is_none(), fetches, "{name}");
        assert_eq!(issuer.take_fetches().len(), 1, "{name}");
        verifier.verify(token.clone(), &parts()).await.ok();
        assert_eq!(issuer.take_fetches().len(), usize::from(fetches), "{name}");
        // The cool-down.
        assert!(verifier.verify_now(&token, &parts()).is_some(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn handshake_that_joined_a_fetch_in_flight_may_still_cause_an_early_one() {
    let issuer = Issuer::new(Slow(secs(2), &["a"]));
    let keys = issuer.keys(JwtRefresh::new());
    keys.ready().await;
    sleep(secs(301)).await;
    // The scheduled fetch is in flight, and has not seen the new key.
    issuer.set(Slow(secs(2), &["a", "b"]));
    let started = Instant::now();
    assert_eq!(code(&keys, &token("b")).await, ACCEPTED);
    assert_eq!(started.elapsed(), secs(3));
    assert_eq!(issuer.take_fetches(), [secs(0), secs(302), secs(304)]);
    // The next one is scheduled from the last.
    sleep(secs(299)).await;
    assert!(issuer.take_fetches().is_empty());
    sleep(secs(2)).await;
    assert_eq!(issuer.take_fetches(), [secs(606)]);
}

#[tokio::test(start_paused = true)]
async fn failed_fetch_keeps_the_last_keys() {
    for (behavior, took, error) in [
        (Fails, secs(0), "connection\nrefused"),
        (Panics, secs(0), "the fetch panicked"),
        (Hangs, secs(5), "the fetch took longer than 5s"),
        (Slow(secs(6), &["b"]), secs(5), "the fetch took longer than 5s"),
        (Keys(&[]), secs(0), "the fetch returned no keys"),
    ] {
        let issuer = Issuer::new(Keys(&["a"]));
        let keys = issuer.keys(JwtRefresh::new());
        keys.ready().await;
        issuer.set(behavior);
        sleep(secs(300) + took + Duration::from_millis(1)).await;
        assert_eq!(issuer.take_fetches(), [secs(0), secs(300)], "{behavior:?}");
        assert_eq!(keys.last_error().unwrap().to_string(), error);
        assert_eq!(keys.age(), Some(secs(300) + took + Duration::from_millis(1)));
        assert_eq!(code(&keys, &token("a")).await, ACCEPTED);
        // No early fetch during the back-off.
        let started = Instant::now();
        assert_eq!(code(&keys, &token("b")).await, INVALID);
        assert_eq!(started.elapsed(), secs(0));
        assert!(issuer.take_fetches().is_empty(), "{behavior:?}");

        issuer.set(Keys(&["b"]));
        sleep(secs(2)).await;
        assert_eq!(code(&keys, &token("a")).await, INVALID);
        assert_eq!(code(&keys, &token("b")).await, ACCEPTED);
        assert!(keys.last_error().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn failed_fetch_is_repeated_with_exponential_back_off_and_jitter() {
    let retries = |settings: JwtRefresh| async move {
        let issuer = Issuer::new(Fails);
        let keys = issuer.keys(settings);
        sleep(secs(600)).await;
        let fetches = issuer.take_fetches();
        issuer.set(Keys(&["a"]));
        keys.ready().await;
        // The back-off starts anew.
        issuer.set(Fails);
        issuer.take_fetches();
        sleep(secs(300 + 2)).await;
        let after_success = issuer.take_fetches();
        let pauses = |times: Vec<Duration>| {
            times.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
        };
        (pauses(fetches), pauses(after_success))
    };
    let (first, after_success) = retries(JwtRefresh::new()).await;
    for (pause, base) in
        first.iter().zip([1, 2, 4, 8, 16].into_iter().chain([30].into_iter().cycle()))
    {
        assert!((secs(base)..=secs(2 * base)).contains(pause), "{pause:?} for {base}");
    }
    assert!(first.len() > 10, "{first:?}");
    assert!((secs(1)..=secs(2)).contains(&after_success[0]), "{after_success:?}");
    let (second, _) = retries(JwtRefresh::new()).await;
    assert_ne!(first, second, "there is no jitter");
    // Never longer than the interval and its jitter.
    let (short, _) = retries(JwtRefresh::new().interval(secs(3)).unwrap()).await;
    assert!(short.iter().skip(2).all(|pause| (secs(3)..=secs(6)).contains(pause)), "{short:?}");
}

#[tokio::test(start_paused = true)]
async fn handshake_waits_for_a_fetch_until_its_deadline() {
    for (fetch_timeout, check_timeout, code, waited) in [
        (secs(5), secs(2), "verifier-timeout", secs(2)),
        (secs(5), secs(10), INVALID, secs(5)),
        (secs(60), secs(10), "verifier-timeout", secs(10)),
    ] {
        let issuer = Issuer::new(Keys(&["a"]));
        let keys = issuer.keys(once().timeout(fetch_timeout).unwrap());
        keys.ready().await;
        issuer.set(Hangs);
        let policy = TokenPolicy::bearer(JwtVerifier::<Value>::new(keys.clone()));
        let guard = guard().token(policy).unwrap().check_timeout(check_timeout).unwrap();
        let app = app(guard);
        let started = Instant::now();
        let response = app.oneshot(bearer(&token("b")).request()).await.unwrap();
        let rejection = response.extensions().get::<Rejection>().unwrap();
        assert_eq!((rejection.kind().code(), started.elapsed()), (code, waited));
    }
}

#[tokio::test(start_paused = true)]
async fn handshakes_before_the_first_keys_wait_or_are_rejected() {
    let issuer = Issuer::new(Slow(secs(2), &["a"]));
    let keys = issuer.keys(once());
    assert_eq!(keys.age(), None);
    // They wait for the first fetch.
    let started = Instant::now();
    assert_eq!(code(&keys, &token("a")).await, ACCEPTED);
    assert_eq!(started.elapsed(), secs(2));

    let issuer = Issuer::new(Fails);
    let keys = issuer.keys(once());
    let reason =
        "the verifier has no keys yet, because no fetch has succeeded: connection\nrefused";
    assert_eq!(outcome(&keys, &token("a")).await, (FAILED, reason.to_owned()));
    assert_eq!(outcome(&keys, "guess").await, (FAILED, reason.to_owned()));
    assert_eq!(issuer.take_fetches().len(), 1);
    assert!(timeout(secs(20), keys.ready()).await.is_err());
    assert_eq!(keys.age(), None);
    issuer.set(Keys(&["a"]));
    keys.ready().await;
    assert_eq!(keys.age(), Some(secs(0)));
    assert_eq!(code(&keys, &token("a")).await, ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn replaced_keys_stay_until_the_next_fetch() {
    let issuer = Issuer::new(Keys(&["a"]));
    let keys = issuer.keys(JwtRefresh::new());
    keys.ready().await;
    keys.replace([key("b")]);
    assert_eq!(code(&keys, &token("b")).await, ACCEPTED);
    sleep(secs(301)).await;
    assert_eq!(code(&keys, &token("b")).await, INVALID);
    assert_eq!(code(&keys, &token("a")).await, ACCEPTED);

    let keys = JwtKeys::new([key("a")]);
    keys.ready().await;
    assert!(keys.age().is_none() && keys.last_error().is_none());
}

#[tokio::test(start_paused = true)]
async fn chained_verifiers_fetch_only_for_their_own_issuers() {
    let [first, second] = [(); 2].map(|()| Issuer::new(Keys(&["a"])));
    let verifier =
        |issuer: &Issuer, iss: &str| JwtVerifier::<Value>::new(issuer.keys(once())).issuer(iss);
    let api_keys = StaticTokens::new([("s3cr3t", json!("a service"))]).unwrap();
    let chain = verifier(&first, "first").or(verifier(&second, "second")).or(api_keys);
    let app = app(guard().token(TokenPolicy::bearer(chain)).unwrap());
    sleep(secs(1)).await;
    second.set(Slow(secs(1), &["b"]));
    let claims = json!({ "exp": FUTURE, "iss": "second" });
    for token in [sign(Some("b"), &secret("b"), &claims), "s3cr3t".to_owned()] {
        let response = app.clone().oneshot(bearer(&token).request()).await.unwrap();
        assert!(response.extensions().get::<Rejection>().is_none());
    }
    assert_eq!((first.take_fetches().len(), second.take_fetches().len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn dropped_keys_end_the_task() {
    for behavior in [Keys(&["a"]), Fails, Hangs] {
        let issuer = Issuer::new(behavior);
        let keys = issuer.keys(JwtRefresh::new());
        let verifier = JwtVerifier::<Value>::new(keys.clone());
        drop(keys);
        sleep(secs(1000)).await;
        assert!(issuer.take_fetches().len() > 2, "{behavior:?}");
        drop(verifier.clone());
        sleep(secs(1000)).await;
        assert!(issuer.take_fetches().len() > 2, "{behavior:?}");

        drop(verifier);
        for _ in 0..10 {
            yield_now().await;
        }
        // The closure, and the future of a fetch in flight.
        assert_eq!(Arc::strong_count(&issuer.0), 1, "{behavior:?}");
        advance(secs(1000)).await;
        assert!(issuer.take_fetches().is_empty(), "{behavior:?}");
    }
}

#[test]
fn handshake_does_not_wait_for_a_runtime_that_is_gone() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let keys = first.block_on(async {
        let keys = Issuer::new(Keys(&["a"])).keys(once());
        keys.ready().await;
        keys
    });
    drop(first);
    runtime().block_on(async {
        assert_eq!(code(&keys, &token("a")).await, ACCEPTED);
        assert_eq!(code(&keys, &token("b")).await, INVALID);
    });
}

#[test]
#[should_panic = "there is no reactor running"]
fn refresh_outside_of_a_runtime_panics() {
    drop(JwtKeys::refresh(async || Ok::<_, String>(vec![key("a")]), JwtRefresh::new()));
}

#[test]
fn setting_out_of_range_is_a_config_error() {
    type Set = fn(JwtRefresh, Duration) -> Result<JwtRefresh, tower_ws_guard::ConfigError>;
    let ms = Duration::from_millis;
    for (name, set, min, max) in [
        ("interval", JwtRefresh::interval as Set, secs(1), secs(24 * 3600)),
        ("cool-down", JwtRefresh::cool_down, secs(1), secs(3600)),
        ("timeout", JwtRefresh::timeout, ms(10), secs(60)),
    ] {
        for valid in [min, max] {
            assert!(set(JwtRefresh::new(), valid).is_ok(), "{name} {valid:?}");
        }
        for invalid in [Duration::ZERO, min - ms(1), max + ms(1), Duration::MAX] {
            let error = set(JwtRefresh::new(), invalid).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn age_and_fetches_are_metrics() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = set_default_local_recorder(&recorder);
    describe_metrics();
    let value = |name: &str| scrape(&handle.render()).get(name).copied();
    let fetched = |keys: &str| {
        value(&format!("ws_guard_jwt_keys_fetched_timestamp_seconds{{keys=\"{keys}\"}}"))
    };
    let fetches = |keys: &str, outcome: &str| {
        value(&format!("ws_guard_jwt_key_fetches_total{{keys=\"{keys}\",outcome=\"{outcome}\"}}"))
    };
    let unix_time = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();

    let before = unix_time();
    let [good, bad] = [Issuer::new(Keys(&["a"])), Issuer::new(Fails)];
    let named = |name: &str| JwtRefresh::new().name(name);
    let keys = [good.keys(named("good")), bad.keys(named("bad"))];
    sleep(Duration::from_millis(1)).await;
    let first = fetched("good").unwrap();
    assert!((before..=unix_time()).contains(&first), "{first}");
    assert_eq!(fetched("bad"), Some(0.0));
    assert_eq!((fetches("good", "succeeded"), fetches("good", "failed")), (Some(1.0), None));
    assert_eq!((fetches("bad", "succeeded"), fetches("bad", "failed")), (None, Some(1.0)));

    // A failure does not make the keys younger.
    good.set(Fails);
    bad.set(Keys(&["b"]));
    sleep(secs(300)).await;
    assert_eq!(fetched("good"), Some(first));
    assert_eq!(fetches("good", "failed"), Some(1.0));
    assert!(fetched("bad").unwrap() >= first);
    assert_eq!(fetches("bad", "succeeded"), Some(1.0));
    for name in ["ws_guard_jwt_keys_fetched_timestamp_seconds", "ws_guard_jwt_key_fetches_total"] {
        assert!(handle.render().contains(&format!("# HELP {name} ")));
    }
    drop(keys);
}

#[tokio::test(start_paused = true)]
async fn failed_fetch_is_logged_with_its_cause_and_fix() {
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    let issuer = Issuer::new(Fails);
    let keys = issuer.keys(JwtRefresh::new().name("id.example.com"));
    sleep(Duration::from_millis(1)).await;
    issuer.set(Keys(&["a", "b"]));
    keys.ready().await;
    issuer.set(Hangs);
    sleep(secs(306)).await;
    let fix = "check that the issuer is reachable and that `fetch` reads its keys";
    let expected = [
        (
            Level::WARN,
            format!(
                "the keys could not be fetched; because: connection\\nrefused; there are no keys yet, so no token \
                 is valid; {fix}"
            ),
        ),
        (Level::DEBUG, "2 keys were fetched".to_owned()),
        (
            Level::WARN,
            format!(
                "the keys could not be fetched; because: the fetch took longer than 5s; the keys of 305s ago stay \
                 valid; {fix}"
            ),
        ),
    ];
    let events = recorder.take_own();
    for event in &events {
        assert_eq!(event.fields["keys"], "id.example.com");
        let retry = event.fields.get("retry_in_ms").map(|retry| retry.parse::<u64>().unwrap());
        let is_warning = event.level() == Level::WARN;
        assert_eq!(retry.is_some_and(|retry| (1000..=2000).contains(&retry)), is_warning);
    }
    let events = events.iter().map(|event| (event.level(), event.message().to_owned()));
    assert_eq!(events.collect::<Vec<_>>(), expected);
}

/// A verification may read the keys before a fetch ends, and ask for newer ones after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fetch_that_ends_during_a_verification_is_not_missed() {
    // Long, so that it takes a while to see that the key is unknown.
    let claims = json!({ "exp": FUTURE, "padding": (0..2000).collect::<Vec<_>>() });
    let token = Token::new(sign(Some("b"), &secret("b"), &claims));
    for _ in 0..20 {
        let issuer = Issuer::new(Keys(&["a"]));
        let keys = issuer.keys(once());
        keys.ready().await;
        issuer.set(Keys(&["b"]));
        let verifier = JwtVerifier::<Value>::new(keys);
        let mut handshakes = JoinSet::new();
        for index in 0..32 {
            let (verifier, token) = (verifier.clone(), token.clone());
            handshakes.spawn(async move {
                for _ in 0..index {
                    yield_now().await;
                }
                verifier.verify(token, &parts()).await.is_ok()
            });
        }
        assert!(handshakes.join_all().await.iter().all(|accepted| *accepted));
        assert!(issuer.take_fetches().len() <= 2);
    }
}
