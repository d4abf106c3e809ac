//! `Validity`: how long the claims of a connection are valid.

use std::{
    convert::Infallible,
    error::Error,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use http::{Request, Response, request::Parts};
use tokio::{io::AsyncWriteExt, time::timeout};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowOrigin, CancellationToken, GuardLayer, PendingUpgrade, Permit, Rejection, RejectionKind,
    ResponderLayer, Token, TokenCheckLayer, TokenPolicy, Validity, Verified, VerifyToken,
    axum::GuardedUpgrade,
};

use crate::common::{Raw, handshake, send, serve_axum};

const LONG: Duration = Duration::from_secs(3600);

fn bearer(token: &str) -> Raw {
    handshake().and("Authorization", format!("Bearer {token}"))
}

async fn is_over(validity: &Validity) -> bool {
    timeout(Duration::from_millis(50), validity.ended()).await.is_ok()
}

#[tokio::test]
async fn validity_ends_at_the_first_expiry_or_revocation() {
    let now = SystemTime::now();
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let live = CancellationToken::new;
    let cases: [(Verified<()>, bool); 10] = [
        (Verified::new(()), false),
        (().into(), false),
        (Verified::new(()).expires_at(now + LONG), false),
        (
            Verified::new(())
                .expires_at(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::MAX / 4)),
            false,
        ),
        (Verified::new(()).expires_at(now - LONG), true),
        (Verified::new(()).expires_at(now - LONG).expires_at(now + LONG), true),
        (Verified::new(()).expires_at(now + LONG).expires_at(now - LONG), true),
        (Verified::new(()).revoked_by(live()), false),
        (Verified::new(()).revoked_by(cancelled.clone()).revoked_by(live()), true),
        (Verified::new(()).expires_at(now + LONG).revoked_by(live()).revoked_by(cancelled), true),
    ];
    for (verified, over) in cases {
        assert_eq!(is_over(verified.validity()).await, over, "{verified:?}");
        assert_eq!(verified.validity().has_ended(), over);
        assert_eq!(is_over(verified.map(|()| "mapped").validity()).await, over);
    }
}

#[tokio::test]
async fn validity_ended_resolves_at_the_end() {
    let revocation = CancellationToken::new();
    let revoked =
        Verified::new(()).expires_at(SystemTime::now() + LONG).revoked_by(revocation.clone());
    let expiring = Verified::new(())
        .expires_at(SystemTime::now() + Duration::from_millis(100))
        .revoked_by(revocation.clone());
    let ends = [&revoked, &expiring].map(|verified| tokio::spawn(verified.validity().ended()));
    timeout(LONG, expiring.validity().ended()).await.expect("it expires without being revoked");
    revocation.cancel();
    for end in ends {
        timeout(Duration::from_secs(30), end).await.expect("it ends").unwrap();
    }
}

/// Logins that can be revoked.
#[derive(Clone, Default)]
struct Logins(Arc<Mutex<Vec<(String, CancellationToken)>>>);

impl Logins {
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

impl VerifyToken for Logins {
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
async fn revocation_ends_open_sockets_and_rejects_the_token() {
    let sessions = Logins::default();
    sessions.open("alice");
    sessions.open("bob");
    let policy = TokenPolicy::bearer(sessions.clone());

    let respond = async |pending: PendingUpgrade| {
        pending.on_upgrade(async |mut socket| {
            socket.validity().ended().await;
            let _ = socket.write_all(b"over").await;
        });
    };
    let upgraded = async |pending: PendingUpgrade| {
        pending.on_upgrade(async |socket| {
            socket.ended().await;
        });
    };
    let responded = ServiceBuilder::new()
        .layer(GuardLayer::new(AllowOrigin::same_origin()).token(policy.clone()).unwrap())
        .layer(ResponderLayer::new());
    // Behind a guard alone, `Validity` is an extractor.
    let guard = async |validity: Validity, upgrade: axum::extract::ws::WebSocketUpgrade| {
        upgrade.on_upgrade(async move |socket| {
            validity.ended().await;
            drop(socket);
        })
    };
    let permitted = async |upgrade: GuardedUpgrade<Permit>| {
        upgrade.on_upgrade(async |socket, permit| {
            permit.ended().await;
            drop(socket);
        })
    };
    let guarded = GuardLayer::new(AllowOrigin::same_origin()).token(policy).unwrap();
    let app = axum::Router::new()
        .route("/ws", axum::routing::any(respond).layer(responded.clone()))
        .route("/upgraded", axum::routing::any(upgraded).layer(responded))
        .route("/permitted", axum::routing::any(permitted).layer(guarded.clone()))
        .route("/guarded", axum::routing::any(guard).layer(guarded));
    let address = serve_axum(app).await;

    let connect =
        async |path: &str, token: &str| send(address, &bearer(token).target(path).bytes()).await;
    let mut alice = connect("/ws", "alice").await;
    let mut bob = connect("/ws", "bob").await;
    assert_eq!([alice.status, bob.status], [101, 101]);
    let mut others = Vec::new();
    for path in ["/upgraded", "/permitted", "/guarded"] {
        let other = connect(path, "alice").await;
        assert_eq!(other.status, 101, "{path}");
        others.push(other);
    }

    sessions.revoke("alice");
    assert_eq!(alice.read_rest().await, "over");
    for mut other in others {
        assert_eq!(other.read_rest().await, "");
    }
    assert!(
        timeout(Duration::from_millis(100), bob.read_rest()).await.is_err(),
        "it is another session"
    );
    assert_eq!(connect("/ws", "alice").await.status, 401);
    assert_eq!(connect("/ws", "bob").await.status, 101);
}

#[tokio::test]
async fn validity_is_handed_over_in_the_extensions() {
    let now = SystemTime::now();
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let inner = service_fn(async |request: Request<()>| {
        let validity = request.extensions().get::<Validity>().cloned();
        Ok::<_, Infallible>(Response::new(validity.map(|validity| validity.expires_at())))
    });
    let check = |expires_at: Option<SystemTime>, revocation: Option<CancellationToken>| {
        let verify = move |_: Token| {
            let mut verified = Verified::new(expires_at);
            if let Some(revocation) = revocation.clone() {
                verified = verified.revoked_by(revocation);
            }
            async move { Ok(verified) }
        };
        TokenCheckLayer::new(
            TokenPolicy::bearer(verify.expiring(|expires_at| *expires_at)).keep_credential(),
        )
    };
    let (soon, late) = (now + LONG, now + 2 * LONG);
    for (outer, inner_check, seen) in [
        (check(None, None), check(None, None), Some(None)),
        (check(None, Some(CancellationToken::new())), check(None, None), Some(Some(None))),
        (check(Some(soon), None), check(None, None), Some(Some(Some(soon)))),
        // Both of two checks count.
        (check(Some(soon), None), check(Some(late), None), Some(Some(Some(soon)))),
        (check(Some(late), None), check(Some(soon), None), Some(Some(Some(soon)))),
        (check(None, None), check(Some(now - LONG), None), None),
        (check(Some(now), None), check(None, None), None),
        (check(None, Some(cancelled)), check(Some(late), None), None),
    ] {
        let service = ServiceBuilder::new().layer(outer).layer(inner_check).service(inner);
        let response = service.oneshot(bearer("any").request::<()>()).await.unwrap();
        match seen {
            Some(seen) => {
                assert_eq!((response.status().as_u16(), response.into_body()), (200, seen));
            }
            None => {
                assert_eq!(response.status(), 401);
                let rejection = response.extensions().get::<Rejection>().unwrap();
                assert!(rejection.source().unwrap().to_string().contains("expired"));
            }
        }
    }
}

#[tokio::test]
async fn validity_combines_nested_token_checks() {
    let revocation = CancellationToken::new();
    let [outer, inner] = [Some(revocation.clone()), None].map(|revocation| {
        TokenCheckLayer::new(
            TokenPolicy::bearer(move |_: Token| {
                let revocation = revocation.clone().unwrap_or_default();
                async move { Ok(Verified::new(()).revoked_by(revocation)) }
            })
            .keep_credential(),
        )
    });
    let (sender, mut seen) = tokio::sync::mpsc::channel(1);
    let service = service_fn(move |request: Request<()>| {
        let sender = sender.clone();
        async move {
            sender.send(request.extensions().get::<Validity>().unwrap().clone()).await.unwrap();
            Ok::<_, Infallible>(Response::new(()))
        }
    });
    let service = ServiceBuilder::new().layer(outer).layer(inner).service(service);
    service.oneshot(bearer("any").request::<()>()).await.unwrap();
    let validity = seen.recv().await.unwrap();
    assert!(!validity.has_ended() && !is_over(&validity).await);
    revocation.cancel();
    assert!(validity.has_ended() && is_over(&validity).await);
}
