//! The subprotocol that a guard or a responder selects.

use std::convert::Infallible;

use http::{Request, Response};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_ws_guard::{AllowOrigin, GuardLayer, PendingUpgrade, ResponderLayer, Subprotocols};

use crate::common::{Raw, handshake};

#[tokio::test]
async fn guard_overrides_the_subprotocol_of_the_inner_service() {
    let inner = service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::builder().status(101).header("sec-websocket-protocol", "inner").body(()).unwrap())
    });
    let guard = GuardLayer::new(AllowOrigin::same_origin());
    let choosing = guard.clone().subprotocols(Subprotocols::list(["chat"]).unwrap());
    let offering = || handshake().and("Sec-WebSocket-Protocol", "inner, chat");
    for (guard, raw, named) in
        [(&choosing, offering(), Some("chat")), (&choosing, handshake(), None), (&guard, offering(), Some("inner"))]
    {
        let response = ServiceBuilder::new().layer(guard.clone()).service(inner).oneshot(raw.request()).await.unwrap();
        let header = response.headers().get("sec-websocket-protocol");
        assert_eq!(header.map(|value| value.to_str().unwrap()), named, "{raw:?}");
    }
}

#[tokio::test]
async fn responder_selects_the_subprotocol() {
    let inner = service_fn(async |request: Request<()>| {
        request.extensions().get::<PendingUpgrade>().unwrap().on_upgrade(async |_| {});
        // The selected subprotocol replaces that of the inner service.
        Ok::<_, Infallible>(Response::builder().header("sec-websocket-protocol", "inner").body(()).unwrap())
    });
    let list = || Subprotocols::list(["v2.chat", "v1.chat"]).unwrap();
    let server = || ResponderLayer::new().subprotocols(list());
    let client = || ResponderLayer::new().subprotocols(list().prefer_client_order());
    let offer = |value: &str| handshake().and("Sec-WebSocket-Protocol", value);
    type Outcome = Result<Option<&'static str>, u16>;
    let cases: [(ResponderLayer, Raw, Outcome); 12] = [
        (server(), offer("v1.chat, v2.chat"), Ok(Some("v2.chat"))),
        (client(), offer("x, v1.chat, v2.chat"), Ok(Some("v1.chat"))),
        (server(), offer("other, v1.chat"), Ok(Some("v1.chat"))),
        (server(), offer("v1.chat").and("Sec-WebSocket-Protocol", "v2.chat"), Ok(Some("v2.chat"))),
        (server(), offer("foo\t,\tv1.chat\t"), Ok(Some("v1.chat"))),
        (server(), handshake(), Ok(None)),
        (ResponderLayer::new(), handshake(), Ok(None)),
        (server(), offer("v3.chat"), Err(400)),
        (server(), offer("V1.chat"), Err(400)),
        (ResponderLayer::new(), offer("chat"), Err(400)),
        (server().accept_unmatched_subprotocols(), offer("v3.chat"), Ok(None)),
        (server().accept_unmatched_subprotocols(), offer("v1.chat"), Ok(Some("v1.chat"))),
    ];
    for (layer, raw, expected) in cases {
        let response = layer.layer(inner).oneshot(raw.upgradable()).await.unwrap();
        let outcome = match response.status().as_u16() {
            101 => Ok(response.headers().get("sec-websocket-protocol").map(|value| value.to_str().unwrap())),
            status => Err(status),
        };
        assert_eq!(outcome, expected, "{raw:?}");
    }
}
