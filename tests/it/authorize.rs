//! `GuardLayer::authorize`: an asynchronous check of the head, after the token and before the limit.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, StatusCode, request::Parts};
use tokio::{io::AsyncReadExt, sync::oneshot, time::sleep};
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{
    AcceptThenClose, Authorize, CancellationToken, Claims, ConnectionLimit, GuardLayer, Permit,
    ProblemJson, Rejection, RejectionKind, Reported, Sessions, StaticTokens, Token, TokenPolicy,
    Verified,
    test_util::{self, assert_accepted, assert_rejected},
};

use tracing::{Level, level_filters::LevelFilter};

use crate::{
    common::{ORIGIN, accepted_over, upgradable},
    decisions::{bearer, guard},
    limit::code,
    telemetry_log::Recorder,
};

type Log = Arc<Mutex<Vec<&'static str>>>;

fn tokens() -> TokenPolicy<&'static str> {
    TokenPolicy::bearer(StaticTokens::new([("s3cr3t", "alice"), ("t0ken", "bob")]).unwrap())
}

/// Like `tokens`, but has to wait.
fn slow_tokens() -> TokenPolicy<&'static str> {
    TokenPolicy::bearer(async |token: Token| {
        tokio::task::yield_now().await;
        match token.expose() {
            "s3cr3t" => Ok(Verified::new("alice")),
            "t0ken" => Ok(Verified::new("bob")),
            _ => Err(RejectionKind::TokenInvalid.into()),
        }
    })
}

/// Decides by the path and the claims.
async fn room(head: &Parts) -> Result<(), Rejection> {
    let claims = head.extensions.get::<Claims<&str>>().map(|Claims(user)| *user);
    tokio::task::yield_now().await;
    match (head.uri.path(), claims) {
        ("/ws" | "/public", _) | ("/alice", Some("alice")) => Ok(()),
        ("/down", _) => Err(Rejection::verifier_failed("no connection to 10.0.0.1")),
        ("/forbidden", _) => Err(RejectionKind::TokenForbidden.into()),
        _ => Err(Rejection::custom("not-a-member", StatusCode::FORBIDDEN)),
    }
}

async fn switch(mut request: Request<()>) -> Result<Response<String>, Infallible> {
    // Held until the response is dropped.
    let permit = Permit::claim(request.extensions_mut());
    let user = request.extensions().get::<Claims<&str>>().map_or("-", |Claims(user)| user);
    let status = if request.version() == http::Version::HTTP_2 { 200 } else { 101 };
    let response = Response::builder().status(status).extension(permit);
    Ok(response.body(user.to_owned()).unwrap())
}

#[tokio::test]
async fn authorization_decides_by_the_head_and_the_claims() {
    let guards = [
        ("at once", guard().token(tokens()).unwrap().authorize(room)),
        ("slow", guard().token(slow_tokens()).unwrap().authorize(room)),
        ("without a token", guard().authorize(room)),
        (
            "closure",
            guard().token(tokens()).unwrap().authorize(async |head: &Parts| room(head).await),
        ),
        ("twice", guard().token(tokens()).unwrap().authorize(room).authorize(room)),
    ];
    for (name, guard) in guards {
        let app = guard.reject_with(ProblemJson::new()).layer(service_fn(switch));
        for (path, token, expected) in [
            ("/public", "t0ken", None),
            ("/alice", "s3cr3t", None),
            ("/alice", "t0ken", Some((403, "not-a-member"))),
            ("/down", "s3cr3t", Some((503, "verifier-failed"))),
            ("/forbidden", "s3cr3t", Some((403, "token-forbidden"))),
        ] {
            // Without a policy there are no claims.
            let expected = match (name, path) {
                ("without a token", "/alice") => Some((403, "not-a-member")),
                _ => expected,
            };
            for request in bearer(token).target(path).over_both() {
                let accepted = accepted_over(request.version());
                let response = app.clone().oneshot(request).await.unwrap();
                let seen = code(&response).map(|code| (response.status().as_u16(), code));
                assert_eq!(seen, expected, "{name} {path} {token}");
                match expected {
                    None => accepted(&response),
                    Some((_, code)) => {
                        assert_rejected(&response, code);
                        assert!(response.body().contains(code), "{}", response.body());
                        assert!(!response.body().contains("10.0.0.1"), "{}", response.body());
                    }
                }
            }
        }
    }
}

/// An authorization of a type borrows from it and from the head.
#[tokio::test]
async fn type_can_be_an_authorization() {
    struct Only(String);

    impl<'a> Authorize<'a> for Only {
        async fn authorize(&'a self, head: &'a Parts) -> Result<(), Rejection> {
            let path = head.uri.path();
            tokio::task::yield_now().await;
            if path == self.0 {
                return Ok(());
            }
            Err(Rejection::custom("elsewhere", StatusCode::NOT_FOUND))
        }
    }

    let app = guard().authorize(Only("/here".to_owned())).layer(service_fn(switch));
    let at = |path| test_util::handshake(path).host("chat.example.com").origin(ORIGIN).build(());
    assert_accepted(&app.clone().oneshot(at("/here")).await.unwrap());
    assert_rejected(&app.oneshot(at("/there")).await.unwrap(), "elsewhere");
}

#[tokio::test]
async fn authorization_runs_between_the_token_and_the_limit() {
    let log = Log::default();
    let note = |step: &'static str| {
        let log = Arc::clone(&log);
        move || log.lock().unwrap().push(step)
    };
    let verified = note("token");
    let verifier = move |token: Token| {
        verified();
        async move {
            match token.expose() {
                "s3cr3t" => Ok(Verified::new("alice")),
                _ => Err(RejectionKind::TokenInvalid.into()),
            }
        }
    };
    let step = |name: &'static str, note: Box<dyn Fn() + Send + Sync>| {
        move |head: &Parts| {
            assert!(head.extensions.get::<Claims<&str>>().is_some());
            // The credential was removed.
            assert!(!head.headers.contains_key("authorization"));
            note();
            let is_rejected = head.uri.path().trim_start_matches('/') == name;
            async move {
                if is_rejected {
                    return Err(Rejection::custom(name, StatusCode::FORBIDDEN));
                }
                Ok(())
            }
        }
    };
    let keyed = note("limit");
    let sessions = Sessions::per_key(1, move |_: &Parts| {
        keyed();
        Some(())
    })
    .unwrap();
    let app = guard()
        .token(TokenPolicy::bearer(verifier))
        .unwrap()
        .authorize(step("first", Box::new(note("first"))))
        .authorize(step("second", Box::new(note("second"))))
        .sessions(&sessions)
        .layer(service_fn(switch));
    let all = &["token", "first", "second", "limit"][..];
    for (raw, expected, steps) in [
        (bearer("s3cr3t"), None, all),
        (bearer("s3cr3t").with("Origin", "https://evil.example"), Some("origin-not-allowed"), &[]),
        (bearer("s3cr3t").and("Sec-WebSocket-Protocol", "x"), Some("subprotocol-unsupported"), &[]),
        (bearer("guess"), Some("token-invalid"), &all[..1]),
        (bearer("s3cr3t").target("/first"), Some("first"), &all[..2]),
        (bearer("s3cr3t").target("/second"), Some("second"), &all[..3]),
    ] {
        for request in raw.over_both() {
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(code(&response), expected, "{raw:?}");
            assert_eq!(*std::mem::take(&mut *log.lock().unwrap()), *steps, "{raw:?}");
            assert_eq!(sessions.connections(), usize::from(expected.is_none()));
            drop(response);
            assert_eq!(sessions.connections(), 0);
        }
    }
    // Without a slot the authorizations have run.
    let _open = app.clone().oneshot(bearer("s3cr3t").request()).await.unwrap();
    log.lock().unwrap().clear();
    let full = app.oneshot(bearer("s3cr3t").request()).await.unwrap();
    assert_rejected(&full, "too-many-connections");
    assert_eq!(*log.lock().unwrap(), all);
}

/// An authorization whose future is dropped tells so.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.take().unwrap().send(()).ok();
    }
}

#[tokio::test(start_paused = true)]
async fn token_and_authorizations_have_one_deadline() {
    const OK: Option<&str> = None;
    const LATE: Option<&str> = Some("verifier-timeout");

    let seconds = Duration::from_secs;
    for (token, first, second, expected) in [
        (0, 9, 0, OK),
        (0, 11, 0, LATE),
        (9, 0, 0, OK),
        (11, 0, 0, LATE),
        (7, 2, 0, OK),
        (7, 4, 0, LATE),
        (4, 3, 2, OK),
        (4, 4, 4, LATE),
        (0, 6, 6, LATE),
    ] {
        let slow = move |_: Token| async move {
            sleep(seconds(token)).await;
            Ok(Verified::new(()))
        };
        let wait = |time| {
            move |_: &Parts| async move {
                sleep(seconds(time)).await;
                Ok(())
            }
        };
        let limit = ConnectionLimit::total(1).unwrap();
        let app = guard()
            .token(TokenPolicy::bearer(slow))
            .unwrap()
            .authorize(wait(first))
            .authorize(wait(second))
            .limit(limit.clone())
            .layer(service_fn(switch));
        for request in bearer("any").over_both() {
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(code(&response), expected, "{token} {first} {second}");
            drop(response);
            assert_eq!(limit.connections(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn late_authorization_is_dropped_and_named_in_the_log() {
    let (sender, mut dropped) = oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let hangs = move |_: &Parts| {
        let kept = Dropped(sender.lock().unwrap().take());
        async move {
            let _kept = kept;
            std::future::pending().await
        }
    };
    let app = guard().authorize(hangs).layer(service_fn(switch));
    let response = app.oneshot(bearer("any").request()).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_rejected(&response, "verifier-timeout");
    let rejection = response.extensions().get::<Rejection>().unwrap();
    let source = std::error::Error::source(rejection).unwrap().to_string();
    assert!(source.contains("authorization"), "{source}");
    dropped.try_recv().unwrap();
}

#[tokio::test]
async fn client_that_leaves_drops_the_authorization() {
    let (started, mut has_started) = oneshot::channel();
    let (sender, mut dropped) = oneshot::channel();
    let once = Mutex::new(Some((started, sender)));
    let hangs = move |_: &Parts| {
        let (started, sender) = once.lock().unwrap().take().unwrap();
        let kept = Dropped(Some(sender));
        async move {
            let _kept = kept;
            started.send(()).unwrap();
            std::future::pending().await
        }
    };
    let limit = ConnectionLimit::total(1).unwrap();
    let app = guard()
        .token(slow_tokens())
        .unwrap()
        .authorize(hangs)
        .limit(limit.clone())
        .layer(service_fn(switch));
    let mut response = Box::pin(app.oneshot(bearer("s3cr3t").request()));
    tokio::select! {
        _ = &mut response => panic!("there is no response"),
        started = &mut has_started => started.unwrap(),
    }
    assert!(dropped.try_recv().is_err());
    drop(response);
    dropped.try_recv().unwrap();
    assert_eq!(limit.connections(), 0);
}

#[tokio::test]
async fn authorization_that_panics_lets_nobody_in() {
    let limit = ConnectionLimit::total(1).unwrap();
    let before = |_: &Parts| -> std::future::Ready<Result<(), Rejection>> { panic!("on purpose") };
    let inside = async |_: &Parts| -> Result<(), Rejection> { panic!("on purpose") };
    let later = async |_: &Parts| -> Result<(), Rejection> {
        tokio::task::yield_now().await;
        panic!("on purpose")
    };
    for guard in [guard().authorize(before), guard().authorize(inside), guard().authorize(later)] {
        let app = guard.limit(limit.clone()).layer(service_fn(switch));
        for request in bearer("any").over_both() {
            let response = tokio::spawn(app.clone().oneshot(request)).await;
            assert!(response.unwrap_err().is_panic());
            assert_eq!(limit.connections(), 0);
        }
    }
}

#[tokio::test]
async fn report_only_mode_reports_the_authorization() {
    let inner = service_fn(async |request: Request<()>| {
        let Reported(rejection) = request.extensions().get().unwrap();
        let response = Response::builder().status(101);
        Ok::<_, Infallible>(response.body(rejection.kind().code()).unwrap())
    });
    let never = async |_: &Parts| -> Result<(), Rejection> { panic!("the first one has rejected") };
    let app = guard().authorize(room).authorize(never).dangerous_report_only().layer(inner);
    for (path, expected) in [("/elsewhere", "not-a-member"), ("/down", "verifier-failed")] {
        let response = app.clone().oneshot(bearer("any").target(path).request()).await.unwrap();
        assert_accepted(&response);
        assert_eq!(*response.body(), expected);
        let Reported(rejection) = response.extensions().get().unwrap();
        assert_eq!(rejection.kind().code(), expected);
    }
}

#[tokio::test]
async fn accept_then_close_shows_the_rejection_of_an_authorization() {
    let guard = guard().authorize(room).accept_then_close(AcceptThenClose::new());
    let app = guard.layer(service_fn(switch));
    for (path, code, shown) in [
        ("/forbidden", "token-forbidden", Some(4403_u16)),
        ("/down", "verifier-failed", Some(1013)),
        // A code of one's own has no close code.
        ("/elsewhere", "not-a-member", None),
    ] {
        let request = test_util::handshake(path).host("chat.example.com").origin(ORIGIN);
        let (request, mut client) = request.upgradable(()).await;
        let response = app.clone().oneshot(request).await.unwrap();
        assert_rejected(&response, code);
        let Some(close_code) = shown else {
            assert_eq!(response.status(), 403, "{path}");
            continue;
        };
        assert_eq!(response.status(), 101, "{path}");
        drop(response);
        let mut frame = vec![0; 4 + code.len()];
        client.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame[2..4], close_code.to_be_bytes(), "{path}");
        assert_eq!(&frame[4..], code.as_bytes());
    }
}

#[tokio::test]
async fn authorized_handshake_is_completed_by_the_layer() {
    let inner = || service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let app = guard().authorize(room).on_upgraded(async |_| {}).layer(inner());
    for request in upgradable(&bearer("any")) {
        let accepted = accepted_over(request.version());
        accepted(&app.clone().oneshot(request).await.unwrap());
    }
    for request in upgradable(&bearer("any").target("/elsewhere")) {
        assert_rejected(&app.clone().oneshot(request).await.unwrap(), "not-a-member");
    }
    let _: GuardLayer = guard().authorize(room);
}

#[tokio::test]
async fn authorization_is_logged_once() {
    let recorder = Recorder::default();
    let _guard = recorder.install(LevelFilter::TRACE);
    let app = guard().token(slow_tokens()).unwrap().authorize(room).layer(service_fn(switch));
    for (path, level, code, message) in [
        ("/public", Level::DEBUG, "accepted", "accepted"),
        ("/elsewhere", Level::WARN, "not-a-member", "rejected: not-a-member"),
        ("/down", Level::ERROR, "verifier-failed", "; because: no connection to 10.0.0.1"),
    ] {
        for request in bearer("s3cr3t").target(path).over_both() {
            drop(app.clone().oneshot(request).await.unwrap());
            let [event] = &recorder.take_own()[..] else { panic!("{path}") };
            assert_eq!((event.level(), &*event.fields["code"]), (level, code), "{path}");
            assert!(event.message().contains(message), "{}", event.message());
        }
    }
}

#[tokio::test]
async fn claims_that_end_during_the_authorization_are_rejected() {
    let revocation = CancellationToken::new();
    let revoked = revocation.clone();
    let verify = move |_: Token| {
        let verified = Verified::new("alice").revoked_by(revoked.clone());
        async move { Ok(verified) }
    };
    let revoke = move |_: &Parts| {
        revocation.cancel();
        async { Ok(()) }
    };
    let app = guard().token(TokenPolicy::bearer(verify)).unwrap().authorize(revoke);
    let response = app.layer(service_fn(switch)).oneshot(bearer("any").request()).await.unwrap();
    assert_rejected(&response, "token-invalid");
}
