//! A reverse proxy that guards a WebSocket server in any language.
//!
//! `cargo run --example reverse_proxy -- --upstream http://127.0.0.1:8080`, then open a socket to
//! ws://127.0.0.1:3000 from a page of http://127.0.0.1:3000. `--help` lists the flags.

use std::{
    convert::Infallible,
    error::Error,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    ServiceExt as _,
    body::{Body, HttpBody as _},
    extract::{ConnectInfo, Request},
    response::IntoResponse,
    response::Response,
};
use clap::Parser;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, TRANSFER_ENCODING, UPGRADE,
    },
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tower::{ServiceBuilder, service_fn, util::BoxCloneSyncService};
use tower_ws_guard::{
    AllowHost, AllowOrigin, ConfigError, GuardLayer, Handshake, Host, ProblemJson, Rejection,
    RequestCheckLayer, accept_key, is_upgrade_request,
};

#[derive(Parser)]
#[command(about = "A reverse proxy with tower-ws-guard in front of a WebSocket server")]
struct Options {
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// The server behind, as http://HOST:PORT.
    #[arg(long, value_name = "URL", value_parser = parse_upstream)]
    upstream: Arc<str>,
    /// Allow pages of this origin, such as https://app.example.com or http://localhost:*. Default:
    /// same-origin.
    #[arg(long, value_name = "PATTERN", value_parser = |pattern: &str| AllowOrigin::list([pattern]).map(|_| pattern.to_owned()))]
    allow_origin: Vec<String>,
    /// Allow pages of this origin, which is the proxy's own.
    #[arg(long, value_name = "ORIGIN", value_parser = |origin: &str| AllowOrigin::public_origin(origin).map(|_| origin.to_owned()))]
    public_origin: Option<String>,
    /// Allow this Host, such as chat.example.com, *.example.com or localhost:*. Default: the names of
    /// this machine if the proxy listens on a loopback address, and otherwise every Host.
    #[arg(long, value_name = "PATTERN", value_parser = |host: &str| AllowHost::list([host]).map(|_| host.to_owned()))]
    allow_host: Vec<String>,
    /// Allow every Host.
    #[arg(long, conflicts_with = "allow_host")]
    allow_any_host: bool,
}

fn parse_upstream(url: &str) -> Result<Arc<str>, &'static str> {
    let address = url.strip_prefix("http://").map(|address| address.trim_end_matches('/'));
    match address.and_then(|address| address.rsplit_once(':')) {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(format!("{host}:{port}").into())
        }
        _ => Err("use http://HOST:PORT"),
    }
}

fn origins(options: &Options) -> Result<AllowOrigin, ConfigError> {
    match &options.public_origin {
        Some(origin) => {
            Ok(AllowOrigin::list(&options.allow_origin)?.or(AllowOrigin::public_origin(origin)?))
        }
        None if options.allow_origin.is_empty() => Ok(AllowOrigin::same_origin()),
        None => AllowOrigin::list(&options.allow_origin),
    }
}

fn hosts(options: &Options) -> Result<Option<AllowHost>, ConfigError> {
    match &*options.allow_host {
        [] if options.allow_any_host || !options.listen.ip().is_loopback() => Ok(None),
        [] => Ok(Some(AllowHost::loopback())),
        hosts => AllowHost::list(hosts).map(Some),
    }
}

/// Without `hosts` it allows every host. `upstream` is `HOST:PORT`.
pub(crate) fn app(
    origins: AllowOrigin,
    hosts: Option<AllowHost>,
    upstream: Arc<str>,
) -> BoxCloneSyncService<Request, Response, Infallible> {
    let mut guard = GuardLayer::new(origins).check(note_nominated).reject_with(ProblemJson::new());
    if let Some(hosts) = &hosts {
        guard = guard.allow_host(hosts.clone());
    }
    // The guard checks handshakes only, and the upstream serves pages, too.
    let requests =
        hosts.map(|hosts| RequestCheckLayer::hosts(hosts).reject_with(ProblemJson::new()));
    let proxy = service_fn(move |request| proxy(request, Arc::clone(&upstream)));
    let service = ServiceBuilder::new().layer(guard).option_layer(requests).service(proxy);
    BoxCloneSyncService::new(service)
}

/// The hop-by-hop headers that `Connection` names. A check must note them, because the guard
/// normalizes `Connection`.
#[derive(Clone)]
struct Nominated(Vec<HeaderName>);

fn note_nominated(handshake: &mut Handshake<'_>) -> Result<(), Rejection> {
    let nominated = Nominated(nominated(handshake.headers()));
    handshake.extensions_mut().insert(nominated);
    Ok(())
}

async fn proxy(request: Request, upstream: Arc<str>) -> Result<Response, Infallible> {
    let is_handshake = is_upgrade_request(&request);
    Ok(forward(request, is_handshake, &upstream).await.unwrap_or_else(IntoResponse::into_response))
}

/// Forwards a request that the guard accepted. Only a valid handshake asks the upstream to switch
/// protocols, and only the response to that handshake opens a tunnel.
async fn forward(
    mut request: Request,
    is_handshake: bool,
    upstream: &str,
) -> Result<Response, StatusCode> {
    // A proxied CONNECT would be a tunnel to any host. And the upstream speaks HTTP/1.1.
    if request.method() == Method::CONNECT || request.version() >= Version::HTTP_2 {
        return Err(StatusCode::NOT_IMPLEMENTED);
    }
    let client = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    if let Some(Nominated(names)) = parts.extensions.remove() {
        // `upgrade` is among them, and comes back below.
        names.iter().for_each(|name| drop(parts.headers.remove(name)));
    }
    if let Some(Ok(host)) = parts.uri.authority().map(|authority| authority.as_str().parse()) {
        parts.headers.insert(HOST, host);
    }
    check_host(&parts.headers)?;
    let peer = parts.extensions.get().map(|ConnectInfo::<SocketAddr>(peer)| peer.ip());
    replace_forwarded(&mut parts.headers, peer);
    parts.uri = parts.uri.path_and_query().cloned().ok_or(StatusCode::BAD_REQUEST)?.into();
    parts.version = Version::HTTP_11;
    if body.size_hint().exact().is_none() {
        // Otherwise hyper's client drops the body of a GET.
        parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if is_handshake {
        switch_to_websocket(&mut parts.headers);
    }
    let asked = parts.headers.clone();

    let mut response = send(Request::from_parts(parts, body), upstream).await.map_err(|error| {
        eprintln!("upstream: {error}");
        StatusCode::BAD_GATEWAY
    })?;
    let server = hyper::upgrade::on(&mut response);
    *response.version_mut() = Version::HTTP_11;
    strip_hop_by_hop(response.headers_mut());
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    if !is_handshake || !completes(&asked, response.headers()) {
        eprintln!("upstream: a 101 to a request that is not its handshake");
        return Err(StatusCode::BAD_GATEWAY);
    }
    response.headers_mut().remove(CONTENT_LENGTH);
    switch_to_websocket(response.headers_mut());
    tokio::spawn(async {
        if let Ok((client, server)) = tokio::try_join!(client, server) {
            tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server))
                .await
                .ok();
        }
    });
    Ok(response)
}

/// One host, without userinfo: servers disagree on which name in `a@b` counts (RFC 9112 3.2).
fn check_host(headers: &HeaderMap) -> Result<(), StatusCode> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next().map(|host| Host::parse(host.as_bytes())), hosts.next()) {
        (Some(Ok(_)), None) => Ok(()),
        _ => Err(StatusCode::BAD_REQUEST),
    }
}

/// Drops what a client says of its connection, and states it anew. The upstream can rely on it if
/// clients reach it only through this proxy.
fn replace_forwarded(headers: &mut HeaderMap, peer: Option<IpAddr>) {
    let is_forwarded = |name: &&HeaderName| {
        // CGI and its descendants read `_` as `-`.
        let name = name.as_str().replace('_', "-");
        name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip"
    };
    for name in headers.keys().filter(is_forwarded).cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
    if let Some(Ok(peer)) = peer.map(|peer| peer.to_string().parse()) {
        headers.insert("x-forwarded-for", peer);
    }
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert("x-forwarded-host", host);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
}

async fn send(request: Request, upstream: &str) -> Result<Response, Box<dyn Error + Send + Sync>> {
    let stream =
        tokio::time::timeout(Duration::from_secs(10), TcpStream::connect(upstream)).await??;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender.send_request(request).await?.map(Body::new))
}

fn switch_to_websocket(headers: &mut HeaderMap) {
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
}

/// Whether a 101 completes this handshake (RFC 6455 4.1): with the accept value of its key and one
/// of its subprotocols.
fn completes(asked: &HeaderMap, response: &HeaderMap) -> bool {
    let accept =
        asked.get(SEC_WEBSOCKET_KEY).and_then(|key| key.as_bytes().try_into().ok()).map(accept_key);
    let is_offered = |selected: &HeaderValue| {
        elements(asked, SEC_WEBSOCKET_PROTOCOL).any(|offer| selected == offer)
    };
    let mut selected = response.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    accept.is_some_and(|accept| response.get_all(SEC_WEBSOCKET_ACCEPT).iter().eq([&accept[..]]))
        && selected.next().is_none_or(is_offered)
        && selected.next().is_none()
}

/// Removes the hop-by-hop headers, and those that `Connection` names (RFC 9110 7.6.1).
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    const ALWAYS: [&str; 7] = [
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    ];
    nominated(headers).iter().for_each(|name| drop(headers.remove(name)));
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH); // RFC 9112 6.3
    }
    ALWAYS.iter().for_each(|name| drop(headers.remove(*name)));
}

fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let names = elements(headers, CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok());
    names.filter(|name| !is_end_to_end(name)).collect()
}

/// Headers that `Connection` must not name (RFC 9110 7.6.1). Removed, they would make another
/// request of the one that was checked: `Connection: Origin` would hide the page from the upstream.
fn is_end_to_end(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "authorization" | "content-length" | "cookie" | "host" | "origin" | "set-cookie")
        || name.starts_with("sec-")
}

fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let app = app(origins(&options)?, hosts(&options)?, options.upstream);
    let listener = TcpListener::bind(options.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    Ok(axum::serve(listener, app).await?)
}
