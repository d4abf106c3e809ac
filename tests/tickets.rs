//! One-time tickets: what they open, once; how many are kept; and verifiers in chains.

mod common;

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    error::Error,
    future::{Ready, ready},
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use common::{Body, ORIGIN, Raw, handshake, send, serve};
use http::{Extensions, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn, util::ServiceFn};
use tower_ws_guard::{
    AllowHost, AllowOrigin, Claims, GuardLayer, Handshake, NoToken, Origin, PlainText, ProblemJson, Rejection,
    RejectionKind, ResponderLayer, StaticTokens, Subprotocols, Token, TokenCheckLayer, TokenPolicy, TokenSource,
    Validity, VerifyToken, check_fn,
    token::ticket::{MemoryTicketStore, Ticket, TicketIssuer, TicketKey, TicketStore, TicketVerifier},
};

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
struct User {
    name: String,
    rooms: Vec<u32>,
    session_ends: Option<SystemTime>,
}

fn user(name: &str) -> User {
    User { name: name.into(), rooms: vec![1, 2], session_ends: None }
}

fn verifier<S: TicketStore>(store: &S) -> TicketVerifier<User, S>
where
    S: Clone,
{
    TicketVerifier::new(store.clone())
}

fn query() -> TokenSource {
    TokenSource::query("ticket").unwrap()
}

fn policy<V: VerifyToken>(verifier: V) -> TokenPolicy<V> {
    TokenPolicy::from_sources([TokenSource::authorization(), query()], verifier).unwrap()
}

fn guard<V: VerifyToken>(verifier: V) -> GuardLayer<(), TokenPolicy<V>> {
    GuardLayer::new(AllowOrigin::same_origin()).token(policy(verifier))
}

fn with_ticket(ticket: impl AsRef<str>) -> Raw {
    handshake().target(&format!("/ws?ticket={}", ticket.as_ref()))
}

fn with(ticket: &Ticket) -> Raw {
    with_ticket(ticket.expose())
}

type Inner = ServiceFn<fn(Request<()>) -> Ready<Result<Response<Extensions>, Infallible>>>;

/// The extensions that the service behind sees, or why the handshake was refused.
async fn knock<L>(layer: &L, request: Request<()>) -> Result<Extensions, Rejection>
where
    L: Layer<Inner, Service: Service<Request<()>, Response = Response<Extensions>, Error = Infallible>>,
{
    let inner: Inner = service_fn(|request| ready(Ok(Response::new(request.into_parts().0.extensions))));
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    match response.extensions().get::<Rejection>() {
        Some(rejection) => {
            assert_eq!(response.status(), rejection.kind().status());
            Err(rejection.clone())
        }
        None => Ok(response.into_body()),
    }
}

/// The name of the user, or the code of the refusal.
async fn outcome<L>(layer: &L, raw: &Raw) -> String
where
    L: Layer<Inner, Service: Service<Request<()>, Response = Response<Extensions>, Error = Infallible>>,
{
    match knock(layer, raw.request()).await {
        Ok(extensions) => extensions.get::<Claims<User>>().unwrap().0.name.clone(),
        Err(rejection) => rejection.kind().code().to_owned(),
    }
}
