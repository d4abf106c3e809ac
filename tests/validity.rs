//! How long the claims of a connection hold.

mod common;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use common::{Raw, handshake, send, serve_axum};
use http::{Request, Response, request::Parts};
use tokio::{io::AsyncWriteExt, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowOrigin, GuardLayer, PendingUpgrade, Rejection, RejectionKind, ResponderLayer, StaticTokens, Token,
    TokenCheckLayer, TokenPolicy, Validity, Verified, VerifyToken,
};

const LONG: Duration = Duration::from_secs(3600);

fn bearer(token: &str) -> Raw {
    handshake().and("Authorization", format!("Bearer {token}"))
}

async fn is_over(validity: &Validity) -> bool {
    timeout(Duration::from_millis(50), validity.ended()).await.is_ok()
}

#[tokio::test]
async fn claims_end_when_the_first_of_their_ends_has_come() {
    let now = SystemTime::now();
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let live = CancellationToken::new;
    let cases: [(Verified<()>, bool); 10] = [
        (Verified::new(()), false),
        (().into(), false),
        (Verified::new(()).expires_at(now + LONG), false),
        (Verified::new(()).expires_at(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::MAX / 4)), false),
        (Verified::new(()).expires_at(now - LONG), true),
        (Verified::new(()).expires_at(now - LONG).expires_at(now + LONG), true),
        (Verified::new(()).expires_at(now + LONG).expires_at(now - LONG), true),
        (Verified::new(()).revoked_by(live()), false),
        (Verified::new(()).revoked_by(cancelled.clone()).revoked_by(live()), true),
        (Verified::new(()).expires_at(now + LONG).revoked_by(live()).revoked_by(cancelled), true),
    ];
    for (verified, over) in cases {
        assert_eq!(is_over(verified.validity()).await, over, "{verified:?}");
        assert_eq!(is_over(verified.map(|()| "mapped").validity()).await, over);
    }
}

#[tokio::test]
async fn a_future_of_the_end_resolves_when_it_comes() {
    let revocation = CancellationToken::new();
    let revoked = Verified::new(()).expires_at(SystemTime::now() + LONG).revoked_by(revocation.clone());
    let expiring =
        Verified::new(()).expires_at(SystemTime::now() + Duration::from_millis(100)).revoked_by(revocation.clone());
    let ends = [revoked, expiring.clone()].map(|verified| tokio::spawn(verified.validity().ended()));
    timeout(LONG, expiring.validity().ended()).await.expect("it expires without being revoked");
    revocation.cancel();
    for end in ends {
        timeout(Duration::from_secs(30), end).await.expect("it ends").unwrap();
    }
}

/// Knows sessions, each of which can be revoked.
#[derive(Clone, Default)]
struct Sessions(Arc<Mutex<Vec<(String, CancellationToken)>>>);

impl Sessions {
    fn open(&self, id: &str) {
        self.0.lock().unwrap().push((id.into(), CancellationToken::new()));
    }

    fn revoke(&self, id: &str) {
        self.0.lock().unwrap().retain(|(known, revocation)| {
            let revoked = known == id;
            if revoked {
                revocation.cancel();
            }
            !revoked
        });
    }
}

impl VerifyToken for Sessions {
    type Claims = String;

    async fn verify(&self, token: Token, _: &Parts) -> Result<Verified<String>, Rejection> {
        let sessions = self.0.lock().unwrap();
        match sessions.iter().find(|(id, _)| id == token.expose()) {
            Some((id, revocation)) => Ok(Verified::new(id.clone()).revoked_by(revocation.clone())),
            None => Err(RejectionKind::TokenInvalid.into()),
        }
    }
}

#[tokio::test]
async fn what_is_revoked_ends_live_sockets_and_is_refused_next() {
    let sessions = Sessions::default();
    sessions.open("alice");
    sessions.open("bob");
    let policy = TokenPolicy::bearer(sessions.clone());

    let respond = async |pending: PendingUpgrade| {
        pending.on_upgrade(async |mut socket| {
            socket.validity().ended().await;
            let _ = socket.write_all(b"over").await;
        });
    };
    let responded = ServiceBuilder::new()
        .layer(GuardLayer::new(AllowOrigin::same_origin()).token(policy.clone()))
        .layer(ResponderLayer::new());
    // Behind a guard alone it is an extractor.
    let guard = async |validity: Validity, upgrade: axum::extract::ws::WebSocketUpgrade| {
        upgrade.on_upgrade(async move |socket| {
            validity.ended().await;
            drop(socket);
        })
    };
    let guarded = GuardLayer::new(AllowOrigin::same_origin()).token(policy);
    let app = axum::Router::new()
        .route("/ws", axum::routing::any(respond).layer(responded))
        .route("/guarded", axum::routing::any(guard).layer(guarded));
    let address = serve_axum(app).await;

    let connect = async |path: &str, token: &str| send(address, &bearer(token).target(path).bytes()).await;
    let mut alice = connect("/ws", "alice").await;
    let mut guarded = connect("/guarded", "alice").await;
    let mut bob = connect("/ws", "bob").await;
    assert_eq!([alice.status, guarded.status, bob.status], [101, 101, 101]);

    sessions.revoke("alice");
    assert_eq!(alice.read_rest().await, "over");
    assert_eq!(guarded.read_rest().await, "");
    assert!(timeout(Duration::from_millis(100), bob.read_rest()).await.is_err(), "it is another session");
    assert_eq!(connect("/ws", "alice").await.status, 401);
    assert_eq!(connect("/ws", "bob").await.status, 101);
}

#[tokio::test]
async fn a_layer_hands_over_what_limits_the_claims() {
    #[derive(Clone)]
    struct Session {
        expires_at: Option<SystemTime>,
        revocation: CancellationToken,
    }
    let now = SystemTime::now();
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let session = |expires_at, revocation: &CancellationToken| Session { expires_at, revocation: revocation.clone() };
    let live = CancellationToken::new();
    let tokens = StaticTokens::new([
        ("forever", session(None, &live)),
        ("an-hour", session(Some(now + LONG), &live)),
        ("expired", session(Some(now - LONG), &live)),
        ("revoked", session(None, &cancelled)),
    ]);
    let inner = service_fn(async |request: Request<()>| {
        let validity = request.extensions().get::<Validity>().cloned();
        Ok::<_, Infallible>(Response::new(validity.map(|validity| validity.expires_at())))
    });
    let expiring = tokens.clone().expiring(|session| session.expires_at);
    let revocable = tokens.clone().revocable(|session: &Session| session.revocation.clone());
    for (token, unlimited, expiring_to, revocable_to) in [
        ("forever", Some(None), Some(None), Some(Some(None))),
        ("an-hour", Some(None), Some(Some(Some(now + LONG))), Some(Some(None))),
        ("expired", Some(None), None, Some(Some(None))),
        ("revoked", Some(None), Some(None), None),
        ("unknown", None, None, None),
    ] {
        let call = async |response: Result<Response<_>, Infallible>| {
            let response = response.unwrap();
            assert!([200, 401].contains(&response.status().as_u16()));
            (response.status() == 200).then_some(response.into_body())
        };
        let request = || bearer(token).request::<()>();
        let layer = TokenCheckLayer::new(TokenPolicy::bearer(tokens.clone()));
        assert_eq!(call(layer.layer(inner).oneshot(request()).await).await, unlimited, "{token}");
        let layer = TokenCheckLayer::new(TokenPolicy::bearer(expiring.clone()));
        assert_eq!(call(layer.layer(inner).oneshot(request()).await).await, expiring_to, "{token}");
        let layer = TokenCheckLayer::new(TokenPolicy::bearer(revocable.clone()));
        assert_eq!(call(layer.layer(inner).oneshot(request()).await).await, revocable_to, "{token}");
    }
}
