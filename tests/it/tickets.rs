//! One-time tickets: issue, redeem, expire, and the stores.

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    error::Error,
    future::{Ready, ready},
    io,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::{Extensions, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn, util::ServiceFn};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Claims, GuardLayer, Origin, ProblemJson, Redis, Rejection,
    RejectionKind, Replaceable, ResponderLayer, StaticTokens, Subprotocols, Token, TokenCheckLayer,
    TokenPolicy, TokenSource, Validity, VerifyToken, check_fn,
    token::ticket::{
        MemoryTicketStore, Ticket, TicketIssuer, TicketKey, TicketStore, TicketVerifier,
    },
};

use crate::common::{self, Body, ORIGIN, Raw, handshake, send, serve};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct User {
    pub(crate) name: String,
    rooms: Vec<u32>,
    session_ends: Option<SystemTime>,
}

pub(crate) fn user(name: &str) -> User {
    User { name: name.into(), rooms: vec![1, 2], session_ends: None }
}

pub(crate) fn tickets<S: TicketStore + Clone>(
    store: &S,
) -> (TicketIssuer<S>, TicketVerifier<User, S>) {
    (TicketIssuer::new(store.clone()), TicketVerifier::new(store.clone()))
}

pub(crate) async fn issue_to<S: TicketStore>(issuer: &TicketIssuer<S>, origin: &str) -> Ticket {
    issuer
        .issue_to_origin(&user("alice"), &Origin::parse(origin.as_bytes()).unwrap())
        .await
        .unwrap()
}

pub(crate) fn query() -> TokenSource {
    TokenSource::query("ticket").unwrap()
}

pub(crate) fn check(verifier: impl VerifyToken) -> TokenCheckLayer {
    let sources = [TokenSource::authorization(), query()];
    TokenCheckLayer::new(TokenPolicy::from_sources(sources, verifier).unwrap())
}

pub(crate) fn with(ticket: &str) -> Raw {
    handshake().target(&format!("/ws?ticket={ticket}"))
}

pub(crate) type Inner =
    ServiceFn<fn(Request<()>) -> Ready<Result<Response<Extensions>, Infallible>>>;

/// Returns the extensions that the inner service sees, or the rejection.
pub(crate) async fn knock<L>(layer: &L, request: Request<()>) -> Result<Extensions, Rejection>
where
    L: Layer<
            Inner,
            Service: Service<Request<()>, Response = Response<Extensions>, Error = Infallible>,
        >,
{
    let inner: Inner =
        service_fn(|request| ready(Ok(Response::new(request.into_parts().0.extensions))));
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    match response.extensions().get::<Rejection>() {
        Some(rejection) => {
            assert_eq!(response.status(), rejection.kind().status());
            Err(rejection.clone())
        }
        None => Ok(response.into_body()),
    }
}

/// Returns the name of the user, or the code of the rejection.
pub(crate) async fn outcome<L>(layer: &L, raw: &Raw) -> String
where
    L: Layer<
            Inner,
            Service: Service<Request<()>, Response = Response<Extensions>, Error = Infallible>,
        >,
{
    match knock(layer, raw.request()).await {
        Ok(extensions) => extensions.get::<Claims<User>>().unwrap().0.name.clone(),
        Err(rejection) => rejection.kind().code().to_owned(),
    }
}

/// A store that records calls to the one behind it, and may replace the lifetime.
#[derive(Clone, Default)]
struct Watched {
    store: MemoryTicketStore,
    instead: Option<Duration>,
    lifetimes: Arc<Mutex<Vec<Duration>>>,
    asked: Arc<AtomicUsize>,
}

impl TicketStore for Watched {
    type Error = Infallible;

    async fn insert(
        &self,
        key: TicketKey,
        record: Vec<u8>,
        lifetime: Duration,
    ) -> Result<(), Infallible> {
        self.lifetimes.lock().unwrap().push(lifetime);
        self.store.insert(key, record, self.instead.unwrap_or(lifetime)).await
    }

    async fn consume(&self, key: TicketKey) -> Result<Option<Vec<u8>>, Infallible> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.store.consume(key).await
    }

    async fn count(
        &self,
        subject: TicketKey,
        max: u32,
        lifetime: Duration,
    ) -> Result<Option<Duration>, Infallible> {
        self.store.count(subject, max, self.instead.unwrap_or(lifetime)).await
    }
}

/// A store that always fails.
#[derive(Clone, Debug)]
struct Down;

impl Down {
    const ERROR: &str = "no connection to 10.0.0.1";
}

impl TicketStore for Down {
    type Error = io::Error;

    async fn insert(&self, _: TicketKey, _: Vec<u8>, _: Duration) -> io::Result<()> {
        Err(io::Error::other(Self::ERROR))
    }

    async fn consume(&self, _: TicketKey) -> io::Result<Option<Vec<u8>>> {
        Err(io::Error::other(Self::ERROR))
    }

    async fn count(&self, _: TicketKey, _: u32, _: Duration) -> io::Result<Option<Duration>> {
        Err(io::Error::other(Self::ERROR))
    }
}

type Mangle = fn(Vec<u8>) -> Vec<u8>;

/// A store that returns a changed record.
#[derive(Clone)]
struct Mangling(MemoryTicketStore, Mangle);

impl TicketStore for Mangling {
    type Error = Infallible;

    async fn insert(
        &self,
        key: TicketKey,
        record: Vec<u8>,
        lifetime: Duration,
    ) -> Result<(), Infallible> {
        self.0.insert(key, record, lifetime).await
    }

    async fn consume(&self, key: TicketKey) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.consume(key).await?.map(self.1))
    }

    async fn count(
        &self,
        subject: TicketKey,
        max: u32,
        lifetime: Duration,
    ) -> Result<Option<Duration>, Infallible> {
        self.0.count(subject, max, lifetime).await
    }
}

#[tokio::test]
async fn ticket_is_random_and_needs_no_escaping() {
    let (issuer, _) = tickets(&MemoryTicketStore::default());
    let mut seen = HashSet::new();
    for _ in 0..1000 {
        let ticket = issuer.issue(&user("alice")).await.unwrap();
        let secret = ticket.expose().to_owned();
        assert_eq!(secret.len(), 43);
        assert!(
            secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
            "{secret}"
        );
        assert!(seen.insert(secret));
    }
}

#[tokio::test]
async fn ticket_is_redeemed_once() {
    let (issuer, verifier) = tickets(&MemoryTicketStore::default());
    let layer = check(verifier);
    // 0 is HTTP/1.1, 1 is HTTP/2.
    for (first, second) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let ticket = issuer.issue(&user("alice")).await.unwrap();
        let over = |version: usize| with(ticket.expose()).over_both()[version].clone();
        let extensions = knock(&layer, over(first)).await.unwrap();
        assert_eq!(extensions.get::<Claims<User>>(), Some(&Claims(user("alice"))));
        assert!(extensions.get::<Validity>().is_none());

        let rejected = knock(&layer, over(second)).await.unwrap_err();
        assert_eq!(
            (rejected.kind(), rejected.kind().status().as_u16()),
            (RejectionKind::TokenInvalid, 401)
        );
    }
}

#[tokio::test]
async fn debug_output_and_rejection_hide_the_ticket() {
    let store = MemoryTicketStore::default();
    let (issuer, verifier) = tickets(&store);
    let ticket = issuer.issue(&"alice").await.unwrap();
    let layer = check(verifier.clone().or(verifier.clone()));
    let mut shown = vec![
        format!("{ticket:?}"),
        format!("{store:?}"),
        format!("{issuer:?}"),
        format!("{verifier:?}"),
        format!("{layer:?}"),
    ];
    for raw in [
        with(ticket.expose()).with("Upgrade", "x"),
        with(ticket.expose()).and("Authorization", "Bearer x"),
    ] {
        let rejected = knock(&layer, raw.request()).await.unwrap_err();
        shown.push(format!("{rejected} {rejected:?}"));
    }
    // The store holds the claims as bytes.
    for hidden in [ticket.expose(), "alice", "97, 108, 105, 99, 101"] {
        assert!(shown.iter().all(|shown| !shown.contains(hidden)), "{hidden} {shown:?}");
    }
}

#[tokio::test]
async fn ticket_is_not_redeemed_by_a_handshake_rejected_earlier() {
    let (issuer, verifier) = tickets(&MemoryTicketStore::default());
    let layer = GuardLayer::new(AllowOrigin::same_origin())
        .allow_host(AllowHost::list([common::HOST]).unwrap())
        .check(check_fn(|handshake| match handshake.headers().contains_key("x-banned") {
            true => Err(Rejection::custom("banned", StatusCode::FORBIDDEN)),
            false => Ok(()),
        }))
        .subprotocols(Subprotocols::list(["chat"]).unwrap())
        .token(
            TokenPolicy::from_sources([TokenSource::authorization(), query()], verifier).unwrap(),
        )
        .unwrap();
    let ticket = issuer.issue(&user("alice")).await.unwrap();
    let valid = with(ticket.expose());
    for (rejected, code) in [
        (valid.clone().method("POST"), "method-not-allowed"),
        (valid.clone().without("Connection"), "connection-missing"),
        (valid.clone().without("Sec-WebSocket-Key"), "key-missing"),
        (valid.clone().with("Sec-WebSocket-Version", "8"), "version-unsupported"),
        (valid.clone().and("Content-Length", "1"), "body-present"),
        (valid.clone().with("Host", "evil.example"), "host-not-allowed"),
        (valid.clone().with("Origin", "https://evil.example"), "origin-not-allowed"),
        (valid.clone().without("Origin"), "origin-missing"),
        (valid.clone().and("Sec-Fetch-Site", "cross-site"), "origin-not-allowed"),
        (valid.clone().and("X-Banned", "1"), "banned"),
        (valid.clone().and("Sec-WebSocket-Protocol", "mail"), "subprotocol-unsupported"),
        (valid.clone().and("Authorization", "Bearer x"), "token-ambiguous"),
        (with(&format!("{}&ticket=x", ticket.expose())), "token-ambiguous"),
    ] {
        assert_eq!(outcome(&layer, &rejected).await, code);
    }
    // Twice the same ticket is one, and is redeemed once.
    let twice = with(&format!("{0}&ticket={0}", ticket.expose()));
    let (head, ()) = twice.request::<()>().into_parts();
    assert!(head.uri.query().unwrap().contains("&ticket="));
    let response = knock(&layer, twice.request()).await;
    assert!(response.is_ok());
    assert_eq!(outcome(&layer, &valid).await, "token-invalid");
}

#[tokio::test]
async fn ticket_is_redeemed_by_a_handshake_rejected_later() {
    let (issuer, verifier) = tickets(&MemoryTicketStore::default());
    let raw = with(issue_to(&issuer, "https://app.example.com").await.expose());
    let layer = check(verifier.clone());
    let rejected = knock(&layer, raw.request()).await.unwrap_err();
    assert_eq!(rejected.kind(), RejectionKind::TokenInvalid);
    assert!(rejected.source().unwrap().to_string().contains("https://app.example.com"));
    assert_eq!(
        outcome(&layer, &raw.with("Origin", "https://app.example.com")).await,
        "token-invalid"
    );

    let raw = with(issuer.issue(&user("alice")).await.unwrap().expose());
    let admins = verifier.clone().require(|user| user.name == "admin");
    assert_eq!(outcome(&check(admins.clone()), &raw).await, "token-forbidden");
    assert_eq!(outcome(&layer, &raw).await, "token-invalid");
    let raw = with(issuer.issue(&user("admin")).await.unwrap().expose());
    assert_eq!(outcome(&check(admins), &raw).await, "admin");
}

#[tokio::test]
async fn ticket_bound_to_an_origin_is_rejected_from_others() {
    let (issuer, verifier) = tickets(&MemoryTicketStore::default());
    let layer = GuardLayer::new(AllowOrigin::predicate(|_, _| true).allow_missing().allow_null());
    let layer =
        layer.token(TokenPolicy::from_sources([query()], verifier.clone()).unwrap()).unwrap();
    let rejected = "token-invalid";
    for (bound, origin, expected) in [
        ("https://app.example.com", Some("https://app.example.com"), "alice"),
        ("https://app.example.com", Some("https://app.example.com:443"), "alice"),
        ("https://app.example.com:443", Some("https://app.example.com"), "alice"),
        ("http://app.example.com:80", Some("http://app.example.com"), "alice"),
        ("http://localhost:5173", Some("http://localhost:5173"), "alice"),
        ("https://[2001:db8::1]", Some("https://[2001:db8::1]:443"), "alice"),
        ("chrome-extension://abcdef", Some("chrome-extension://abcdef"), "alice"),
        ("https://app.example.com", Some("http://app.example.com"), rejected),
        ("http://app.example.com", Some("https://app.example.com"), rejected),
        ("https://app.example.com", Some("http://app.example.com:443"), rejected),
        ("https://app.example.com", Some("https://app.example.com:80"), rejected),
        ("https://app.example.com", Some("https://app.example.com:8443"), rejected),
        ("http://localhost:5173", Some("http://localhost"), rejected),
        ("https://app.example.com", Some("https://example.com"), rejected),
        ("https://app.example.com", Some("https://x.app.example.com"), rejected),
        ("https://app.example.com", Some("https://app.example.com.evil.example"), rejected),
        ("chrome-extension://abcdef", Some("moz-extension://abcdef"), rejected),
        ("https://app.example.com", Some("null"), rejected),
        ("https://app.example.com", None, rejected),
    ] {
        let raw = with(issue_to(&issuer, bound).await.expose()).without("Origin");
        let raw = origin.into_iter().fold(raw, |raw, origin| raw.and("Origin", origin));
        assert_eq!(outcome(&layer, &raw).await, expected, "{bound} {origin:?}");

        // A ticket without an origin is valid from all of them.
        let ticket = issuer.issue(&user("bob")).await.unwrap();
        assert_eq!(
            outcome(&layer, &raw.target(&format!("/ws?ticket={}", ticket.expose()))).await,
            "bob"
        );
    }

    // Without an origin check these reach the ticket.
    let (again, slash) =
        (handshake().and("Origin", ORIGIN), handshake().with("Origin", format!("{ORIGIN}/")));
    for (raw, expected) in [(handshake(), "alice"), (again, rejected), (slash, rejected)] {
        let raw = raw.target(&format!("/ws?ticket={}", issue_to(&issuer, ORIGIN).await.expose()));
        assert_eq!(outcome(&check(verifier.clone()), &raw).await, expected, "{raw:?}");
    }
}

#[tokio::test]
async fn ticket_lifetime_is_between_a_second_and_an_hour() {
    let store = Watched::default();
    let (issuer, _) = tickets(&store);
    assert_eq!(issuer.issue(&"alice").await.unwrap().lifetime(), Duration::from_secs(30));
    assert_eq!(store.lifetimes.lock().unwrap().pop(), Some(Duration::from_secs(30)));
    for (lifetime, possible) in [
        (Duration::ZERO, false),
        (Duration::from_nanos(999_999_999), false),
        (Duration::from_secs(1), true),
        (Duration::from_secs(3600), true),
        (Duration::new(3600, 1), false),
        (Duration::MAX, false),
    ] {
        let Ok(issuer) = issuer.clone().lifetime(lifetime) else {
            assert!(!possible, "{lifetime:?}");
            continue;
        };
        assert!(possible, "{lifetime:?}");
        assert_eq!(issuer.issue(&"alice").await.unwrap().lifetime(), lifetime);
        assert_eq!(store.lifetimes.lock().unwrap().pop(), Some(lifetime));
    }
}

#[tokio::test]
async fn expired_ticket_is_rejected() {
    for (lifetime, expected) in [(DAY, "alice"), (Duration::ZERO, "token-invalid")] {
        let (issuer, verifier) =
            tickets(&Watched { instead: Some(lifetime), ..Watched::default() });
        let ticket = issuer.issue(&user("alice")).await.unwrap();
        assert_eq!(outcome(&check(verifier), &with(ticket.expose())).await, expected);
    }
}

#[tokio::test]
async fn claims_may_expire_before_their_ticket() {
    let (issuer, verifier) = tickets(&MemoryTicketStore::default());
    let nobody = StaticTokens::<User>::new::<&str>([]).unwrap();
    let verifier = Arc::new(verifier.expiring(|user| user.session_ends))
        .map_claims(|user| user)
        .require(|_| true);
    let layer = check(nobody.clone().or(verifier).or(nobody));
    let now = SystemTime::now();
    for (session_ends, expected) in [
        (None, Ok(None)),
        (Some(now + DAY), Ok(Some(now + DAY))),
        (Some(now), Err("token-invalid")),
    ] {
        let ticket = issuer.issue(&User { session_ends, ..user("alice") }).await.unwrap();
        let known = knock(&layer, with(ticket.expose()).request()).await;
        let known = known.map(|extensions| {
            extensions.get::<Validity>().map(|validity| validity.expires_at().unwrap())
        });
        assert_eq!(known.map_err(|rejection| rejection.kind().code()), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ticket_is_redeemed_by_one_of_many_handshakes() {
    let (issuer, verifier) = tickets(&MemoryTicketStore::default());
    let inner = service_fn(async |_: Request<hyper::body::Incoming>| {
        Ok::<_, Infallible>(Response::new(Body::default()))
    });
    let guard = GuardLayer::new(AllowOrigin::same_origin());
    let stack = ServiceBuilder::new()
        .layer(guard.token(TokenPolicy::from_sources([query()], verifier).unwrap()).unwrap())
        .layer(ResponderLayer::on_upgraded(async |socket| drop(socket)));
    let address = serve(stack.service(inner)).await;

    let ticket = issuer.issue(&user("alice")).await.unwrap();
    let bytes = with(ticket.expose()).bytes();
    let handshakes = (0..200).map(|_| {
        let bytes = bytes.clone();
        async move { send(address, &bytes).await.status }
    });
    let mut statuses = handshakes.collect::<JoinSet<_>>().join_all().await;
    statuses.sort_unstable();
    assert_eq!((statuses.len(), statuses[0]), (200, 101));
    assert!(statuses[1..].iter().all(|status| *status == 401), "{statuses:?}");
}

#[tokio::test]
async fn memory_store_evicts_the_oldest_ticket() {
    let store = MemoryTicketStore::new(NonZeroUsize::new(10).unwrap());
    assert!(store.is_empty());
    let (issuer, verifier) = tickets(&store);
    let mut issued = Vec::new();
    for i in 1..=100 {
        issued.push(issuer.issue(&user("alice")).await.unwrap());
        assert_eq!((store.len(), store.is_empty()), (i.min(10), false));
    }
    let layer = check(verifier);
    for (i, ticket) in issued.iter().enumerate() {
        let expected = if i < 90 { "token-invalid" } else { "alice" };
        assert_eq!(outcome(&layer, &with(ticket.expose())).await, expected, "{i}");
    }
    assert!(store.is_empty());

    // A redeemed ticket makes room.
    for _ in 0..3 {
        let tickets = [
            issuer.issue(&user("alice")).await.unwrap(),
            issuer.issue(&user("bob")).await.unwrap(),
        ];
        for (ticket, name) in tickets.iter().zip(["alice", "bob"]) {
            assert_eq!(outcome(&layer, &with(ticket.expose())).await, name);
        }
    }
}

/// Three times the capacity; a million would take ten seconds without optimization.
#[tokio::test]
async fn memory_store_is_bounded() {
    let store = MemoryTicketStore::default();
    let (issuer, _) = tickets(&store);
    for i in 1..=101_000 {
        issuer.issue(&"alice").await.unwrap();
        assert_eq!(store.len(), i.min(100_000));
    }
}

#[tokio::test]
async fn memory_store_evicts_expired_tickets() {
    let store = MemoryTicketStore::default();
    let (expired, _) = tickets(&Watched {
        store: store.clone(),
        instead: Some(Duration::ZERO),
        ..Watched::default()
    });
    for _ in 0..10_000 {
        expired.issue(&user("alice")).await.unwrap();
        assert_eq!(store.len(), 1);
    }

    // Tickets that expire together are evicted two by two.
    let soon = Duration::from_millis(50);
    let (soon_expired, _) =
        tickets(&Watched { store: store.clone(), instead: Some(soon), ..Watched::default() });
    for _ in 0..1000 {
        soon_expired.issue(&user("alice")).await.unwrap();
    }
    tokio::time::sleep(soon).await;
    let (issuer, verifier) = tickets(&store);
    let mut issued = Vec::new();
    for _ in 0..500 {
        issued.push(issuer.issue(&user("alice")).await.unwrap());
    }
    assert_eq!(store.len(), 500);
    let layer = check(verifier);
    for ticket in issued {
        assert_eq!(outcome(&layer, &with(ticket.expose())).await, "alice");
    }
}

/// Issues until the quota is exhausted, and returns the number of tickets.
async fn exhaust<S: TicketStore>(issuer: &TicketIssuer<S>) -> usize {
    for issued in 0.. {
        if let Err(error) = issuer.issue(&user("alice")).await {
            let delay = error.retry_after().unwrap();
            assert!((1..=30).contains(&delay.as_secs()), "{delay:?}");
            assert_eq!(delay.subsec_nanos(), 0);
            assert!(error.source().is_none() && error.to_string().contains("quota"), "{error}");
            return issued;
        }
    }
    unreachable!()
}

#[tokio::test]
async fn quota_bounds_the_tickets_of_a_subject() {
    let store = MemoryTicketStore::default();
    let (issuer, verifier) = tickets(&store);
    for (subject, max, expected) in [
        ("alice", 3, 3),
        ("alice", 3, 0),
        ("bob", 1, 1),
        ("carol", 0, 0),
        ("", 2, 2),
        // A quota that changes counts what was issued before.
        ("alice", 5, 2),
        ("alice", 2, 0),
        ("bob", 1000, 999),
    ] {
        assert_eq!(exhaust(&issuer.quota(subject, max)).await, expected, "{subject} {max}");
    }
    // Another issuer on the store counts, too. One without a quota issues.
    assert_eq!(exhaust(&TicketIssuer::new(store.clone()).quota("alice", 5)).await, 0);
    assert_eq!(exhaust(&issuer.quota("bob", 1).quota("dave", 4)).await, 4);
    let ticket = issuer.issue(&user("alice")).await.unwrap();
    // A redeemed ticket counts.
    assert_eq!(outcome(&check(verifier), &with(ticket.expose())).await, "alice");
    assert_eq!(exhaust(&issuer.quota("alice", 5)).await, 0);

    // An origin changes nothing.
    let origin = Origin::parse(ORIGIN.as_bytes()).unwrap();
    let bound = issuer.quota("alice", 5).issue_to_origin(&user("alice"), &origin).await;
    assert!(bound.unwrap_err().retry_after().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_is_not_exceeded_by_concurrent_requests() {
    let issuer = TicketIssuer::new(MemoryTicketStore::default());
    let requests = (0..200).map(|_| {
        let issuer = issuer.quota("alice", 20);
        async move { issuer.issue(&"alice").await.is_ok() }
    });
    let issued = requests.collect::<JoinSet<_>>().join_all().await;
    assert_eq!(issued.into_iter().filter(|&issued| issued).count(), 20);
}

#[tokio::test]
async fn flood_of_one_subject_evicts_no_ticket_of_another() {
    for (quota, expected) in [(true, "bob"), (false, "token-invalid")] {
        let store = MemoryTicketStore::new(NonZeroUsize::new(100).unwrap());
        let (issuer, verifier) = tickets(&store);
        let of_subject = |subject: &str| match quota {
            true => issuer.quota(subject, 20),
            false => issuer.clone(),
        };
        let ticket = of_subject("bob").issue(&user("bob")).await.unwrap();
        for _ in 0..1000 {
            assert!(of_subject("alice").issue(&user("alice")).await.is_ok() || quota);
        }
        assert_eq!(outcome(&check(verifier), &with(ticket.expose())).await, expected);
    }
}

#[tokio::test]
async fn quota_renews_and_leaves_nothing_behind() {
    let store = MemoryTicketStore::new(NonZeroUsize::new(1000).unwrap());
    let counted = |store: &MemoryTicketStore| {
        let shown = format!("{store:?}");
        let count = shown.split("counted: ").nth(1).unwrap();
        count.split(',').next().unwrap().parse::<usize>().unwrap()
    };
    let soon = Duration::from_millis(50);
    let (brief, _) =
        tickets(&Watched { store: store.clone(), instead: Some(soon), ..Watched::default() });
    // No more is counted than the store has tickets.
    for i in 0..3000 {
        brief.quota(&i.to_string(), 1).issue(&user("alice")).await.unwrap();
        assert!(counted(&store) <= 1000);
    }
    tokio::time::sleep(soon).await;
    for i in 0..1000 {
        brief.quota(&i.to_string(), 1).issue(&user("alice")).await.unwrap();
    }
    tokio::time::sleep(soon).await;
    let (issuer, _) = tickets(&store);
    for _ in 0..1000 {
        issuer.quota("alice", 1).issue(&user("alice")).await.ok();
    }
    assert_eq!(counted(&store), 1);
}

#[tokio::test]
async fn store_error_is_no_quota() {
    let error = TicketIssuer::new(Down).quota("alice", 1).issue(&user("alice")).await.unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), Down::ERROR);
    assert!(error.retry_after().is_none());
}

#[tokio::test]
async fn store_error_rejects_and_is_shown_only_to_the_operator() {
    let (issuer, verifier) = tickets(&Down);
    let error = issuer.issue(&user("alice")).await.unwrap_err();
    assert!(error.to_string().contains("could not be issued"), "{error}");
    assert_eq!(error.source().unwrap().to_string(), Down::ERROR);
    assert!(!error.to_string().contains(Down::ERROR));

    let inner =
        service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
    let service = check(verifier).reject_with(ProblemJson::new()).layer(inner);
    let rejected = service.oneshot(with(&"A".repeat(43)).request()).await.unwrap();
    assert_eq!(rejected.status(), 503);
    assert!(rejected.body().contains(r#""code":"verifier-failed""#), "{rejected:?}");
    assert!(
        !rejected.body().contains("10.0.0.1")
            && !format!("{:?}", rejected.headers()).contains("10.0.0.1")
    );
    let rejection = rejected.extensions().get::<Rejection>().unwrap();
    assert_eq!(rejection.source().unwrap().to_string(), Down::ERROR);

    let unwritable = BTreeMap::from([((1, 2), 3)]);
    let error =
        TicketIssuer::new(MemoryTicketStore::default()).issue(&unwritable).await.unwrap_err();
    assert!(error.source().is_some());
}

#[tokio::test]
async fn store_that_returns_another_record_rejects() {
    let failed = "verifier-failed";
    let cases: [(Mangle, &str); 8] = [
        (|record| record, "alice"),
        (|_| Vec::new(), failed),
        (|_| b"alice".to_vec(), failed),
        (|_| b"null".to_vec(), failed),
        (|_| b"[[]]".to_vec(), failed),
        (|record| [&record[..], b"\xff"].concat(), failed),
        (|record| record.repeat(2), failed),
        (|record| record[..record.len() - 1].to_vec(), failed),
    ];
    for (i, (mangle, expected)) in cases.into_iter().enumerate() {
        let (issuer, verifier) = tickets(&Mangling(MemoryTicketStore::default(), mangle));
        for ticket in [issuer.issue(&user("alice")).await.unwrap(), issue_to(&issuer, ORIGIN).await]
        {
            assert_eq!(
                outcome(&check(verifier.clone()), &with(ticket.expose())).await,
                expected,
                "{i}"
            );
        }
    }

    // Claims of another type, put there by an application that shares the store.
    let (issuer, verifier) = tickets(&MemoryTicketStore::default());
    let ticket = issuer.issue(&"alice").await.unwrap();
    assert_eq!(outcome(&check(verifier), &with(ticket.expose())).await, failed);
}

#[tokio::test]
async fn store_is_asked_only_for_well_formed_tickets() {
    let store = Watched::default();
    let (issuer, verifier) = tickets(&store);
    let layer = check(verifier);
    let valid = issuer.issue(&user("alice")).await.unwrap();
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";
    for (ticket, asked) in [
        ("A".repeat(43), 1),
        ("A".repeat(42), 0),
        ("A".repeat(44), 0),
        ("A".repeat(86), 0),
        ("A".repeat(43) + "%3D", 0),
        ("A".repeat(42) + "B", 0),
        ("A".repeat(39) + "+AAA", 0),
        ("A".repeat(39) + "/AAA", 0),
        ("A".repeat(39) + ".AAA", 0),
        ("A".repeat(39) + "%20AAA", 0),
        ("%20".to_owned() + valid.expose(), 0),
        (jwt.to_owned(), 0),
        ("x".to_owned(), 0),
    ] {
        assert_eq!(outcome(&layer, &with(&ticket)).await, "token-invalid", "{ticket}");
        assert_eq!(store.asked.swap(0, Ordering::SeqCst), asked, "{ticket}");
    }
    assert_eq!(outcome(&layer, &with(valid.expose())).await, "alice");
}

#[tokio::test]
async fn redis_rejects_an_invalid_url_without_showing_it() {
    for (url, fix) in [
        ("", "redis://host:6379"),
        ("redis", "redis://host:6379"),
        (":hunter2@127.0.0.1", "redis://host:6379"),
        ("http://:hunter2@127.0.0.1", "redis://host:6379"),
        ("rediss://:hunter2@", "redis://host:6379"),
        ("redis://:hunter2@127.0.0.1:99999", "redis://host:6379"),
        ("redis://:hunter2@127.0.0.1:port", "redis://host:6379"),
        ("redis://:hunter2@127.0.0.1/first", "redis://host:6379"),
        ("redis://:hunter2@", "redis://host:6379"),
    ] {
        let error = Redis::new(url).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(fix) && !shown.contains("hunter2"), "{url}: {shown}");
    }
    for timeout in [Duration::ZERO, Duration::from_secs(61)] {
        assert!(Redis::new("redis://127.0.0.1").unwrap().timeout(timeout).is_err());
    }
}

#[tokio::test]
async fn wrapped_store_and_verifier_redeem_a_ticket_once() {
    let store = Arc::new(MemoryTicketStore::default());
    let (issuer, verifier) = tickets(&store);
    let (head, ()) = handshake().request().into_parts();
    let wrapped = Replaceable::new(verifier.clone().require(|_| true).map_claims(|user| user.name))
        .or(verifier.clone().boxed().map_claims(|user: User| user.name));
    let wrapped = Arc::new(wrapped);
    assert!(wrapped.is_one_time() && Arc::new(verifier).is_one_time());
    assert!(!StaticTokens::new([("s3cr3t", ())]).unwrap().boxed().is_one_time());

    let ticket = issuer.quota("alice", 1).issue(&user("alice")).await.unwrap();
    assert!(issuer.quota("alice", 1).issue(&user("alice")).await.is_err());
    let token = || Token::new(ticket.expose());
    assert_eq!(wrapped.verify(token(), &head).await.unwrap().claims(), "alice");
    assert!(wrapped.verify(token(), &head).await.is_err());
}
