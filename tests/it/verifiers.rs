//! Verifiers: their verdict, their time, and how they are combined.

use std::{
    convert::Infallible,
    error::Error,
    future::ready,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tokio::sync::mpsc;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowOrigin, Claims, ConnectionLimit, GuardLayer, ProblemJson, Rejection, RejectionKind,
    ResponderLayer, StaticTokens, Token, TokenCheckLayer, TokenPolicy, TokenSource, Verified,
    VerifyToken, token::ticket::MemoryTicketStore,
};

use crate::{
    common::{Raw, handshake, upgradable},
    limit::{Handler, Hangs, call, code, guard},
    tickets::{User, check, issue_to, knock, outcome, query, tickets, user, with},
};

#[tokio::test]
async fn verifier_determines_the_rejection() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let policy = TokenPolicy::bearer(move |token: Token| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::task::yield_now().await;
            match token.expose() {
                "good" => Ok(Verified::new(42_u32)),
                "weak" => Err(RejectionKind::TokenForbidden.into()),
                "down" => Err(Rejection::verifier_failed("no connection to 10.0.0.1")),
                "odd" => Err(Rejection::custom("quota-exceeded", StatusCode::PAYMENT_REQUIRED)),
                _ => Err(RejectionKind::TokenInvalid.into()),
            }
        }
    });
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .token(policy)
        .unwrap()
        .reject_with(ProblemJson::new());
    let inner = service_fn(async |request: Request<()>| {
        Ok::<_, Infallible>(Response::new(
            request.extensions().get::<Claims<u32>>().unwrap().0.to_string(),
        ))
    });
    let service = ServiceBuilder::new().layer(guard).service(inner);
    for (token, status, body) in [
        ("good", 200, "42"),
        ("weak", 403, "token-forbidden"),
        ("down", 503, "verifier-failed"),
        ("odd", 402, "quota-exceeded"),
        ("bad", 401, "token-invalid"),
    ] {
        let raw = handshake().and("Authorization", format!("Bearer {token}"));
        let response = service.clone().oneshot(raw.request()).await.unwrap();
        assert_eq!(response.status(), status);
        assert!(response.body().contains(body));
        assert!(!response.body().contains("10.0.0.1"));
    }
    assert_eq!(calls.swap(0, Ordering::SeqCst), 5);

    // A rejected origin must not learn whether a token is valid.
    let foreign =
        handshake().and("Authorization", "Bearer good").with("Origin", "https://evil.example");
    assert_eq!(service.oneshot(foreign.request()).await.unwrap().status(), 403);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn verifier_times_out_after_the_check_timeout() {
    let token = handshake().and("Authorization", "Bearer x");
    for (time, expected) in [(None, 10), (Some(3), 3), (Some(100), 100)] {
        let (sender, mut events) = mpsc::unbounded_channel();
        let mut layer = guard().token(TokenPolicy::bearer(Hangs(sender))).unwrap();
        if let Some(time) = time {
            layer = layer.check_timeout(Duration::from_secs(time)).unwrap();
        }
        let app = Handler::Holds.behind(layer);
        for request in upgradable(&token) {
            let start = tokio::time::Instant::now();
            let rejected = call(&app, request).await;
            assert_eq!(
                (rejected.status().as_u16(), code(&rejected)),
                (503, Some("verifier-timeout"))
            );
            assert_eq!(start.elapsed().as_secs(), expected);
            assert_eq!((events.try_recv(), events.try_recv()), (Ok("asked"), Ok("dropped")));
        }
    }
    assert!(guard().check_timeout(Duration::ZERO).is_err());
    assert!(ResponderLayer::new().upgrade_timeout(Duration::ZERO).is_err());
    assert!(ConnectionLimit::total(0).is_err());
}

#[test]
fn verifier_that_does_not_wait_needs_no_runtime() {
    let app = Handler::Holds.behind(
        guard().token(TokenPolicy::bearer(StaticTokens::new([("s3cr3t", ())]).unwrap())).unwrap(),
    );
    let future = pin!(app.oneshot(handshake().and("Authorization", "Bearer s3cr3t").request()));
    let Poll::Ready(Ok(response)) = future.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it waits")
    };
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
}

fn bearer(token: &str) -> Raw {
    handshake().and("Authorization", format!("Bearer {token}"))
}

#[tokio::test]
async fn policy_or_gives_each_source_its_own_verifier() {
    let (issuer, verifier) = tickets(&MemoryTicketStore::default());
    let operators = StaticTokens::new([("s3cr3t", user("operator"))]).unwrap();
    let cookies = StaticTokens::new([("c00kie", user("carol"))]).unwrap();
    let bearers = TokenPolicy::bearer(operators);
    let tickets = TokenPolicy::from_sources([query()], verifier).unwrap();
    let cookies =
        TokenPolicy::from_sources([TokenSource::cookie("session").unwrap()], cookies).unwrap();
    // Nested to the right, so that the positions of the sources count, too.
    let layer = TokenCheckLayer::new(bearers.or(tickets.or(cookies).unwrap()).unwrap());
    let ticket = issuer.issue(&user("alice")).await.unwrap();
    for (raw, expected) in [
        (bearer("s3cr3t"), "operator"),
        (with("s3cr3t"), "token-invalid"),
        (bearer(ticket.expose()), "token-invalid"),
        (with(ticket.expose()).and("Authorization", "Bearer s3cr3t"), "token-ambiguous"),
        (handshake(), "token-missing"),
        (handshake().and("Cookie", "session=c00kie"), "carol"),
        (handshake().and("Cookie", "session=s3cr3t"), "token-invalid"),
        (bearer("c00kie"), "token-invalid"),
        (with("c00kie"), "token-invalid"),
        (with(ticket.expose()).and("Cookie", "session=c00kie"), "token-ambiguous"),
        // None of these has redeemed the ticket.
        (with(ticket.expose()), "alice"),
        (with(ticket.expose()), "token-invalid"),
        (bearer("s3cr3t"), "operator"),
    ] {
        assert_eq!(outcome(&layer, &raw).await, expected, "{raw:?}");
    }
}

#[tokio::test]
async fn verifier_chain_ends_at_the_first_verdict() {
    let invalid = || Rejection::new(RejectionKind::TokenInvalid);
    let forbidden = || Rejection::new(RejectionKind::TokenForbidden);
    let custom = || Rejection::custom("quota-exceeded", StatusCode::PAYMENT_REQUIRED);
    let (alice, bob) = (|| Ok(user("alice")), || Ok(user("bob")));
    for (first, second, asked, expected, source) in [
        (alice(), bob(), 0, "alice", None),
        (Err(forbidden()), bob(), 0, "token-forbidden", None),
        (Err(custom()), bob(), 0, "quota-exceeded", None),
        (Err(Rejection::verifier_failed("first")), bob(), 0, "verifier-failed", Some("first")),
        (Err(invalid()), bob(), 1, "bob", None),
        (Err(invalid().with_source("first")), bob(), 1, "bob", None),
        (Err(invalid()), Err(forbidden()), 1, "token-forbidden", None),
        (Err(invalid().with_source("first")), Err(forbidden()), 1, "token-forbidden", None),
        (Err(invalid().with_source("first")), Err(custom()), 1, "quota-exceeded", None),
        (
            Err(invalid()),
            Err(Rejection::verifier_failed("second")),
            1,
            "verifier-failed",
            Some("second"),
        ),
        (Err(invalid()), Err(invalid()), 1, "token-invalid", None),
        (Err(invalid().with_source("first")), Err(invalid()), 1, "token-invalid", Some("first")),
        (Err(invalid()), Err(invalid().with_source("second")), 1, "token-invalid", Some("second")),
    ] {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let case = format!("{first:?} {second:?}");
        let first = move |_: Token| ready(first.clone().map(Verified::new));
        let second = move |_: Token| {
            counted.fetch_add(1, Ordering::SeqCst);
            ready(second.clone().map(Verified::new))
        };
        let (code, told) = match knock(&check(first.or(second)), bearer("x").request()).await {
            Ok(extensions) => (extensions.get::<Claims<User>>().unwrap().0.name.clone(), None),
            Err(rejection) => {
                (rejection.kind().code().into(), rejection.source().map(ToString::to_string))
            }
        };
        assert_eq!((&*code, told.as_deref()), (expected, source), "{case}");
        assert_eq!(calls.load(Ordering::SeqCst), asked, "{case}");
    }
}

#[tokio::test]
async fn verifier_chains_are_nested_mapped_and_shared() {
    let (issuer, verifier) = tickets(&MemoryTicketStore::default());
    let admins =
        || StaticTokens::new([("s3cr3t", 0), ("both", 0)]).unwrap().map_claims(|_| user("admin"));
    let users = || {
        Arc::new(StaticTokens::new([("tr0ub4dor", user("bob")), ("both", user("bob"))]).unwrap())
    };
    let tickets = || verifier.clone();
    let flat = check(admins().or(users()).or(tickets()));
    let nested = check(admins().or(users().or(tickets())));
    let shared = check(
        Arc::new(Arc::new(admins().or(users())).or(Arc::new(tickets()))).map_claims(|user| user),
    );
    for (token, expected) in [
        ("s3cr3t", "admin"),
        ("tr0ub4dor", "bob"),
        ("both", "admin"),
        ("ticket", "alice"),
        ("guess", "token-invalid"),
    ] {
        for layer in 0..3 {
            let ticket = issuer.issue(&user("alice")).await.unwrap();
            let raw = bearer(if token == "ticket" { ticket.expose() } else { token });
            let outcome = match layer {
                0 => outcome(&flat, &raw).await,
                1 => outcome(&nested, &raw).await,
                _ => outcome(&shared, &raw).await,
            };
            assert_eq!(outcome, expected, "{token} {layer}");
        }
    }

    // The reason is that of the ticket; the other verifier has none.
    let [first, second] = [
        issue_to(&issuer, "https://a.example").await,
        issue_to(&issuer, "https://a.example").await,
    ];
    for rejected in [
        knock(&check(tickets().or(users())), bearer(first.expose()).request()).await,
        knock(&check(users().or(tickets())), bearer(second.expose()).request()).await,
    ] {
        assert!(rejected.unwrap_err().source().unwrap().to_string().contains("https://a.example"));
    }
}
