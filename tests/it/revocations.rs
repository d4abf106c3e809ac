//! Revoked tokens, in memory. Those in Redis are in `tests/programs`.

use std::{
    collections::BTreeMap,
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{Request, StatusCode};
use tower::ServiceExt;
use tower_ws_guard::{
    Rejection, RejectionKind, Revocations, StaticTokens, Token, TokenIdentity, TokenPolicy,
    Verified, VerifyToken,
    token::ticket::{MemoryTicketStore, TicketVerifier},
};

use crate::{
    common::handshake,
    limit::{Handler, guard},
};

const HOUR: Duration = Duration::from_secs(3600);

fn in_memory(longest_lifetime: Duration) -> Revocations {
    Revocations::in_memory(longest_lifetime).unwrap()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What a token `ID SUBJECT SECONDS` says. An empty part is missing.
#[derive(Clone, Debug)]
struct Session {
    id: String,
    subject: String,
    issued_at: SystemTime,
}

fn identity(session: &Session) -> TokenIdentity<'_> {
    let mut identity = TokenIdentity::new();
    if !session.id.is_empty() {
        identity = identity.id(&session.id);
    }
    if !session.subject.is_empty() {
        identity = identity.subject(&session.subject, session.issued_at);
    }
    identity
}

fn verifier(revocations: &Revocations) -> impl VerifyToken<Claims = Session> + use<> {
    let verifier = |token: Token| async move {
        let [id, subject, issued_at] = token.expose().split(' ').collect::<Vec<_>>()[..] else {
            return Err(RejectionKind::TokenInvalid.into());
        };
        let issued_at = at(issued_at.parse().unwrap());
        Ok(Verified::new(Session { id: id.into(), subject: subject.into(), issued_at }))
    };
    verifier.unless_revoked(revocations, identity)
}

async fn verify(verifier: &impl VerifyToken, token: &str) -> Result<(), Rejection> {
    let (parts, ()) = Request::new(()).into_parts();
    verifier.verify(Token::new(token), &parts).await.map(drop)
}

async fn is_revoked(revocations: &Revocations, token: &str) -> bool {
    match verify(&verifier(revocations), token).await {
        Ok(()) => false,
        Err(rejection) => {
            assert_eq!(rejection.kind(), RejectionKind::TokenInvalid);
            let shown = format!("{rejection:?}");
            assert!(shown.contains("revoked") && !shown.contains("alice"), "{shown}");
            true
        }
    }
}

#[tokio::test]
async fn revoked_tokens_are_rejected() {
    let revocations = in_memory(HOUR);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    revocations.revoke_token("t1").await.unwrap();
    revocations.revoke_token("").await.unwrap();
    revocations.revoke_subject("alice", at(now)).await.unwrap();
    revocations.revoke_subject("bob", at(now + 60)).await.unwrap();
    revocations.revoke_subject("early", at(0)).await.unwrap();
    for (token, revoked) in [
        ("t1  0".to_owned(), true),
        (format!("t1 carol {now}"), true),
        ("t1 carol 99999999999".into(), true),
        ("t2  0".into(), false),
        (format!("t2 alice {}", now - 1), true),
        (format!("t2 alice {now}"), true),
        (format!("t2 alice {}", now + 1), false),
        (format!("t1 alice {}", now + 1), true),
        (" alice 0".into(), true),
        (format!("t2 bob {}", now + 60), true),
        (format!("t2 bob {}", now + 61), false),
        (" early 0".into(), true),
        (" early 1".into(), false),
        ("t2 carol 0".into(), false),
        // An id is no subject, and the other way around.
        ("alice  0".into(), false),
        (" t1 0".into(), false),
        // Neither an id nor a subject.
        ("  0".into(), false),
    ] {
        assert_eq!(is_revoked(&revocations, &token).await, revoked, "{token}");
    }
    assert!(!is_revoked(&in_memory(HOUR), "t1 alice 0").await);
    assert!(is_revoked(&revocations.clone(), "t1 alice 0").await);
}

#[tokio::test]
async fn later_time_of_a_subject_counts() {
    for times in [[100, 200], [200, 100]] {
        let revocations = in_memory(HOUR);
        for time in times {
            revocations.revoke_subject("alice", at(time)).await.unwrap();
        }
        assert!(is_revoked(&revocations, " alice 200").await);
        assert!(!is_revoked(&revocations, " alice 201").await);
    }
}

#[tokio::test]
async fn extreme_times_and_lifetimes_are_accepted() {
    assert!(Revocations::in_memory(Duration::ZERO).is_err());
    for lifetime in [HOUR, Duration::MAX] {
        let revocations = in_memory(lifetime);
        let before = UNIX_EPOCH - HOUR;
        let far = UNIX_EPOCH + Duration::from_secs(u64::MAX / 4);
        for time in [before, far] {
            revocations.revoke_subject("alice", time).await.unwrap();
            revocations.revoke_token("t1").await.unwrap();
        }
        assert!(is_revoked(&revocations, "t1  0").await);
        assert!(is_revoked(&revocations, " alice 99999999999").await);
    }
}

#[tokio::test]
async fn revocation_is_forgotten_after_the_longest_lifetime() {
    let short = Duration::from_millis(20);
    let revocations = in_memory(short);
    let ahead = SystemTime::now() + HOUR;
    revocations.revoke_subject("alice", SystemTime::now()).await.unwrap();
    revocations.revoke_subject("bob", ahead).await.unwrap();
    revocations.revoke_token("t1").await.unwrap();
    let forgotten = async {
        while is_revoked(&revocations, "t1  0").await || is_revoked(&revocations, " alice 0").await
        {
            tokio::time::sleep(short).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), forgotten).await.expect("it is forgotten");
    // Tokens are issued until then, and expire later.
    assert!(is_revoked(&revocations, " bob 0").await);
}

#[tokio::test]
async fn expired_revocations_do_not_fill_the_memory() {
    let short = Duration::from_millis(1);
    let revocations = in_memory(short);
    let shown = |revocations: &Revocations| {
        let shown = format!("{revocations:?}");
        let count = shown.split("in_memory: ").nth(1).unwrap().trim_end_matches(" }");
        count.parse::<usize>().unwrap()
    };
    let mut most = 0;
    for round in 0..50 {
        for id in 0..100 {
            revocations.revoke_token(&format!("{round} {id}")).await.unwrap();
        }
        tokio::time::sleep(2 * short).await;
        most = most.max(shown(&revocations));
    }
    assert!(most >= 32 && shown(&revocations) < 1000, "{most} {revocations:?}");

    let lasting = in_memory(HOUR);
    for id in 0..1000 {
        lasting.revoke_token(&id.to_string()).await.unwrap();
        lasting.revoke_token("again").await.unwrap();
    }
    assert_eq!(shown(&lasting), 1001);
    for id in 0..1000 {
        assert!(is_revoked(&lasting, &format!("{id}  0")).await);
    }
}

#[test]
fn verifier_with_revocations_in_memory_does_not_wait() {
    let revocations = in_memory(HOUR);
    let tokens = StaticTokens::new([("s3cr3t", "alice"), ("tr0ub4dor", "bob")]).unwrap();
    let verifier = tokens.unless_revoked(&revocations, |user: &&'static str| {
        TokenIdentity::new().subject(user, UNIX_EPOCH)
    });
    let app = Handler::Holds.behind(guard().token(TokenPolicy::bearer(verifier)).unwrap());
    let status = |token: &str| {
        let request = handshake().and("Authorization", format!("Bearer {token}")).request();
        let future = pin!(app.clone().oneshot(request));
        let Poll::Ready(Ok(response)) = future.poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("it waits")
        };
        response.status()
    };
    assert_eq!(status("s3cr3t"), StatusCode::SWITCHING_PROTOCOLS);
    let revoke = pin!(revocations.revoke_subject("alice", UNIX_EPOCH));
    assert!(revoke.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    assert_eq!(status("s3cr3t"), StatusCode::UNAUTHORIZED);
    assert_eq!(status("tr0ub4dor"), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(status("guess"), StatusCode::UNAUTHORIZED);
}

/// A revoked token is not known to this verifier, so the next one decides.
#[tokio::test]
async fn revocation_is_combined_with_other_verifiers() {
    let revocations = in_memory(HOUR);
    let tokens = |name| StaticTokens::new([("s3cr3t", name), ("other", name)]).unwrap();
    let first = || {
        tokens("alice").unless_revoked(&revocations, |user: &&'static str| {
            TokenIdentity::new().subject(user, UNIX_EPOCH)
        })
    };
    let codes = async || {
        let mut codes = BTreeMap::new();
        let code = |result: Result<(), Rejection>| match result {
            Ok(()) => "accepted",
            Err(rejection) => rejection.kind().code(),
        };
        codes.insert("or", code(verify(&first().or(tokens("bob")), "s3cr3t").await));
        codes.insert("require", code(verify(&first().require(|_| false), "s3cr3t").await));
        codes.insert("boxed", code(verify(&first().boxed(), "s3cr3t").await));
        codes
    };
    let expected =
        BTreeMap::from([("or", "accepted"), ("require", "token-forbidden"), ("boxed", "accepted")]);
    assert_eq!(codes().await, expected);
    revocations.revoke_subject("alice", UNIX_EPOCH).await.unwrap();
    let expected = BTreeMap::from([
        ("or", "accepted"),
        ("require", "token-invalid"),
        ("boxed", "token-invalid"),
    ]);
    assert_eq!(codes().await, expected);

    let tickets = TicketVerifier::<String, _>::new(MemoryTicketStore::default());
    let tickets = tickets.unless_revoked(&revocations, |user: &String| {
        TokenIdentity::new().subject(user, UNIX_EPOCH)
    });
    assert!(!first().is_one_time());
    assert!(tickets.is_one_time());
}

#[test]
fn debug_output_hides_the_identity() {
    let identity = TokenIdentity::new().id("t1-secret").subject("alice", UNIX_EPOCH);
    let shown = format!("{identity:?} {:?}", in_memory(HOUR));
    assert!(!shown.contains("secret") && !shown.contains("alice"), "{shown}");
}
