//! Metrics: each handshake is counted once, by outcome and code, and each connection while it is open.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{pending, ready},
    io,
    panic::resume_unwind,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, StatusCode, Version, request::Parts};
use metrics::set_default_local_recorder;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::{sleep, timeout},
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_ws_guard::{
    AcceptThenClose, ConnectionLimit, Drain, GuardLayer, OriginCheckLayer, PendingUpgrade,
    PermessageDeflate, Permit, Rejection, RejectionKind, ResponderLayer, Sessions, Token,
    TokenCheckLayer, TokenPolicy, TokenSource, Upgraded, Verified, VersionCheckLayer, check_fn,
    telemetry::describe_metrics, test_util,
};

use crate::{
    common::scrape::{assert_help, connections, expected, handshakes, scrape, wait_for},
    common::{self, Raw, handshake, plain, upgradable},
    decisions::{App, app, bearer, chat, guard, hosts, origins},
};

const TIMEOUT: Duration = Duration::from_secs(30);
const EVIL: &str = "https://evil.example";

// Recorder

fn recorder() -> (PrometheusRecorder, PrometheusHandle) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    (recorder, handle)
}

// Layers

fn policy() -> TokenPolicy<&'static str> {
    let sources = [TokenSource::authorization(), TokenSource::query("token").unwrap()];
    let verifier = async |token: Token| match token.expose() {
        "good" => Ok(Verified::new("alice")),
        "weak" => Err(RejectionKind::TokenForbidden.into()),
        "down" => Err(Rejection::verifier_failed("no connection")),
        "broke" => Err(Rejection::custom("quota-exceeded", StatusCode::PAYMENT_REQUIRED)),
        _ => Err(RejectionKind::TokenInvalid.into()),
    };
    TokenPolicy::from_sources(sources, move |token: Token| Box::pin(verifier(token))).unwrap()
}

fn good() -> Raw {
    bearer("good")
}

fn responder() -> ResponderLayer {
    ResponderLayer::new().extensions(PermessageDeflate::new())
}

/// The guard with a responder, and all four layers; both with all checks.
fn stacks() -> [App; 2] {
    [
        app(ServiceBuilder::new().layer(guard().token(policy()).unwrap()).layer(responder())),
        app(ServiceBuilder::new()
            .layer(VersionCheckLayer::new())
            .layer(OriginCheckLayer::new(origins()).allow_host(hosts()))
            .layer(TokenCheckLayer::new(policy()))
            .layer(responder().subprotocols(chat()))),
    ]
}

fn reporting_stacks() -> [App; 2] {
    [
        app(ServiceBuilder::new()
            .layer(guard().token(policy()).unwrap().dangerous_report_only())
            .layer(responder().dangerous_report_only())),
        app(ServiceBuilder::new()
            .layer(VersionCheckLayer::new().dangerous_report_only())
            .layer(OriginCheckLayer::new(origins()).allow_host(hosts()).dangerous_report_only())
            .layer(TokenCheckLayer::new(policy()).dangerous_report_only())
            .layer(responder().subprotocols(chat()).dangerous_report_only())),
    ]
}

/// The handshake metrics of these requests.
async fn count(
    app: &App,
    requests: impl IntoIterator<Item = Request<()>>,
) -> BTreeMap<String, f64> {
    let (recorder, handle) = recorder();
    let _guard = set_default_local_recorder(&recorder);
    for request in requests {
        app.clone().oneshot(request).await.ok();
    }
    handshakes(&handle.render())
}

/// Handshakes that every stack rejects, over HTTP/1.1.
fn rejected() -> Vec<(Raw, &'static str)> {
    let line = |name, value: &str| good().with(name, value);
    let offer = |subprotocols: &str| good().and("Sec-WebSocket-Protocol", subprotocols);
    vec![
        (good().method("POST"), "method-not-allowed"),
        (good().version("HTTP/1.0"), "http-version"),
        (line("Upgrade", "h2c"), "upgrade-missing"),
        (line("Connection", "keep-alive"), "connection-missing"),
        (line("Connection", "Upgrade, close"), "connection-close"),
        (good().without("Host"), "host-invalid"),
        (good().without("Sec-WebSocket-Key"), "key-missing"),
        (good().and("Sec-WebSocket-Key", common::KEY), "key-repeated"),
        (line("Sec-WebSocket-Key", "zzz"), "key-invalid"),
        (good().without("Sec-WebSocket-Version"), "version-missing"),
        (line("Sec-WebSocket-Version", "13, 8"), "version-invalid"),
        (line("Sec-WebSocket-Version", "8"), "version-unsupported"),
        (good().and("Content-Length", "5"), "body-present"),
        (offer("a b"), "subprotocol-invalid"),
        (line("Sec-WebSocket-Extensions", "a b"), "extension-invalid"),
        (line("Host", "evil.example"), "host-not-allowed"),
        (good().and("Origin", EVIL), "origin-repeated"),
        (line("Origin", "https://chat.example.com/"), "origin-invalid"),
        (good().without("Origin"), "origin-missing"),
        (line("Origin", EVIL), "origin-not-allowed"),
        (offer("other"), "subprotocol-unsupported"),
        (handshake(), "token-missing"),
        (good().target("/ws?token=good"), "token-ambiguous"),
        (bearer("guess"), "token-invalid"),
        (bearer("weak"), "token-forbidden"),
        (bearer("down"), "verifier-failed"),
        (good().target("/claim"), "not-upgradable"),
        (bearer("broke"), "quota-exceeded"),
    ]
}

/// Servers that drain, or are slow, full or wrong, with the code of their rejection.
async fn full_or_slow(report_only: bool) -> Vec<(App, &'static str)> {
    let guard = || match report_only {
        true => guard().dangerous_report_only(),
        false => guard(),
    };
    let full = async |guard: GuardLayer| {
        acquire_slot(guard.clone()).await;
        app(ServiceBuilder::new().layer(guard).layer(ResponderLayer::new()))
    };
    let many = Sessions::per_key(1, |_: &Parts| Some(())).unwrap();
    let drain = Drain::new();
    drain.start();
    let slow = guard()
        .token(TokenPolicy::bearer(|_: Token| pending::<Result<Verified<()>, Rejection>>()))
        .unwrap();
    let mut apps = vec![
        (app(slow.check_timeout(Duration::from_millis(1)).unwrap()), "verifier-timeout"),
        (full(guard().limit(ConnectionLimit::total(1).unwrap())).await, "over-capacity"),
        (full(guard().sessions(&many)).await, "too-many-connections"),
        (app(guard().limit(ConnectionLimit::total(1).unwrap())), "permit-unclaimed"),
    ];
    if !report_only {
        apps.push((app(guard().drain(&drain)), "shutting-down"));
        let names_extension = service_fn(async |_: Request<()>| {
            let response = Response::builder().status(101).header("sec-websocket-extensions", "a");
            Ok(response.body(()).unwrap())
        });
        let app = BoxCloneSyncService::new(guard().layer(names_extension));
        apps.push((app, "extension-not-offered"));
    }
    apps
}

/// Acquires one slot forever.
async fn acquire_slot(guard: GuardLayer) {
    let holder = guard.layer(service_fn(async |mut request: Request<()>| {
        std::mem::forget(Permit::claim(request.extensions_mut()));
        Ok::<_, &str>(Response::new(()))
    }));
    let response = holder.oneshot(handshake().request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn limit_drain_and_timeout_rejections_are_counted() {
    for (app, code) in full_or_slow(false).await {
        let counted = count(&app, [good().upgradable()]).await;
        assert_eq!(counted, expected([("rejected", code, 1.0)]));
    }
    for (app, code) in full_or_slow(true).await {
        let counted = count(&app, [good().upgradable()]).await;
        assert_eq!(counted, expected([("accepted", code, 1.0)]));
    }
}

#[tokio::test]
async fn rejection_is_counted_once_by_its_code() {
    let codes = rejected().into_iter().map(|(_, code)| code).collect::<BTreeSet<_>>();
    let others = full_or_slow(false).await.into_iter().map(|(_, code)| code).collect::<Vec<_>>();
    let known =
        |kind: &&RejectionKind| codes.contains(kind.code()) || others.contains(&kind.code());
    let missing = RejectionKind::ALL.iter().filter(|kind| !known(kind)).collect::<Vec<_>>();
    assert_eq!(missing, [&RejectionKind::GuardMissing, &RejectionKind::NotWebsocket]);
    for app in stacks() {
        for (raw, code) in rejected() {
            let counted = count(&app, [raw.upgradable()]).await;
            assert_eq!(counted, expected([("rejected", code, 1.0)]), "{raw:?}");
        }
        let all = count(
            &app,
            rejected().iter().flat_map(|(raw, _)| [raw.upgradable(), raw.upgradable()]),
        )
        .await;
        assert_eq!(all, expected(codes.iter().map(|code| ("rejected", *code, 2.0))));
    }
}

#[tokio::test]
async fn decision_is_counted_once() {
    let blocked = check_fn(|_| Err(Rejection::custom("blocked", StatusCode::FORBIDDEN)));
    let guarded = || app(guard().token(policy()).unwrap());
    let mut cases = vec![
        (guarded(), good(), "accepted", "accepted"),
        (guarded(), good().target("/decline"), "rejected", "declined"),
        (guarded(), good().target("/fail"), "rejected", "error"),
        (guarded(), good().with("Origin", EVIL), "rejected", "origin-not-allowed"),
        (app(guard().check(blocked)), good(), "rejected", "blocked"),
        (
            app(ServiceBuilder::new()
                .layer(VersionCheckLayer::new())
                .layer(guard().check(blocked))),
            good(),
            "rejected",
            "blocked",
        ),
        (app(VersionCheckLayer::new()), good(), "accepted", "accepted"),
        (
            app(VersionCheckLayer::new()),
            good().with("Sec-WebSocket-Version", "8"),
            "rejected",
            "version-unsupported",
        ),
        (
            app(OriginCheckLayer::new(origins())),
            good().without("Origin"),
            "rejected",
            "origin-missing",
        ),
        (app(TokenCheckLayer::new(policy())), handshake(), "rejected", "token-missing"),
        (app(ResponderLayer::new()), good(), "accepted", "accepted"),
        (app(ResponderLayer::new()), good().target("/decline"), "rejected", "declined"),
        (app(ResponderLayer::new()), good().target("/claim"), "rejected", "not-upgradable"),
        (app(ResponderLayer::on_upgraded(async |_| {})), good(), "accepted", "accepted"),
    ];
    for stack in stacks() {
        cases.extend([
            (stack.clone(), good(), "accepted", "accepted"),
            (stack.clone(), good().and("Sec-WebSocket-Protocol", "chat"), "accepted", "accepted"),
            (stack.clone(), good().target("/decline"), "rejected", "declined"),
            (stack.clone(), good().target("/fail"), "rejected", "error"),
            (stack.clone(), good().with("Origin", EVIL), "rejected", "origin-not-allowed"),
            (stack, bearer("guess"), "rejected", "token-invalid"),
        ]);
    }
    for (index, (app, raw, outcome, code)) in cases.into_iter().enumerate() {
        for request in upgradable(&raw) {
            // Over HTTP/2 a success without acceptance is the response of another handler.
            let code = match (code, request.version()) {
                ("not-upgradable", Version::HTTP_2) => "declined",
                _ => code,
            };
            assert_eq!(
                count(&app, [request]).await,
                expected([(outcome, code, 1.0)]),
                "{index} {raw:?}"
            );
        }
    }

    let close = AcceptThenClose::new;
    for app in [
        app(guard().token(policy()).unwrap().accept_then_close(close())),
        app(ServiceBuilder::new()
            .layer(VersionCheckLayer::new())
            .layer(TokenCheckLayer::new(policy()).accept_then_close(close()))),
    ] {
        let (request, _client) = test_util::upgradable(handshake().request()).await;
        assert_eq!(count(&app, [request]).await, expected([("rejected", "token-missing", 1.0)]));
    }
}

#[tokio::test]
async fn report_only_rejection_is_counted_as_accepted_with_its_code() {
    for app in reporting_stacks() {
        for (raw, outcome, code) in [
            (good(), "accepted", "accepted"),
            (good().with("Host", "evil.example"), "accepted", "host-not-allowed"),
            (good().with("Origin", EVIL), "accepted", "origin-not-allowed"),
            (good().and("Sec-WebSocket-Protocol", "other"), "accepted", "subprotocol-unsupported"),
            (handshake(), "accepted", "token-missing"),
            (bearer("guess"), "accepted", "token-invalid"),
            (bearer("down"), "accepted", "verifier-failed"),
            (bearer("broke"), "accepted", "quota-exceeded"),
            (bearer("guess").with("Origin", EVIL), "accepted", "origin-not-allowed"),
            (handshake().target("/decline"), "rejected", "declined"),
            (handshake().target("/fail"), "rejected", "error"),
            (handshake().with("Sec-WebSocket-Version", "8"), "rejected", "version-unsupported"),
        ] {
            for request in upgradable(&raw) {
                assert_eq!(
                    count(&app, [request]).await,
                    expected([(outcome, code, 1.0)]),
                    "{raw:?}"
                );
            }
        }
    }
    let layers = ServiceBuilder::new()
        .layer(OriginCheckLayer::new(origins()).dangerous_report_only())
        .layer(TokenCheckLayer::new(policy()));
    let counted = count(&app(layers), upgradable(&handshake().with("Origin", EVIL))).await;
    assert_eq!(counted, expected([("rejected", "token-missing", 2.0)]));
}

#[tokio::test]
async fn ordinary_requests_are_not_counted() {
    let ordinary =
        [plain(), plain().method("POST"), plain().target("/fail"), plain().and("Origin", EVIL)];
    for app in stacks().into_iter().chain(reporting_stacks()) {
        let (recorder, handle) = recorder();
        let _guard = set_default_local_recorder(&recorder);
        for raw in &ordinary {
            app.clone().oneshot(raw.request()).await.ok();
        }
        assert_eq!(scrape(&handle.render()), BTreeMap::new());
    }
    for app in [
        app(guard().require_websocket()),
        app(ServiceBuilder::new()
            .layer(guard().require_websocket())
            .layer(ResponderLayer::new().require_websocket())),
        app(ServiceBuilder::new().layer(guard()).layer(ResponderLayer::new().require_websocket())),
    ] {
        let counted = count(&app, ordinary.iter().map(Raw::request)).await;
        assert_eq!(counted, expected([("rejected", "not-websocket", 4.0)]));
    }
}

#[tokio::test]
async fn label_values_do_not_come_from_clients() {
    let (recorder, handle) = recorder();
    let _guard = set_default_local_recorder(&recorder);
    let hostile = ["x", "\"} 1\\", "https://a.example", "\u{e9}", &"a".repeat(10_000)];
    for app in stacks().into_iter().chain(reporting_stacks()) {
        for value in hostile {
            for name in [
                "Origin",
                "Host",
                "Upgrade",
                "Connection",
                "Sec-WebSocket-Key",
                "Sec-WebSocket-Version",
                "Sec-WebSocket-Protocol",
                "Authorization",
                "X-Other",
            ] {
                app.clone().oneshot(good().with(name, value).upgradable()).await.unwrap();
            }
            let target = format!(
                "/{0}?token={0}",
                value.replace(['"', '\\', ' '], "").replace("https://", "")
            );
            app.clone().oneshot(handshake().target(&target).upgradable()).await.unwrap();
        }
    }
    let rendered = handle.render();
    let total =
        handshakes(&rendered).into_iter().filter(|(name, _)| name.contains("handshakes_total"));
    assert_eq!(total.map(|(_, count)| count).sum::<f64>(), (4 * hostile.len() * 10) as f64);

    let codes = RejectionKind::ALL
        .iter()
        .map(|kind| kind.code())
        .chain(["accepted"])
        .collect::<BTreeSet<_>>();
    for name in scrape(&rendered).into_keys() {
        let labels = name.split_once('{').map_or("", |(_, labels)| labels.trim_end_matches('}'));
        for label in labels.split_terminator(',') {
            let (label, value) = label.split_once('=').unwrap();
            let value = value.trim_matches('"');
            let is_bounded = match label {
                "outcome" => ["accepted", "rejected"].contains(&value),
                "code" => codes.contains(value),
                "quantile" => value.parse::<f64>().is_ok(),
                _ => false,
            };
            assert!(is_bounded, "{name}");
        }
    }
}

#[tokio::test]
async fn help_is_described_for_every_metric() {
    let (recorder, handle) = recorder();
    let _guard = set_default_local_recorder(&recorder);
    describe_metrics();
    let app = app(ResponderLayer::on_upgraded(async |_| {}));
    let (request, mut client) = test_util::upgradable(handshake().request()).await;
    app.oneshot(request).await.unwrap();
    timeout(TIMEOUT, client.read_to_end(&mut Vec::new())).await.expect("the socket's end").unwrap();
    assert_help(&handle.render());
}

// Connections

/// Holds the connection as its first byte says.
async fn hold(mut socket: Upgraded) {
    match socket.read_u8().await {
        Ok(b'p') => resume_unwind(Box::new("a panic of the callback")),
        Ok(b'm') => {
            let moved = tokio::spawn(async move { socket.read_u8().await });
            assert_eq!(moved.await.unwrap().unwrap(), b'.');
        }
        Ok(_) => {}
        // The client left.
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
    }
}

#[tokio::test]
async fn connection_gauge_counts_open_connections() {
    let decide = service_fn(|request: Request<()>| {
        request.extensions().get::<PendingUpgrade>().unwrap().on_upgrade(hold);
        ready(Ok::<_, &'static str>(Response::new(())))
    });
    let apps = [
        app(ServiceBuilder::new().layer(guard()).layer(ResponderLayer::on_upgraded(hold))),
        BoxCloneSyncService::new(ResponderLayer::new().layer(decide)),
    ];
    for app in apps {
        let (recorder, handle) = recorder();
        let _guard = set_default_local_recorder(&recorder);
        let counted = async || connections(&handle.render());
        assert_eq!(counted().await, (None, 0.0));

        let mut clients = Vec::new();
        for open in 1..=4 {
            let (request, client) = test_util::upgradable(handshake().request()).await;
            app.clone().oneshot(request).await.unwrap();
            clients.push(client);
            wait_for((Some(f64::from(open)), 0.0), counted).await;
        }
        // The callback returns, panics, moves the connection to another task, or its client leaves.
        for (open, end) in [(3, "r"), (2, "p"), (2, "m")] {
            let mut client = clients.remove(0);
            client.write_all(end.as_bytes()).await.unwrap();
            if end == "m" {
                // The connection is still open, in that task.
                sleep(Duration::from_millis(20)).await;
            }
            wait_for((Some(f64::from(open)), 4.0 - f64::from(open)), counted).await;
            clients.push(client);
        }
        clients.remove(0);
        wait_for((Some(1.0), 3.0), counted).await;
        clients[2].write_all(b".").await.unwrap();
        wait_for((Some(0.0), 4.0), counted).await;
    }
}

#[tokio::test]
async fn connection_gauge_ignores_upgrades_that_are_not_handed_over() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeper = Arc::clone(&kept);
    let keep = service_fn(move |request: Request<()>| {
        let upgrade = request.extensions().get::<PendingUpgrade>().unwrap().accept();
        keeper.lock().unwrap().push(upgrade);
        ready(Ok::<_, &'static str>(Response::new(())))
    });
    let (recorder, handle) = recorder();
    let _guard = set_default_local_recorder(&recorder);
    let (request, _client) = test_util::upgradable(handshake().request()).await;
    assert_eq!(ResponderLayer::new().layer(keep).oneshot(request).await.unwrap().status(), 101);
    // This upgrade fails.
    let (sender, mut called) = mpsc::channel::<()>(1);
    let layer = ResponderLayer::on_upgraded(move |_| {
        sender.try_send(()).unwrap();
        ready(())
    });
    assert_eq!(app(layer).oneshot(handshake().upgradable()).await.unwrap().status(), 101);
    assert_eq!(timeout(TIMEOUT, called.recv()).await.expect("the callback is dropped"), None);
    assert_eq!(connections(&handle.render()), (None, 0.0));

    let upgrade = kept.lock().unwrap().remove(0).unwrap();
    let upgraded = timeout(TIMEOUT, upgrade).await.expect("the connection").unwrap();
    assert_eq!(connections(&handle.render()), (Some(1.0), 0.0));
    drop(upgraded);
    assert_eq!(connections(&handle.render()), (Some(0.0), 1.0));
}

#[tokio::test]
async fn canceled_handshake_is_counted() {
    let hangs = TokenPolicy::bearer(|_: Token| pending::<Result<Verified<()>, Rejection>>());
    let app = app(GuardLayer::new(origins()).token(hangs).unwrap());
    let (recorder, handle) = recorder();
    let _guard = set_default_local_recorder(&recorder);
    let handshake = app.oneshot(bearer("any").request());
    assert!(timeout(Duration::from_millis(10), handshake).await.is_err());
    assert_eq!(handshakes(&handle.render()), expected([("rejected", "cancelled", 1.0)]));
}
