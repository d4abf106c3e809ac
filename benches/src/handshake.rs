use std::{
    convert::Infallible,
    future::{Ready, ready},
};

use http::{Request, Response, StatusCode};
use tokio_tungstenite::tungstenite;
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_ws_guard::{
    GuardLayer, PendingUpgrade, ResponderLayer, Sessions, StaticTokens, TokenPolicy,
};

use crate::{
    Case, Operation, app, case,
    input::{self, HANDSHAKE, TOKEN},
    service::{SWITCH, call, call_and_spawn},
};

const SERVICE: &str = "Handshake as a service call, no task spawned";
const MORE: &str = "The same with a token and a subprotocol";
const AXUM: &str = "Handshake as a call of an axum router, with the task that it spawns";

pub(crate) const CASES: &[Case] = &[
    case(SERVICE, "nothing: an empty 101 (drops request and response)", || {
        call(SWITCH, HANDSHAKE, 101)
    }),
    case(SERVICE, "`GuardLayer` and `ResponderLayer`, accepted by the service", || {
        call(
            ServiceBuilder::new()
                .layer(app::guard())
                .layer(ResponderLayer::new())
                .service(accept()),
            HANDSHAKE,
            101,
        )
    }),
    case(SERVICE, "`GuardLayer` that responds, accepted by the service", || {
        call(app::guard().respond().layer(accept()), HANDSHAKE, 101)
    }),
    case(SERVICE, "`ResponderLayer` alone, accepted by the service", || {
        call(ResponderLayer::new().layer(accept()), HANDSHAKE, 101)
    }),
    case(SERVICE, "`GuardLayer` alone, before an empty 101", || {
        call(app::guard().layer(SWITCH), HANDSHAKE, 101)
    }),
    case(SERVICE, "tungstenite's `create_response`", || {
        peer(|request| {
            tungstenite::handshake::server::create_response(request).expect("a response")
        })
    }),
    case(SERVICE, "hyper-tungstenite, `upgrade`", || {
        peer(|request| hyper_tungstenite::upgrade(request, None).expect("a response").0)
    }),
    case(SERVICE, "hyper-tungstenite, `is_upgrade_request` and `upgrade`", || {
        peer(|request| {
            assert!(hyper_tungstenite::is_upgrade_request(request));
            hyper_tungstenite::upgrade(request, None).expect("a response").0
        })
    }),
    case(SERVICE, "fastwebsockets, `upgrade`", || {
        peer(|request| fastwebsockets::upgrade::upgrade(request).expect("a response").0)
    }),
    case(SERVICE, "fastwebsockets, `is_upgrade_request` and `upgrade`", || {
        peer(|request| {
            assert!(fastwebsockets::upgrade::is_upgrade_request(request));
            fastwebsockets::upgrade::upgrade(request).expect("a response").0
        })
    }),
    case(MORE, "`GuardLayer` and `ResponderLayer`, token in a subprotocol", || {
        let guard = app::guard().token(app::token()).unwrap().subprotocols(app::subprotocols());
        let offer = format!("Sec-WebSocket-Protocol: chat.v2, auth.{TOKEN}\r\n");
        accepted(guard, input::and(&offer))
    }),
    case(MORE, "`GuardLayer` and `ResponderLayer`, bearer token", || {
        let token = TokenPolicy::bearer(StaticTokens::new([(TOKEN, 7)]).unwrap());
        let guard = app::guard().token(token).unwrap().subprotocols(app::subprotocols());
        accepted(
            guard,
            input::and(&format!(
                "Authorization: Bearer {TOKEN}\r\nSec-WebSocket-Protocol: chat.v2\r\n"
            )),
        )
    }),
    case(MORE, "`GuardLayer` that responds, bearer token", || {
        let token = TokenPolicy::bearer(StaticTokens::new([(TOKEN, 7)]).unwrap());
        let guard = app::guard().token(token).unwrap().subprotocols(app::subprotocols());
        let head = input::and(&format!(
            "Authorization: Bearer {TOKEN}\r\nSec-WebSocket-Protocol: chat.v2\r\n"
        ));
        call(guard.respond().layer(accept()), head, 101)
    }),
    case(MORE, "`GuardLayer` that responds, bearer token, sessions in memory", || {
        let token = TokenPolicy::bearer(StaticTokens::new([(TOKEN, 7)]).unwrap());
        let sessions = Sessions::per_claims(10, |user: &i32| *user).unwrap();
        let guard = app::guard().token(token).unwrap().subprotocols(app::subprotocols());
        let head = input::and(&format!(
            "Authorization: Bearer {TOKEN}\r\nSec-WebSocket-Protocol: chat.v2\r\n"
        ));
        call(guard.sessions(&sessions).respond().layer(accept()), head, 101)
    }),
    case(AXUM, "axum's `WebSocketUpgrade`", || call_and_spawn(app::axum(), HANDSHAKE, 101)),
    case(AXUM, "axum, origin checked in the handler", || {
        call_and_spawn(app::axum_origin_in_handler(), HANDSHAKE, 101)
    }),
    case(AXUM, "axum, origin checked in a `from_fn` layer", || {
        call_and_spawn(app::axum_origin_from_fn(), HANDSHAKE, 101)
    }),
    case(AXUM, "`GuardLayer` around the router, axum's `WebSocketUpgrade`", || {
        call_and_spawn(app::guard().layer(app::axum()), HANDSHAKE, 101)
    }),
    case(AXUM, "`GuardLayer` on the route, axum's `WebSocketUpgrade`", || {
        call_and_spawn(app::axum_guard(), HANDSHAKE, 101)
    }),
    case(AXUM, "`GuardLayer` and `ResponderLayer` with a callback, around the router", || {
        let responder = ResponderLayer::on_upgraded(async |socket| drop(socket));
        let layers = ServiceBuilder::new().layer(app::guard()).layer(responder);
        call_and_spawn(layers.service(app::axum()), HANDSHAKE, 101)
    }),
    case(AXUM, "`GuardLayer` with a callback, around the router", || {
        let guard = app::guard().on_upgraded(async |socket| drop(socket));
        call_and_spawn(guard.layer(app::axum()), HANDSHAKE, 101)
    }),
    case(AXUM, "`ResponderLayer` with a callback alone, around the router", || {
        let responder = ResponderLayer::on_upgraded(async |socket| drop(socket));
        call_and_spawn(responder.layer(app::axum()), HANDSHAKE, 101)
    }),
    case(AXUM, "`GuardLayer` and `ResponderLayer` with a callback, on the route", || {
        call_and_spawn(app::axum_guard_and_callback(), HANDSHAKE, 101)
    }),
    case(AXUM, "`GuardLayer` and `ResponderLayer` on the route, accepted by the handler", || {
        call_and_spawn(app::axum_guard_and_responder(), HANDSHAKE, 101)
    }),
];

pub(crate) fn response(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

/// Accepts, and drops the connection.
fn accept()
-> impl Service<Request<()>, Response = Response<()>, Error = Infallible, Future: Send> + Clone + Send
{
    service_fn(|request: Request<()>| {
        let pending = request.extensions().get::<PendingUpgrade>().expect("a handshake");
        drop(pending.accept());
        ready(Ok(Response::new(())))
    })
}

fn accepted(guard: GuardLayer, head: String) -> Box<dyn Operation> {
    call(
        ServiceBuilder::new().layer(guard).layer(ResponderLayer::new()).service(accept()),
        head,
        101,
    )
}

/// A peer that is not a service.
fn peer<B: 'static>(respond: fn(&mut Request<()>) -> Response<B>) -> Box<dyn Operation> {
    let service = service_fn(move |mut request: Request<()>| {
        let answer: Ready<Result<_, Infallible>> = ready(Ok(respond(&mut request)));
        answer
    });
    call(service, HANDSHAKE, 101)
}
