use std::{
    convert::Infallible,
    future::{Ready, ready},
};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use tokio_tungstenite::tungstenite;
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_ws_guard::{
    AllowOrigin, ConnectionLimit, Drain, GuardLayer, PendingUpgrade, Permit, ResponderLayer,
    Sessions,
};

use crate::{
    Case, Operation, app, case, floor,
    input::{self, HANDSHAKE, TOKEN},
    service::{SWITCH, call, call_and_spawn, call_each},
};

pub const SERVICE: &str = "Handshake as a service call, no task spawned";
pub const ALONE: &str = "`GuardLayer` alone, before an empty 101";
pub const MORE: &str = "Handshake with a token and a subprotocol, as a service call";
pub const ROUTE: &str = "Handshake on an axum route, with the task that it spawns";
pub const CALLBACK: &str =
    "Handshake completed around an axum router, with the task that it spawns";

pub(crate) const CASES: &[Case] = &[
    case(SERVICE, "nothing: an empty 101 (drops request and response)", || {
        call(SWITCH, HANDSHAKE, 101)
    }),
    case(SERVICE, "floor, written by hand", || {
        call(service_fn(floor::respond::<()>), HANDSHAKE, 101)
    }),
    case(SERVICE, "`GuardLayer` that responds, accepted by the service", || {
        call(app::guard().respond().layer(accept()), HANDSHAKE, 101)
    }),
    case(SERVICE, "`GuardLayer` that responds, over HTTP/2", || {
        call_each(app::guard().respond().layer(accept()), input::http2(), 200)
    }),
    case(SERVICE, "`GuardLayer` that responds, with limit and drain", || {
        let guard = app::guard().limit(limit()).drain(&Drain::new());
        call(guard.respond().layer(accept()), HANDSHAKE, 101)
    }),
    case(SERVICE, "`GuardLayer` and `ResponderLayer`, accepted by the service", || {
        let layers = ServiceBuilder::new().layer(app::guard()).layer(ResponderLayer::new());
        call(layers.service(accept()), HANDSHAKE, 101)
    }),
    case(SERVICE, "`ResponderLayer` alone, accepted by the service", || {
        call(ResponderLayer::new().layer(accept()), HANDSHAKE, 101)
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
    case(ALONE, "one exact origin", || alone(app::guard())),
    case(ALONE, "a wildcard", || {
        alone(GuardLayer::new(AllowOrigin::list(["https://*.example.com"]).expect("a pattern")))
    }),
    case(ALONE, "`same_origin`", || alone(GuardLayer::new(AllowOrigin::same_origin()))),
    case(ALONE, "one exact origin, claimed by the service", || claimed(app::guard())),
    case(ALONE, "with a limit", || claimed(app::guard().limit(limit()))),
    case(ALONE, "with a drain", || claimed(app::guard().drain(&Drain::new()))),
    case(ALONE, "with limit and drain", || {
        claimed(app::guard().limit(limit()).drain(&Drain::new()))
    }),
    case(ALONE, "with sessions by key, in memory", || {
        let sessions = Sessions::per_key(1000, |_| Some(7_u64)).expect("a maximum");
        claimed(app::guard().sessions(&sessions))
    }),
    case(MORE, "`GuardLayer` that responds, bearer token", || {
        more(app::guard().token(app::bearer()).unwrap(), app::bearer_lines())
    }),
    case(MORE, "`GuardLayer` that responds, token in a subprotocol", || {
        let offer = format!("Sec-WebSocket-Protocol: chat.v2, auth.{TOKEN}\r\n");
        more(app::guard().token(app::token()).unwrap(), offer)
    }),
    case(MORE, "`GuardLayer` that responds, bearer token, sessions in memory", || {
        let sessions = Sessions::per_claims(10, |user: &i32| *user).expect("a maximum");
        let guard = app::guard().token(app::bearer()).unwrap().sessions(&sessions);
        more(guard, app::bearer_lines())
    }),
    case(MORE, "`GuardLayer` that responds, JWT (HS256)", || {
        let lines = app::lines(&app::json_web_token());
        more(app::guard().token(app::jwt()).unwrap(), lines)
    }),
    case(MORE, "`GuardLayer` that responds, one-time ticket in memory", || {
        let (policy, issue) = app::tickets();
        let guard = app::guard().token(policy).unwrap().subprotocols(app::subprotocols());
        let head = move || {
            let offer = input::and("Sec-WebSocket-Protocol: chat.v2\r\n");
            let head = offer.replacen("/ws", &format!("/ws?ticket={}", issue()), 1);
            input::request(&head.into())
        };
        call_each(guard.respond().layer(accept()), head, 101)
    }),
    case(MORE, "`GuardLayer` and `ResponderLayer`, bearer token", || {
        let guard = app::guard().token(app::bearer()).unwrap().subprotocols(app::subprotocols());
        let layers = ServiceBuilder::new().layer(guard).layer(ResponderLayer::new());
        call(layers.service(accept()), input::and(&app::bearer_lines()), 101)
    }),
    case(ROUTE, "axum's `WebSocketUpgrade`", || call_and_spawn(app::axum(), HANDSHAKE, 101)),
    case(ROUTE, "axum, origin checked in the handler", || {
        call_and_spawn(app::axum_origin_in_handler(), HANDSHAKE, 101)
    }),
    case(ROUTE, "axum, origin checked in a `from_fn` on the route", || {
        call_and_spawn(app::axum_origin_from_fn_on_route(), HANDSHAKE, 101)
    }),
    case(ROUTE, "axum, origin checked in a `from_fn` by `Router::layer`", || {
        call_and_spawn(app::axum_origin_from_fn(), HANDSHAKE, 101)
    }),
    case(ROUTE, "`GuardLayer` on the route, axum's `WebSocketUpgrade`", || {
        call_and_spawn(app::axum_guard(), HANDSHAKE, 101)
    }),
    case(ROUTE, "`GuardLayer` around the router, axum's `WebSocketUpgrade`", || {
        call_and_spawn(app::guard().layer(app::axum()), HANDSHAKE, 101)
    }),
    case(ROUTE, "`GuardLayer` that responds on the route, accepted by the handler", || {
        call_and_spawn(app::axum_guard_responds(), HANDSHAKE, 101)
    }),
    case(ROUTE, "`GuardLayer` with a callback on the route", || {
        call_and_spawn(app::axum_guard_and_callback(), HANDSHAKE, 101)
    }),
    case(ROUTE, "`GuardLayer` and `ResponderLayer` on the route, accepted by the handler", || {
        call_and_spawn(app::axum_guard_and_responder(), HANDSHAKE, 101)
    }),
    case(CALLBACK, "floor, written by hand", || {
        call_and_spawn(
            floor::Around { inner: app::axum(), complete: floor::complete },
            HANDSHAKE,
            101,
        )
    }),
    case(CALLBACK, "fastwebsockets, `upgrade`, in a service written by hand", || {
        let complete = |request: &mut Request<Body>| {
            let (response, upgrade) =
                fastwebsockets::upgrade::upgrade(request).expect("a response");
            tokio::spawn(async { drop(upgrade.await) });
            response.map(|_| Body::empty())
        };
        call_and_spawn(floor::Around { inner: app::axum(), complete }, HANDSHAKE, 101)
    }),
    case(CALLBACK, "`GuardLayer` with a callback", || {
        let guard = app::guard().on_upgraded(async |socket| drop(socket));
        call_and_spawn(guard.layer(app::axum()), HANDSHAKE, 101)
    }),
    case(CALLBACK, "`ResponderLayer` with a callback alone", || {
        let responder = ResponderLayer::on_upgraded(async |socket| drop(socket));
        call_and_spawn(responder.layer(app::axum()), HANDSHAKE, 101)
    }),
];

/// Accepts, and drops the connection.
pub(crate) fn accept()
-> impl Service<Request<()>, Response = Response<()>, Error = Infallible, Future: Send> + Clone + Send
{
    service_fn(|request: Request<()>| {
        let pending = request.extensions().get::<PendingUpgrade>().expect("a handshake");
        drop(pending.accept());
        ready(Ok(Response::new(())))
    })
}

fn limit() -> ConnectionLimit {
    ConnectionLimit::total(1000).expect("not 0")
}

fn alone(guard: GuardLayer) -> Box<dyn Operation> {
    call(guard.layer(SWITCH), HANDSHAKE, 101)
}

fn claimed(guard: GuardLayer) -> Box<dyn Operation> {
    call(guard.layer(service_fn(claim)), HANDSHAKE, 101)
}

/// Takes the permit, and lets it go with the response.
pub(crate) fn claim(
    mut request: Request<()>,
) -> Ready<Result<Response<Option<Permit>>, Infallible>> {
    let mut response = floor::status_only(StatusCode::SWITCHING_PROTOCOLS);
    *response.body_mut() = Permit::claim(request.extensions_mut());
    ready(Ok(response))
}

fn more(guard: GuardLayer, lines: String) -> Box<dyn Operation> {
    let guard = guard.subprotocols(app::subprotocols());
    call(guard.respond().layer(accept()), input::and(&lines), 101)
}

/// A peer that is not a service.
fn peer<B: 'static>(respond: fn(&mut Request<()>) -> Response<B>) -> Box<dyn Operation> {
    let service = service_fn(move |mut request: Request<()>| {
        let answer: Ready<Result<_, Infallible>> = ready(Ok(respond(&mut request)));
        answer
    });
    call(service, HANDSHAKE, 101)
}
