//! `Drain`: no new handshakes, a signal for open connections, and a wait with a deadline.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response, StatusCode};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_ws_guard::{
    AllowOrigin, Drain, Ended, GuardLayer, OriginCheckLayer, PendingUpgrade, Permit, Rejection,
    ResponderLayer, StaticTokens, Token, TokenCheckLayer, TokenPolicy, VersionCheckLayer,
    test_util,
};

use crate::{
    common::{handshake, plain, upgradable},
    limit::is_random_delay,
};

pub(crate) type App = BoxCloneSyncService<Request<()>, Response<()>, Infallible>;

/// Keeps the permit, or the connection, in the response.
pub(crate) fn behind<L>(layer: L) -> App
where
    L: Layer<App>,
    L::Service: Service<Request<()>, Response = Response<()>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    <L::Service as Service<Request<()>>>::Future: Send,
{
    let inner = service_fn(async |mut request: Request<()>| {
        let mut response = Response::new(());
        match request.extensions_mut().remove::<PendingUpgrade>() {
            Some(pending) => {
                drop(response.extensions_mut().insert(std::sync::Arc::new(pending.accept())));
            }
            None => drop(response.extensions_mut().insert(Permit::claim(request.extensions_mut()))),
        }
        Ok(response)
    });
    BoxCloneSyncService::new(layer.layer(BoxCloneSyncService::new(inner)))
}

fn guard() -> GuardLayer {
    GuardLayer::new(AllowOrigin::same_origin())
}

async fn call(app: &App, request: Request<()>) -> Response<()> {
    app.clone().oneshot(request).await.unwrap()
}

fn code(response: &Response<()>) -> Option<&'static str> {
    response.extensions().get::<Rejection>().map(|rejection| rejection.kind().code())
}

#[tokio::test]
async fn drain_rejects_every_new_handshake() {
    let tokens = TokenPolicy::bearer(StaticTokens::new([("s3cr3t", ())]).unwrap());
    let drain = Drain::new();
    let apps = [
        behind(guard().drain(&drain)),
        behind(guard().token(tokens.clone()).unwrap().drain(&drain)),
        behind(guard().drain(&drain).dangerous_report_only()),
        behind(VersionCheckLayer::new().drain(&drain)),
        behind(OriginCheckLayer::new(AllowOrigin::same_origin()).drain(&drain)),
        behind(TokenCheckLayer::new(tokens).drain(&drain)),
        behind(ResponderLayer::new().drain(&drain)),
        behind(
            ServiceBuilder::new()
                .layer(guard().drain(&drain))
                .layer(ResponderLayer::new())
                .into_inner(),
        ),
    ];
    let valid = handshake().and("Authorization", "Bearer s3cr3t");
    let mut open = Vec::new();
    for app in &apps {
        for request in upgradable(&valid) {
            let response = call(app, request).await;
            assert_eq!(code(&response), None);
            open.push(response);
            assert_eq!(drain.connections(), open.len());
        }
    }
    assert!(!drain.has_started());

    drain.start();
    drain.start();
    assert!(drain.has_started());
    for app in &apps {
        // No other check runs.
        for raw in [&valid, &handshake(), &valid.clone().with("Sec-WebSocket-Key", "short")] {
            for request in upgradable(raw) {
                let rejected = call(app, request).await;
                assert_eq!(
                    (rejected.status().as_u16(), code(&rejected)),
                    (503, Some("shutting-down"))
                );
                assert!(is_random_delay(&rejected.headers()["retry-after"]));
            }
        }
        let ordinary = call(app, plain().request()).await;
        assert_eq!((ordinary.status(), code(&ordinary)), (StatusCode::OK, None));
    }
    assert_eq!(drain.connections(), open.len());
    drop(open);
    assert_eq!(drain.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn drain_waits_for_connections_until_its_deadline() {
    let drain = Drain::new();
    let app = behind(guard().drain(&drain));
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(call(&app, handshake().request()).await);
    }
    let start = Instant::now();
    assert_eq!(drain.wait(Duration::from_secs(7)).await, 3);
    assert_eq!(start.elapsed(), Duration::from_secs(7));
    // `wait` has started the drain.
    assert!(drain.has_started());

    open.pop();
    let waiting = drain.clone();
    let waiting = tokio::spawn(async move { waiting.wait(Duration::from_secs(60)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    drop(open);
    assert_eq!(waiting.await.unwrap(), 0);
    assert_eq!(start.elapsed(), Duration::from_secs(8));
    assert_eq!(drain.wait(Duration::ZERO).await, 0);
}

#[tokio::test(start_paused = true)]
async fn drain_signals_open_connections() {
    const LONG: Duration = Duration::from_secs(3600);
    // A connection hears of either of its two drains, but not of a third.
    for stops in 0..3 {
        let drains = [Drain::new(), Drain::new(), Drain::new()];
        let count = || (drains[0].connections(), drains[1].connections());
        let responder = ResponderLayer::on_upgraded(async |socket| _ = socket.ended().await);
        let callback = ServiceBuilder::new()
            .layer(guard().drain(&drains[0]))
            .layer(responder.drain(&drains[1]));
        let (request, _client) = test_util::upgradable(handshake().request()).await;
        assert_eq!(
            call(&behind(callback.into_inner()), request).await.status(),
            StatusCode::SWITCHING_PROTOCOLS
        );

        let guards =
            ServiceBuilder::new().layer(guard().drain(&drains[0])).layer(guard().drain(&drains[1]));
        let response = call(&behind(guards.into_inner()), handshake().request()).await;
        let permit = response.extensions().get::<Option<Permit>>().unwrap().clone().unwrap();
        assert_eq!(count(), (2, 2));
        assert!(timeout(LONG, permit.ended()).await.is_err());
        let ended = permit.ended();
        // The future holds no permit.
        drop((permit, response));
        assert_eq!(count(), (1, 1));

        drains[stops].start();
        assert_eq!(timeout(LONG, ended).await.ok(), (stops < 2).then_some(Ended::Drained));
        tokio::time::sleep(LONG).await;
        assert_eq!(count(), if stops < 2 { (0, 0) } else { (1, 1) });
    }
}

#[tokio::test]
async fn drain_rejects_a_handshake_that_is_being_verified() {
    let (started, verifying) = oneshot::channel::<()>();
    let (go_on, wait) = oneshot::channel::<()>();
    let channels = std::sync::Arc::new(std::sync::Mutex::new(Some((started, wait))));
    let verifier = move |_: Token| {
        let (started, wait) = channels.lock().unwrap().take().unwrap();
        async move {
            started.send(()).unwrap();
            wait.await.unwrap();
            Ok::<_, Rejection>(().into())
        }
    };
    let drain = Drain::new();
    let app = behind(guard().token(TokenPolicy::bearer(verifier)).unwrap().drain(&drain));
    let response = tokio::spawn(async move {
        call(&app, handshake().and("Authorization", "Bearer x").request()).await
    });
    verifying.await.unwrap();
    drain.start();
    go_on.send(()).unwrap();
    assert_eq!(code(&response.await.unwrap()), Some("shutting-down"));
    assert_eq!(drain.wait(Duration::from_secs(30)).await, 0);
}

#[tokio::test]
async fn ended_never_resolves_without_a_drain() {
    let responder = ResponderLayer::new();
    let (sender, receiver) = oneshot::channel();
    let sender = std::sync::Arc::new(std::sync::Mutex::new(Some(sender)));
    let inner = service_fn(move |request: Request<()>| {
        let sender = sender.lock().unwrap().take().unwrap();
        request.extensions().get::<PendingUpgrade>().unwrap().on_upgrade(async move |socket| {
            assert!(socket.permit().is_none());
            let ended = timeout(Duration::from_millis(50), socket.ended()).await;
            sender.send(ended.is_err()).unwrap();
        });
        async { Ok::<_, Infallible>(Response::new(())) }
    });
    let (request, _client) = test_util::upgradable(handshake().request()).await;
    responder.layer(inner).oneshot(request).await.unwrap();
    assert!(receiver.await.unwrap());
}

/// A handler of signals may have a runtime of its own, which ends at once.
#[tokio::test]
async fn drain_that_starts_on_another_runtime_notifies_the_connections() {
    let drain = Drain::new();
    let response = call(&behind(guard().drain(&drain)), handshake().request()).await;
    let permit = response.extensions().get::<Option<Permit>>().unwrap().clone().unwrap();
    let starts = drain.clone();
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move { starts.start() });
    });
    other.join().unwrap();
    assert_eq!(timeout(Duration::from_secs(30), permit.ended()).await, Ok(Ended::Drained));
}

/// The runtime of the first connection may have ended.
#[tokio::test]
async fn drain_notifies_the_connections_after_the_end_of_their_first_runtime() {
    let drain = Drain::spread_over(Duration::from_secs(1));
    let enters = drain.clone();
    let first = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(call(&behind(guard().drain(&enters)), handshake().request()))
    });
    let first = first.join().unwrap();
    let second = call(&behind(guard().drain(&drain)), handshake().request()).await;
    drain.start();
    for response in [first, second] {
        let permit = response.extensions().get::<Option<Permit>>().unwrap().clone().unwrap();
        assert_eq!(timeout(Duration::from_secs(30), permit.ended()).await, Ok(Ended::Drained));
    }
}
