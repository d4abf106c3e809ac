//! `Sessions`: limits per key, who is connected, and how connections end.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::extract::ConnectInfo;
use http::{Request, Response, request::Parts};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowOrigin, CancellationToken, Claims, ConnectionLimit, Drain, Ended, GuardLayer, Permit,
    Rejection, ResponderLayer, Sessions, StaticTokens, Token, TokenCheckLayer, TokenPolicy,
    Upgraded, Validity, Verified, VersionCheckLayer, WhenFull, test_util,
};

use crate::{
    common::{Raw, handshake},
    decisions::bearer,
    drain::{App, behind},
    limit::{call, code, guard},
};

const LONG: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug, PartialEq)]
struct User {
    name: &'static str,
}

fn policy() -> TokenPolicy<User> {
    let users = ["alice", "bob"].map(|name| (name, User { name }));
    TokenPolicy::bearer(StaticTokens::new(users).unwrap())
}

fn per_user(max: usize) -> Sessions<&'static str> {
    Sessions::per_claims(max, |user: &User| user.name).unwrap()
}

fn with_sessions<K>(sessions: &Sessions<K>) -> App
where
    K: std::hash::Hash + Eq + Clone + Send + Sync + 'static,
{
    behind(guard().token(policy()).unwrap().sessions(sessions))
}

async fn connect(app: &App, user: &str) -> Permit {
    let response = call(app, bearer(user).request()).await;
    assert_eq!(code(&response), None, "{user}");
    response.extensions().get::<Option<Permit>>().cloned().flatten().expect("it has a permit")
}

/// The reason why a connection must end, if it must.
async fn ended(permit: &Permit) -> Option<Ended> {
    timeout(Duration::from_millis(20), permit.ended()).await.ok()
}

#[tokio::test(start_paused = true)]
async fn full_key_rejects_the_newest_or_evicts_the_oldest() {
    let sessions = per_user(2);
    let app = with_sessions(&sessions);
    let open = [connect(&app, "alice").await, connect(&app, "alice").await];
    assert_eq!(code(&call(&app, bearer("alice").request()).await), Some("too-many-connections"));
    let _bob = connect(&app, "bob").await;
    assert_eq!((sessions.connections(), sessions.keys()), (3, 2));

    // The same sessions, in another layer.
    let evicts = with_sessions(&sessions.clone().when_full(WhenFull::EvictOldest));
    let third = connect(&evicts, "alice").await;
    assert_eq!(ended(&open[0]).await, Some(Ended::Evicted));
    assert_eq!((ended(&open[1]).await, ended(&third).await), (None, None));
    // The evicted connection is still open, but its slot is not its own any more.
    assert_eq!((sessions.connections(), sessions.list(&"alice").await.unwrap().len()), (3, 2));
    drop(open);
    assert_eq!((sessions.connections(), sessions.list(&"alice").await.unwrap().len()), (2, 1));
    let fourth = connect(&evicts, "alice").await;
    assert_eq!(ended(&third).await, None);
    drop((third, fourth));
    assert_eq!((sessions.connections(), sessions.keys()), (1, 1));
}

#[tokio::test]
async fn key_without_connections_leaves_nothing_behind() {
    let sessions = Sessions::per_key(1, |request: &Parts| {
        request.headers.get("x-key").map(|key| key.as_bytes().to_vec())
    })
    .unwrap();
    let app = behind(guard().sessions(&sessions));
    let with_key = |key: u32| handshake().and("X-Key", key.to_string());
    for key in 0..2000 {
        let open = call(&app, with_key(key).request()).await;
        assert_eq!(code(&open), None);
        let rejected = call(&app, with_key(key).request()).await;
        assert_eq!(code(&rejected), Some("too-many-connections"));
        assert_eq!((sessions.connections(), sessions.keys()), (1, 1));
        match key % 3 {
            0 => assert_eq!(
                sessions.end(&key.to_string().into_bytes(), Ended::Revoked).await.unwrap(),
                1
            ),
            1 => drop(open),
            // Declined by the handler.
            _ => drop(open.map(|()| ())),
        }
        assert_eq!((sessions.connections(), sessions.keys()), (0, 0), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn end_tells_every_connection_of_its_key_once() {
    let sessions = per_user(10);
    let app = with_sessions(&sessions);
    let alice = [connect(&app, "alice").await, connect(&app, "alice").await];
    let bob = connect(&app, "bob").await;
    let mut waiting = pin!(alice[0].ended());
    assert!(timeout(LONG, &mut waiting).await.is_err());

    assert_eq!(sessions.end(&"alice", Ended::Revoked).await.unwrap(), 2);
    assert_eq!(sessions.end(&"alice", Ended::Evicted).await.unwrap(), 0);
    assert_eq!(timeout(LONG, waiting).await, Ok(Ended::Revoked));
    for permit in &alice {
        // Whoever asks later is told, too.
        assert_eq!(ended(permit).await, Some(Ended::Revoked));
    }
    assert_eq!(ended(&bob).await, None);
    assert_eq!((sessions.connections(), sessions.keys()), (1, 1));

    let again = connect(&app, "alice").await;
    assert_eq!((ended(&again).await, ended(&alice[1]).await), (None, Some(Ended::Revoked)));
    drop(alice);
    assert_eq!(sessions.connections(), 2);
}

#[tokio::test]
async fn list_has_the_connections_of_a_key_from_the_oldest() {
    let before = SystemTime::now();
    let sessions = per_user(10);
    let peer = |request: &Parts| request.extensions.get().map(|ConnectInfo(peer)| *peer);
    let app = with_sessions(&sessions.clone().address(peer));
    let address = SocketAddr::from(([192, 0, 2, 1], 4000));
    let mut first = bearer("alice").request::<()>();
    first.extensions_mut().insert(ConnectInfo(address));
    let open =
        [call(&app, first).await, call(&app, bearer("alice").without("Origin").request()).await];
    // Without an origin it was rejected.
    assert_eq!(code(&open[1]), Some("origin-missing"));
    let _second = connect(&app, "alice").await;
    let list = sessions.list(&"alice").await.unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!((list[0].address(), list[1].address()), (Some(address), None));
    assert_eq!(list[0].origin(), Some("https://chat.example.com"));
    assert!(before <= list[0].since() && list[0].since() <= list[1].since());
    assert!(list[1].since() <= SystemTime::now());
    assert_eq!(sessions.list(&"bob").await.unwrap(), []);

    let forwarded = |request: &Parts| request.headers.get("x-peer")?.to_str().ok()?.parse().ok();
    let app = with_sessions(&sessions.clone().address(forwarded));
    let raw = bearer("bob").and("X-Peer", "[2001:db8::1]:5000");
    let _bob = call(&app, raw.request()).await;
    let bob = &sessions.list(&"bob").await.unwrap()[0];
    assert_eq!(bob.address(), Some("[2001:db8::1]:5000".parse().unwrap()));
}

#[tokio::test]
async fn handshake_without_a_key_is_rejected_with_the_fix() {
    let wrong_type = Sessions::per_claims(1, |user: &String| user.clone()).unwrap();
    let no_token = per_user(1);
    let no_key = Sessions::per_key(1, |_: &Parts| None::<u8>).unwrap();
    let verifies = || guard().token(policy()).unwrap();
    for (app, parts) in [
        (
            behind(verifies().sessions(&wrong_type)),
            ["Claims<alloc::string::String>", "takes the type"],
        ),
        (behind(guard().sessions(&no_token)), ["Claims<", "token check"]),
        (behind(verifies().sessions(&no_key)), ["found no key", "ConnectInfo"]),
    ] {
        for _ in 0..2 {
            let response = call(&app, bearer("alice").request()).await;
            let rejection = response.extensions().get::<Rejection>().unwrap();
            assert_eq!((response.status().as_u16(), code(&response)), (500, Some("guard-missing")));
            let source = std::error::Error::source(rejection).unwrap();
            let text = format!("{source} {rejection}");
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
        let explanation =
            verifies().sessions(&no_key).explain(&bearer("alice").request::<()>().into_parts().0);
        assert_eq!(explanation.rejection().unwrap().kind().code(), "guard-missing");
    }
    assert_eq!((wrong_type.connections(), no_token.connections(), no_key.connections()), (0, 0, 0));
    assert!(Sessions::per_key(0, |_: &Parts| Some(())).is_err());
    assert!(Sessions::per_claims(0, |(): &()| ()).is_err());
}

/// A verifier that a test lets go on.
fn paused_verifier() -> (TokenPolicy<User>, oneshot::Receiver<()>, oneshot::Sender<()>) {
    let (started, verifying) = oneshot::channel::<()>();
    let (go_on, wait) = oneshot::channel::<()>();
    let channels = Arc::new(Mutex::new(Some((started, wait))));
    let verifier = move |_: Token| {
        let (started, wait) = channels.lock().unwrap().take().unwrap();
        async move {
            started.send(()).unwrap();
            wait.await.unwrap();
            Ok::<_, Rejection>(User { name: "alice" }.into())
        }
    };
    (TokenPolicy::bearer(verifier), verifying, go_on)
}

#[tokio::test]
async fn handshake_that_is_verified_while_its_key_is_ended_is_rejected() {
    for (ended, expected) in [("alice", Some("token-invalid")), ("bob", None)] {
        let (policy, verifying, go_on) = paused_verifier();
        let sessions = per_user(1);
        let app = behind(guard().token(policy).unwrap().sessions(&sessions));
        let response = tokio::spawn(async move { call(&app, bearer("x").request()).await });
        verifying.await.unwrap();
        assert_eq!(sessions.end(&ended, Ended::Revoked).await.unwrap(), 0);
        go_on.send(()).unwrap();
        assert_eq!(code(&response.await.unwrap()), expected);
        // The next one is accepted.
        let _open = connect(&with_sessions(&sessions), "bob").await;
    }
}

#[tokio::test]
async fn total_limit_that_is_full_evicts_nobody() {
    let limit = ConnectionLimit::total(1).unwrap();
    let sessions = per_user(1).when_full(WhenFull::EvictOldest);
    let app = behind(guard().token(policy()).unwrap().sessions(&sessions).limit(limit));
    let open = connect(&app, "alice").await;
    assert_eq!(code(&call(&app, bearer("alice").request()).await), Some("over-capacity"));
    assert_eq!(ended(&open).await, None);
}

#[tokio::test]
async fn report_only_mode_reports_a_full_key() {
    let sessions = per_user(1);
    let guard = guard().token(policy()).unwrap().sessions(&sessions).dangerous_report_only();
    let app = behind(guard);
    let _first = connect(&app, "alice").await;
    let response = call(&app, bearer("alice").request()).await;
    assert_eq!((response.status().as_u16(), code(&response)), (200, None));
    assert_eq!(sessions.connections(), 1);
}

/// The reasons for an end, by what happens to the connection.
#[tokio::test(start_paused = true)]
async fn ended_names_the_first_reason() {
    let (expired, revoked) = (Duration::from_secs(30), CancellationToken::new());
    let verifier = {
        let revoked = revoked.clone();
        move |token: Token| {
            let revoked = revoked.clone();
            let verified = Verified::new(User { name: "alice" });
            std::future::ready(Ok::<_, Rejection>(match token.expose() {
                "expiring" => verified.expires_at(SystemTime::now() + expired),
                "revoked" => verified.revoked_by(revoked),
                _ => verified,
            }))
        }
    };
    let (drain, sessions) = (Drain::new(), per_user(10));
    let layer = || guard().token(TokenPolicy::bearer(verifier.clone())).unwrap();
    let all = || layer().drain(&drain).sessions(&sessions);
    let age = Duration::from_secs(100);
    let start = Instant::now();
    let is_between = |part: f64, whole: f64| {
        let elapsed = start.elapsed().as_secs_f64() / age.as_secs_f64();
        assert!((part..=whole).contains(&elapsed), "{elapsed}");
    };

    // At its maximum age, which is random.
    let mut ages = Vec::new();
    for _ in 0..5 {
        let open = connect(&behind(layer().max_age(age).unwrap()), "x").await;
        let start = Instant::now();
        assert_eq!(timeout(LONG, open.ended()).await, Ok(Ended::Drained));
        ages.push(start.elapsed());
    }
    is_between(4.5, 5.01);
    ages.dedup();
    assert_eq!(ages.len(), 5, "{ages:?}");
    assert!(guard().max_age(Duration::ZERO).is_err());

    // Without a limit, too: the claims alone.
    let [no_limit, full] = [behind(layer()), behind(all())];
    let without = call(&no_limit, bearer("x").request()).await;
    assert!(without.extensions().get::<Option<Permit>>().unwrap().is_none());
    for app in [&no_limit, &full] {
        let [expiring, revocable] = [connect(app, "expiring").await, connect(app, "revoked").await];
        assert_eq!((ended(&expiring).await, ended(&revocable).await), (None, None));
        if std::ptr::eq(app, &full) {
            revoked.cancel();
            assert_eq!(ended(&revocable).await, Some(Ended::Revoked));
            // The first reason that applies.
            drain.start();
            assert_eq!(ended(&expiring).await, Some(Ended::Drained));
        }
    }
}

#[tokio::test]
async fn close_codes_and_reasons_are_stable() {
    for (ended, code, reason) in [
        (Ended::Drained, 1001, "drained"),
        (Ended::Expired, 4401, "expired"),
        (Ended::Revoked, 4401, "revoked"),
        (Ended::Evicted, 4409, "evicted"),
    ] {
        assert_eq!((ended.close_code(), ended.reason()), (code, reason));
        assert_eq!(ended.to_string(), reason);
    }
}

/// The end reaches whoever completes the handshake.
#[tokio::test]
async fn upgraded_connection_and_its_parts_are_told_the_end() {
    for apart in [false, true] {
        let sessions = per_user(1);
        let (sender, told) = oneshot::channel();
        let sender = Mutex::new(Some(sender));
        let callback = move |socket: Upgraded| {
            let sender = sender.lock().unwrap().take().unwrap();
            async move {
                let ended = if apart {
                    let (_io, permit) = socket.into_parts();
                    permit.ended().await
                } else {
                    socket.ended().await
                };
                sender.send(ended).unwrap();
            }
        };
        let guard = guard().token(policy()).unwrap().sessions(&sessions).on_upgraded(callback);
        let app =
            guard.layer(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(()))));
        let (request, _client) = test_util::upgradable(bearer("alice").request()).await;
        assert_eq!(app.oneshot(request).await.unwrap().status(), 101);
        assert_eq!(sessions.end(&"alice", Ended::Revoked).await.unwrap(), 1);
        assert_eq!(told.await.unwrap(), Ended::Revoked);
    }
}

#[tokio::test(start_paused = true)]
async fn layers_of_a_stack_tell_the_end_together() {
    let outer = per_user(5);
    let inner = Sessions::per_key(5, |_: &Parts| Some("all")).unwrap();
    let stack = || {
        tower::ServiceBuilder::new()
            .layer(VersionCheckLayer::new())
            .layer(TokenCheckLayer::new(policy()).sessions(&outer))
            .layer(GuardLayer::new(AllowOrigin::same_origin()).sessions(&inner))
            .into_inner()
    };
    for inner_ends in [false, true] {
        let open = connect(&behind(stack()), "alice").await;
        assert_eq!(ended(&open).await, None);
        let count = if inner_ends {
            inner.end(&"all", Ended::Evicted).await
        } else {
            outer.end(&"alice", Ended::Evicted).await
        };
        assert_eq!(count.unwrap(), 1);
        assert_eq!(ended(&open).await, Some(Ended::Evicted));
        drop(open);
        assert_eq!((outer.keys(), inner.keys()), (0, 0));
    }
    let _ = ResponderLayer::new().sessions(&outer);
}

#[tokio::test]
async fn validity_is_renewed_by_a_refreshed_token() {
    let soon = || SystemTime::now() + Duration::from_millis(100);
    let later = || SystemTime::now() + LONG;
    let verified = |time| Verified::new(User { name: "alice" }).expires_at(time);
    let renewed = verified(soon());
    let validity = renewed.validity().clone();
    let open = tokio::spawn(validity.ended());
    assert!(renewed.validity().renew(verified(later()).validity()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!open.is_finished() && !validity.has_ended());

    // A shorter one ends earlier.
    assert!(validity.renew(verified(soon()).validity()));
    assert_eq!(timeout(LONG, open).await.unwrap().unwrap(), Ended::Expired);
    // What has ended stays so.
    assert!(!validity.renew(verified(later()).validity()) && validity.has_ended());

    // The first token's revocation is replaced, too.
    let [first, second] = [CancellationToken::new(), CancellationToken::new()];
    let revocable = |by: &CancellationToken| Verified::new(()).revoked_by(by.clone());
    let open = revocable(&first);
    assert!(open.validity().renew(revocable(&second).validity()));
    first.cancel();
    assert!(!open.validity().has_ended());
    second.cancel();
    assert_eq!(open.validity().ended().await, Ended::Revoked);
    // What never ends stays so.
    assert!(Validity::default().renew(revocable(&second).validity()));
}

/// The claims in the request of a guard that forwards are those of its permit.
#[tokio::test]
async fn renewed_validity_reaches_the_permit() {
    let verifier = |_: Token| {
        let soon = SystemTime::now() + Duration::from_millis(100);
        std::future::ready(Ok::<_, Rejection>(Verified::new(User { name: "a" }).expires_at(soon)))
    };
    let inner = service_fn(async |mut request: Request<()>| {
        let validity = request.extensions().get::<Validity>().unwrap().clone();
        let Claims(user) = request.extensions().get::<Claims<User>>().unwrap().clone();
        let permit = Permit::claim(request.extensions_mut()).unwrap();
        let later = Verified::new(user).expires_at(SystemTime::now() + LONG);
        assert!(validity.renew(later.validity()));
        assert!(timeout(Duration::from_millis(200), permit.ended()).await.is_err());
        Ok::<_, Infallible>(Response::new(()))
    });
    let raw: Raw = bearer("x");
    guard()
        .token(TokenPolicy::bearer(verifier))
        .unwrap()
        .layer(inner)
        .oneshot(raw.request())
        .await
        .unwrap();
}

/// Without an origin check a client chooses its `Origin`.
#[tokio::test]
async fn long_origin_is_not_kept() {
    let sessions = Sessions::per_key(9, |_: &Parts| Some(())).unwrap();
    let app = behind(VersionCheckLayer::new().sessions(&sessions));
    for (length, kept) in [(500, true), (2000, false)] {
        let origin = format!("https://{}", "a".repeat(length));
        let _open = call(&app, handshake().with("Origin", &origin).request()).await;
        let list = sessions.list(&()).await.unwrap();
        assert_eq!(list[0].origin().is_some(), kept);
    }
}

/// A permit is claimed once, also if the claims expire.
#[tokio::test]
async fn permit_that_was_claimed_is_not_claimed_again() {
    let verifier = |_: Token| {
        let later = SystemTime::now() + LONG;
        std::future::ready(Ok::<_, Rejection>(Verified::new(User { name: "a" }).expires_at(later)))
    };
    let inner = service_fn(async |mut request: Request<()>| {
        let claims = [(); 2].map(|()| Permit::claim(request.extensions_mut()).is_some());
        assert_eq!(claims, [true, false]);
        Ok::<_, Infallible>(Response::new(()))
    });
    let guard = guard().token(TokenPolicy::bearer(verifier)).unwrap().sessions(&per_user(1));
    guard.layer(inner).oneshot(bearer("x").request()).await.unwrap();
}

/// The application renews what its own token has limited, and not what an outer layer has.
#[tokio::test]
async fn renewed_validity_keeps_the_limits_of_an_outer_layer() {
    let logout = CancellationToken::new();
    let outer = {
        let logout = logout.clone();
        move |_: Token| {
            let verified = Verified::new("outer").revoked_by(logout.clone());
            std::future::ready(Ok::<_, Rejection>(verified))
        }
    };
    let inner = |_: Token| {
        let soon = SystemTime::now() + Duration::from_millis(100);
        std::future::ready(Ok::<_, Rejection>(Verified::new("inner").expires_at(soon)))
    };
    let source = || tower_ws_guard::TokenSource::header("X-Inner").unwrap();
    let stack = tower::ServiceBuilder::new()
        .layer(TokenCheckLayer::new(TokenPolicy::bearer(outer)))
        .layer(TokenCheckLayer::new(TokenPolicy::from_sources([source()], inner).unwrap()));
    let service = stack.service(service_fn(async |request: Request<()>| {
        let validity = request.extensions().get::<Validity>().unwrap().clone();
        Ok::<_, Infallible>(Response::new(validity))
    }));
    let request = bearer("x").and("X-Inner", "y").request();
    let validity = service.oneshot(request).await.unwrap().into_body();
    assert!(validity.renew(Verified::new(()).expires_at(SystemTime::now() + LONG).validity()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!validity.has_ended());
    logout.cancel();
    assert_eq!(validity.ended().await, Ended::Revoked);
    assert!(!validity.renew(Verified::new(()).validity()));
}
