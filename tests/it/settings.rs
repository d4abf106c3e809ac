//! Settings of the layers: a second call adds, replaces or is an error. And the types that users
//! write.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode, request::Parts};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, time::Instant};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{
    AcceptThenClose, AllowHost, AllowOrigin, BoxVerifier, Check, Claims, ConfigError,
    ConnectionLimit, Drain, GuardLayer, Handshake, OriginCheckLayer, PendingUpgrade, ProblemJson,
    Rejection, RejectionKind, Respond, ResponderLayer, Sessions, StaticTokens, Subprotocols, Token,
    TokenCheckLayer, TokenPolicy, Verified, VerifyToken, VersionCheckLayer, check_fn, response_fn,
    test_util,
    token::jwt::{JwtAlgorithm, JwtKey, JwtKeys, JwtVerifier},
};

use crate::{
    common::{Raw, handshake},
    decisions::bearer,
    drain::behind,
    limit::{call, code, guard},
};

type App = tower::util::BoxCloneSyncService<Request<()>, Response<()>, Infallible>;

fn tokens() -> StaticTokens<&'static str> {
    StaticTokens::new([("s3cr3t", "alice")]).unwrap()
}

fn policy() -> TokenPolicy<&'static str> {
    TokenPolicy::bearer(tokens())
}

fn valid() -> Raw {
    bearer("s3cr3t")
}

fn origins() -> OriginCheckLayer {
    OriginCheckLayer::new(AllowOrigin::same_origin())
}

/// An app behind each kind of layer, with the same settings on it.
macro_rules! behind_each {
    (|$layer:ident| $set:expr) => {
        [
            ("GuardLayer", behind((|$layer: GuardLayer| $set)(guard()))),
            ("GuardLayer::respond", {
                behind((|$layer: GuardLayer<_, Respond>| $set)(guard().respond()))
            }),
            ("VersionCheckLayer", {
                behind((|$layer: VersionCheckLayer| $set)(VersionCheckLayer::new()))
            }),
            ("OriginCheckLayer", behind((|$layer: OriginCheckLayer| $set)(origins()))),
            ("TokenCheckLayer", {
                behind((|$layer: TokenCheckLayer| $set)(TokenCheckLayer::new(policy())))
            }),
            ("ResponderLayer", behind((|$layer: ResponderLayer| $set)(ResponderLayer::new()))),
        ]
    };
}

#[tokio::test]
async fn second_limit_applies_beside_the_first() {
    let key = |request: &Parts| request.headers.get("x-key").cloned();
    for total_is_first in [true, false] {
        let total = ConnectionLimit::total(2).unwrap();
        let per_key = Sessions::per_key(1, key).unwrap();
        let larger = ConnectionLimit::total(3).unwrap();
        for (name, app) in behind_each!(|layer| {
            if total_is_first {
                layer.limit(total.clone()).limit(larger.clone()).sessions(&per_key)
            } else {
                layer.sessions(&per_key).limit(larger.clone()).limit(total.clone())
            }
        }) {
            let mut open = Vec::new();
            // The total limit is checked first, so that no session is evicted in vain.
            let both = "over-capacity";
            for (key, expected) in [
                ("a", None),
                ("a", Some("too-many-connections")),
                ("b", None),
                ("c", Some("over-capacity")),
                ("b", Some(both)),
            ] {
                let response = call(&app, valid().and("X-Key", key).upgradable()).await;
                assert_eq!(code(&response), expected, "{name} {key} {total_is_first}");
                open.push(response);
            }
            assert_eq!((total.connections(), per_key.connections()), (2, 2), "{name}");
            drop(open);
            assert_eq!((total.connections(), per_key.connections()), (0, 0), "{name}");
        }
    }
}

#[tokio::test]
async fn second_list_of_hosts_adds_hosts() {
    let [a, b] = [["a.example", "a2.example"], ["b.example", "b2.example"]]
        .map(|list| AllowHost::list(list).unwrap());
    for (name, app) in [
        ("guard", behind(guard().allow_host(a.clone()).allow_host(b.clone()))),
        ("origin check", behind(origins().allow_host(a).allow_host(b))),
    ] {
        for (host, expected) in [
            ("a.example", None),
            ("a2.example", None),
            ("b.example", None),
            ("b2.example", None),
            ("c.example", Some("host-not-allowed")),
        ] {
            let raw = handshake().with("Host", host).with("Origin", format!("https://{host}"));
            assert_eq!(code(&call(&app, raw.request()).await), expected, "{name} {host}");
        }
    }
}

#[tokio::test]
async fn second_check_runs_after_the_first() {
    let runs = Arc::<Mutex<Vec<&str>>>::default();
    let check = |name: &'static str| {
        let runs = Arc::clone(&runs);
        check_fn(move |handshake: &mut Handshake<'_>| {
            runs.lock().unwrap().push(name);
            match handshake.headers().contains_key(name) {
                true => Err(Rejection::custom(name, StatusCode::FORBIDDEN)),
                false => Ok(()),
            }
        })
    };
    let app = behind(guard().check(check("a")).check(check("b")));
    for (raw, ran, expected) in [
        (handshake(), &["a", "b"][..], None),
        (handshake().and("b", ""), &["a", "b"], Some("b")),
        (handshake().and("a", "").and("b", ""), &["a"], Some("a")),
    ] {
        assert_eq!(code(&call(&app, raw.request()).await), expected, "{raw:?}");
        assert_eq!(mem::take(&mut *runs.lock().unwrap()), ran, "{raw:?}");
    }
}

#[tokio::test]
async fn second_drain_counts_and_rejects_beside_the_first() {
    for starts in 0..2 {
        let names = behind_each!(|layer| layer).map(|(name, _)| name);
        for (i, name) in names.into_iter().enumerate() {
            let drains = [Drain::new(), Drain::new()];
            let count = || [drains[0].connections(), drains[1].connections()];
            let apps = behind_each!(|layer| layer.drain(&drains[0]).drain(&drains[1]));
            let app = &apps[i].1;
            let open = call(app, valid().upgradable()).await;
            assert_eq!((code(&open), count()), (None, [1, 1]), "{name}");
            drop(open);
            assert_eq!(count(), [0, 0], "{name}");
            drains[starts].start();
            // No other check runs.
            for raw in [valid(), valid().with("Sec-WebSocket-Key", "short")] {
                let rejected = call(app, raw.upgradable()).await;
                assert_eq!(code(&rejected), Some("shutting-down"), "{name} {starts} {raw:?}");
            }
            assert_eq!(count(), [0, 0], "{name}");
        }
    }
}

#[tokio::test]
async fn second_token_policy_is_an_error_and_the_first_one_stays() {
    let other = TokenPolicy::bearer(StaticTokens::new([("tr0ub4dor", 7)]).unwrap());
    let guard = guard().token(policy()).unwrap();
    let error = guard.clone().token(other).unwrap_err();
    assert!(error.to_string().contains("`TokenPolicy::or`"), "{error}");
    let app = behind(guard);
    for (token, expected) in [("s3cr3t", None), ("tr0ub4dor", Some("token-invalid"))] {
        assert_eq!(code(&call(&app, bearer(token).request()).await), expected, "{token}");
    }
    assert_eq!(code(&call(&app, handshake().request()).await), Some("token-missing"));
}

fn named(name: &'static str) -> impl Fn(&Rejection, &Parts, Response<()>) -> Response<()> {
    response_fn(move |_, _, mut prepared| {
        prepared.headers_mut().insert("x-by", HeaderValue::from_static(name));
        prepared
    })
}

#[tokio::test]
async fn later_reject_with_replaces_an_earlier_one() {
    for (name, app) in
        behind_each!(|layer| layer.reject_with(named("first")).reject_with(named("second")))
    {
        let raw = valid().with("Sec-WebSocket-Version", "8");
        let response = call(&app, raw.upgradable()).await;
        let by = response.headers().get_all("x-by").iter();
        let by = by.map(|name| name.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((code(&response), by), (Some("version-unsupported"), vec!["second"]), "{name}");
    }
}

#[tokio::test]
async fn later_subprotocols_replace_earlier_ones() {
    let list = |name| Subprotocols::list([name]).unwrap();
    let (v1, v2) = (list("v1"), list("v2"));
    let (v1, v2) = (|| v1.clone(), || v2.clone());
    let token_check = TokenCheckLayer::new(policy());
    for (name, app) in [
        ("guard", behind(guard().respond().subprotocols(v1()).subprotocols(v2()))),
        (
            "guard, before `respond`",
            behind(guard().subprotocols(v1()).subprotocols(v2()).respond()),
        ),
        ("responder", behind(ResponderLayer::new().subprotocols(v1()).subprotocols(v2()))),
        ("token check", {
            let layer = token_check.subprotocols(v1()).subprotocols(v2());
            behind(ServiceBuilder::new().layer(layer).layer(ResponderLayer::new()).into_inner())
        }),
    ] {
        for (offered, expected) in [("v1, v2", Some("v2")), ("v2", Some("v2")), ("v1", None)] {
            let raw = valid().and("Sec-WebSocket-Protocol", offered);
            let response = call(&app, raw.upgradable()).await;
            let named = response.headers().get("sec-websocket-protocol");
            assert_eq!(named.map(|value| value.to_str().unwrap()), expected, "{name} {offered}");
            let rejected = expected.is_none().then_some("subprotocol-unsupported");
            assert_eq!(code(&response), rejected, "{name} {offered}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn later_check_timeout_replaces_an_earlier_one() {
    let hangs = TokenPolicy::bearer(async |_: Token| {
        std::future::pending::<Result<Verified<()>, Rejection>>().await
    });
    let seconds = Duration::from_secs;
    let layer = guard().token(hangs.clone()).unwrap();
    let layer = layer.check_timeout(seconds(3)).unwrap().check_timeout(seconds(7)).unwrap();
    let alone = TokenCheckLayer::new(hangs).check_timeout(seconds(7)).unwrap();
    for (app, expected) in
        [(behind(layer), 7), (behind(alone.check_timeout(seconds(3)).unwrap()), 3)]
    {
        let start = Instant::now();
        assert_eq!(code(&call(&app, valid().request()).await), Some("verifier-timeout"));
        assert_eq!(start.elapsed(), seconds(expected));
    }
}

#[tokio::test]
async fn later_accept_then_close_replaces_an_earlier_one() {
    let closing = |code| AcceptThenClose::new().close_code(StatusCode::UNAUTHORIZED, code).unwrap();
    let guard = guard().token(policy()).unwrap();
    let guard = guard.accept_then_close(closing(4001)).accept_then_close(closing(4002));
    let alone = TokenCheckLayer::new(policy()).accept_then_close(closing(4001));
    for app in [behind(guard), behind(alone.accept_then_close(closing(4002)))] {
        let (request, mut client) = test_util::upgradable(handshake().request()).await;
        assert_eq!(call(&app, request).await.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut frame = [0; 4];
        client.read_exact(&mut frame).await.unwrap();
        assert_eq!((frame[0], u16::from_be_bytes([frame[2], frame[3]])), (0x88, 4002));
    }
}

// Types

/// What an application may keep: the layer has one type, whatever its policies are.
#[derive(Clone)]
struct Configured {
    guard: GuardLayer,
    problems: GuardLayer<ProblemJson, Respond>,
}

/// Neither it nor the other parts below are `Clone`.
#[derive(Default)]
struct CountsCalls(Mutex<usize>);

impl CountsCalls {
    fn count(&self) {
        *self.0.lock().unwrap() += 1;
    }
}

impl Check for CountsCalls {
    fn check(&self, _: &mut Handshake<'_>) -> Result<(), Rejection> {
        self.count();
        Ok(())
    }
}

impl VerifyToken for CountsCalls {
    type Claims = ();

    async fn verify(&self, token: Token, _: &Parts) -> Result<Verified<()>, Rejection> {
        self.count();
        match token.expose() {
            "s3cr3t" => Ok(().into()),
            _ => Err(RejectionKind::TokenInvalid.into()),
        }
    }
}

#[tokio::test]
async fn guard_layer_has_one_type_whatever_its_policies_are() {
    let limit = ConnectionLimit::total(9).unwrap();
    let not_banned = check_fn(|handshake| match handshake.headers().contains_key("x-banned") {
        true => Err(Rejection::custom("banned", StatusCode::FORBIDDEN)),
        false => Ok(()),
    });
    let guard = guard().check(not_banned).check(CountsCalls::default());
    let guard = guard.token(policy()).unwrap().limit(limit);
    let problems = guard.clone().reject_with(ProblemJson::new()).respond();
    let Configured { guard, problems } = Configured { guard, problems };
    let accept = service_fn(async |request: Request<()>| {
        drop(request.extensions().get::<PendingUpgrade>().map(PendingUpgrade::accept));
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let banned = || valid().and("X-Banned", "").upgradable();
    assert_eq!(code(&call(&behind(guard), banned()).await), Some("banned"));
    let service = problems.layer(accept);
    let rejected = service.clone().oneshot(banned()).await.unwrap();
    assert_eq!(code(&rejected), Some("banned"));
    assert!(rejected.body().contains(r#""code":"banned""#), "{}", rejected.body());
    assert_eq!(service.oneshot(valid().upgradable()).await.unwrap().status(), 101);
}

#[tokio::test]
async fn guard_layer_is_clone_with_parts_that_are_not() {
    let responses = CountsCalls::default();
    let respond = response_fn(move |_, _, prepared: Response<()>| {
        responses.count();
        let count = *responses.0.lock().unwrap();
        prepared.map(|()| count)
    });
    let guard = guard()
        .check(CountsCalls::default())
        .token(TokenPolicy::bearer(CountsCalls::default()))
        .unwrap()
        .reject_with(respond);
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(usize::MAX)));
    // The clones share their parts.
    for (layer, bodies) in [(guard.clone(), [usize::MAX, 1]), (guard, [usize::MAX, 2])] {
        let service = layer.layer(inner);
        for (raw, body) in [valid(), bearer("guess")].into_iter().zip(bodies) {
            assert_eq!(*service.clone().oneshot(raw.request()).await.unwrap().body(), body);
        }
    }
}

/// A verifier from a configuration.
fn configured(config: &str) -> Result<BoxVerifier<String>, ConfigError> {
    Ok(match config.split_once(' ') {
        Some(("static", secret)) => {
            StaticTokens::new([(secret, "a service".to_owned())]).unwrap().boxed()
        }
        Some(("hmac", secret)) => jwt(secret)?.boxed(),
        _ => (async |token: Token| Ok(Verified::new(format!("user {}", token.expose())))).boxed(),
    })
}

fn jwt(secret: &str) -> Result<impl VerifyToken<Claims = String> + use<>, ConfigError> {
    let key = JwtKey::hmac(JwtAlgorithm::HS256, secret.as_bytes())?;
    let verifier = JwtVerifier::<Value>::new(JwtKeys::new([key]));
    Ok(verifier.map_claims(|claims| claims["sub"].as_str().unwrap().to_owned()))
}

const JWT_SECRET: &str = "7q!Zx9@Wv3%Kj8$Rt5&Np2*Hm6~Bd4=Y";

fn signed() -> String {
    let claims = json!({ "exp": 4_102_444_800_u64, "sub": "alice" });
    let key = EncodingKey::from_secret(JWT_SECRET.as_bytes()).unwrap();
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

#[tokio::test]
async fn verifier_may_be_chosen_at_run_time() {
    let inner = service_fn(async |request: Request<()>| {
        let Claims(user) = request.extensions().get::<Claims<String>>().unwrap();
        Ok::<_, Infallible>(Response::new(user.clone()))
    });
    for (config, token, user) in [
        ("static s3cr3t", "s3cr3t", Some("a service")),
        ("static s3cr3t", "guess", None),
        (&format!("hmac {JWT_SECRET}"), &signed(), Some("alice")),
        (&format!("hmac {JWT_SECRET}"), "s3cr3t", None),
        ("remote", "bob", Some("user bob")),
    ] {
        let policy = TokenPolicy::bearer(configured(config).unwrap());
        let service = guard()
            .token(policy)
            .unwrap()
            .reject_with(response_fn(|_, _, prepared| prepared.map(|()| String::new())));
        let response = service.layer(inner).oneshot(bearer(token).request()).await.unwrap();
        assert_eq!(response.body(), user.unwrap_or(""), "{config}");
        assert_eq!(code(&response), user.is_none().then_some("token-invalid"), "{config}");
    }
}

// Clones of the inner service

/// Counts its clones, and panics if this very instance was not ready when called.
struct Counted {
    ready: bool,
    clones: Arc<AtomicUsize>,
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, SeqCst);
        Self { ready: false, clones: Arc::clone(&self.clones) }
    }
}

impl Service<Request<()>> for Counted {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(mem::take(&mut self.ready), "called without being ready");
        ready(Ok(Response::new(())))
    }
}

#[tokio::test]
async fn inner_service_is_cloned_once_for_a_verifier_that_waits_and_never_for_another() {
    let known = || StaticTokens::new([("s3cr3t", "alice".to_owned())]).unwrap();
    let jwt = || jwt(JWT_SECRET).unwrap();
    let waits = || {
        async |token: Token| match token.expose() {
            "s3cr3t" | "other" => Ok(Verified::new("alice".to_owned())),
            _ => Err(RejectionKind::TokenInvalid.into()),
        }
    };
    let upper = |name: String| name.to_uppercase();
    let all =
        || known().or(jwt()).expiring(|_| None).require(|name| name == "alice").map_claims(upper);
    let signed = signed();
    // A verifier, a token that it knows, and the clones for that token and for an unknown one.
    let cases: [(&str, TokenPolicy<String>, &str, [usize; 2]); 19] = [
        ("static", TokenPolicy::bearer(known()), "s3cr3t", [0, 0]),
        ("jwt", TokenPolicy::bearer(jwt()), &signed, [0, 0]),
        ("arc", TokenPolicy::bearer(Arc::new(known())), "s3cr3t", [0, 0]),
        ("boxed static", TokenPolicy::bearer(known().boxed()), "s3cr3t", [0, 0]),
        ("boxed jwt", TokenPolicy::bearer(jwt().boxed()), &signed, [0, 0]),
        ("first of two", TokenPolicy::bearer(known().or(jwt())), "s3cr3t", [0, 0]),
        ("second of two", TokenPolicy::bearer(known().or(jwt())), &signed, [0, 0]),
        ("`or` of boxed", TokenPolicy::bearer(known().boxed().or(jwt().boxed())), &signed, [0, 0]),
        ("boxed `or`", TokenPolicy::bearer(known().or(jwt()).boxed()), &signed, [0, 0]),
        ("`require`", TokenPolicy::bearer(jwt().require(|name| name == "alice")), &signed, [0, 0]),
        ("`map_claims`", TokenPolicy::bearer(known().map_claims(upper)), "s3cr3t", [0, 0]),
        ("`expiring`", TokenPolicy::bearer(known().expiring(|_| None)), "s3cr3t", [0, 0]),
        ("all of them", TokenPolicy::bearer(all()), &signed, [0, 0]),
        ("all of them, boxed", TokenPolicy::bearer(all().boxed()), &signed, [0, 0]),
        ("waits", TokenPolicy::bearer(waits()), "s3cr3t", [1, 1]),
        ("boxed, waits", TokenPolicy::bearer(waits().boxed()), "s3cr3t", [1, 1]),
        ("second may wait", TokenPolicy::bearer(known().or(waits())), "s3cr3t", [0, 1]),
        ("second waits", TokenPolicy::bearer(known().or(waits())), "other", [1, 1]),
        ("first waits", TokenPolicy::bearer(waits().or(known())), "s3cr3t", [1, 1]),
    ];
    for (name, policy, known, expected) in cases {
        for ((token, rejected), expected) in
            [(known, None), ("guess", Some("token-invalid"))].into_iter().zip(expected)
        {
            let clones = Arc::<AtomicUsize>::default();
            let inner = Counted { ready: false, clones: Arc::clone(&clones) };
            let mut service = guard().token(policy.clone()).unwrap().layer(inner);
            for handshakes in 1..=3 {
                let service = service.ready().await.unwrap();
                let response = service.call(bearer(token).request()).await.unwrap();
                assert_eq!(code(&response), rejected, "{name}");
                assert_eq!(clones.load(SeqCst), expected * handshakes, "{name} {token}");
            }
        }
    }
}

// Order

#[tokio::test]
async fn separate_layers_compose_in_any_order() {
    fn add(layer: usize, app: App) -> App {
        let builder = ServiceBuilder::new();
        match layer {
            0 => App::new(builder.layer(VersionCheckLayer::new()).service(app)),
            1 => App::new(builder.layer(origins()).service(app)),
            2 => App::new(builder.layer(TokenCheckLayer::new(policy())).service(app)),
            _ => App::new(builder.layer(ResponderLayer::new()).service(app)),
        }
    }
    let inner = service_fn(async |request: Request<()>| {
        let Claims(user) = request.extensions().get::<Claims<&str>>().unwrap();
        request.extensions().get::<PendingUpgrade>().unwrap().on_upgrade(async |_| {});
        Ok(Response::builder().header("x-user", *user).body(()).unwrap())
    });
    let orders = (0..256).map(|i| [i / 64, i / 16 % 4, i / 4 % 4, i % 4]);
    let orders =
        orders.filter(|order| (0..4).all(|layer| order.contains(&layer))).collect::<Vec<_>>();
    assert_eq!(orders.len(), 24);
    for order in orders {
        let app = order.iter().rev().fold(App::new(inner), |app, &layer| add(layer, app));
        for (raw, status, expected) in [
            (valid(), 101, None),
            (valid().with("Sec-WebSocket-Version", "8"), 426, Some("version-unsupported")),
            (valid().with("Origin", "https://evil.example"), 403, Some("origin-not-allowed")),
            (handshake(), 401, Some("token-missing")),
            (bearer("guess"), 401, Some("token-invalid")),
        ] {
            let response = call(&app, raw.upgradable()).await;
            assert_eq!(
                (response.status().as_u16(), code(&response)),
                (status, expected),
                "{order:?} {raw:?}"
            );
            let user = response.headers().get("x-user");
            assert_eq!(user.is_some_and(|user| user == "alice"), status == 101, "{order:?}");
        }
    }
}
