#![cfg(test)]

use std::convert::Infallible;

use http::{Method, Request, Response, Version};
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowOrigin, ConnectProtocol, GuardLayer, Handshake, Rejection, RejectionKind,
    is_upgrade_request,
};

const WITH_PATH: &str = "https://chat.example.com/ws";
const WITHOUT_PATH: &str = "chat.example.com:443";

fn connect(version: Version, target: &str, protocol: Option<&str>) -> Request<()> {
    let mut request =
        Request::builder().method(Method::CONNECT).version(version).uri(target).body(()).unwrap();
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(ConnectProtocol::new(protocol));
    }
    request
}

#[tokio::test]
async fn unreadable_protocol_is_rejected() {
    for (target, protocol, attempt, code) in [
        (WITH_PATH, None, true, "upgrade-missing"),
        (WITH_PATH, Some("WebSocket"), true, "upgrade-missing"),
        (WITH_PATH, Some("websockets"), true, "upgrade-missing"),
        (WITH_PATH, Some("websocket"), true, "accepted"),
        (WITH_PATH, Some("connect-udp"), false, "accepted"),
        (WITHOUT_PATH, None, false, "accepted"),
    ] {
        for version in [Version::HTTP_2, Version::HTTP_3] {
            let mut request = connect(version, target, protocol);
            assert_eq!(is_upgrade_request(&request), attempt, "{request:?}");

            if attempt {
                request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
                request.headers_mut().insert("origin", "https://chat.example.com".parse().unwrap());
            }
            let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
            let guard = GuardLayer::new(AllowOrigin::same_origin());
            let response = guard.layer(inner).oneshot(request).await.unwrap();
            let found = response.extensions().get::<Rejection>();
            assert_eq!(
                found.map_or("accepted", |rejection| rejection.kind().code()),
                code,
                "{target} {protocol:?}"
            );
        }
    }
}

#[test]
fn protocol_of_hyper_is_not_read() {
    for protocol in ["websocket", "connect-udp"] {
        let mut request = connect(Version::HTTP_2, WITH_PATH, None);
        request.extensions_mut().insert(hyper::ext::Protocol::from_static(protocol));
        assert!(is_upgrade_request(&request), "{protocol}");
        let (mut parts, ()) = request.into_parts();
        let rejection = Handshake::parse(&mut parts).unwrap_err();
        assert_eq!(rejection.kind(), RejectionKind::UpgradeMissing);
    }
}

#[test]
fn http_1_has_no_protocol() {
    assert!(!is_upgrade_request(&connect(Version::HTTP_11, WITHOUT_PATH, None)));
}
