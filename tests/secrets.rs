//! Secrets must not be shown. Every carrier, outcome, verifier and responder runs over real connections, while
//! everything that can log logs as much as it can. The test installs a global subscriber, so it has its own process.

mod common;

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    error::Error,
    fmt,
    io::{self, Write},
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{FromRequest, MatchedPath, NestedPath, OriginalUri, Request, WebSocketUpgrade},
    middleware::{Next, from_fn, map_request},
    response::{IntoResponse, Response},
    routing::any,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use common::{Raw, handshake, serve_axum};
use http::{
    HeaderMap, HeaderName, StatusCode, Version,
    header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL},
    request::Parts,
};
use http_body_util::{BodyExt, Empty};
use hyper::{
    client::conn::http2::{self, SendRequest},
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jsonwebtoken::{EncodingKey, Header, encode};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::{
    sensitive_headers::SetSensitiveRequestHeadersLayer,
    trace::{DefaultMakeSpan, DefaultOnRequest, DefaultOnResponse, HttpMakeClassifier, TraceLayer},
};
use tower_ws_guard::{
    AllowOrigin, Claims, EmptyBody, GuardLayer, PendingUpgrade, PlainText, ProblemJson, Rejection,
    RejectionKind, RejectionResponse, ResponderLayer, StaticTokens, Subprotocols, Token,
    TokenCheckLayer, TokenPolicy, TokenSource, Validity, Verified, VerifyToken, response_fn,
    token::{
        jwt::{JwtAlgorithm, JwtKey, JwtKeys, JwtVerifier},
        ticket::{MemoryTicketStore, TicketIssuer, TicketVerifier},
    },
};
use tracing::{Level, trace, trace_span};
use tracing_subscriber::fmt::format::FmtSpan;

const HMAC: &str = "hm4c-s3cr3t-of-at-least-thirty-two-bytes";
const EXPIRY: u64 = 4_102_444_800;

// Log

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Captures all crates at all levels, including records of `log`. hyper logs only in builds with `--cfg
/// hyper_unstable_tracing`.
fn capture() {
    static CAPTURE: LazyLock<()> = LazyLock::new(|| {
        let spans = FmtSpan::NEW | FmtSpan::CLOSE;
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(Level::TRACE)
            .with_span_events(spans)
            .with_writer(|| Log)
            .init();
    });
    LazyLock::force(&CAPTURE);
}

fn log() -> String {
    String::from_utf8(LOG.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap()
}

/// An error and its sources, in both forms.
fn chain(error: &dyn Error) -> String {
    let rest = error.source().map(chain).unwrap_or_default();
    format!("{error} {error:?} {rest}")
}

/// Logs the values of headers, including sensitive ones.
fn look_at_headers(headers: &HeaderMap, but: &[HeaderName]) {
    for (name, value) in headers.iter().filter(|(name, _)| !but.contains(name)) {
        trace!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
}

/// Logs everything that an inner service can reach of a request. A cookie stays there, but must not be shown.
fn look_at_request(request: &Parts) {
    fn extension<T: Clone + Send + Sync + fmt::Debug + 'static>(request: &Parts) {
        trace!("{:?}", request.extensions.get::<T>());
    }

    trace!("{request:?} {}", request.uri);
    look_at_headers(&request.headers, &[COOKIE]);
    extension::<OriginalUri>(request);
    extension::<MatchedPath>(request);
    extension::<NestedPath>(request);
    extension::<Claims<String>>(request);
    extension::<Validity>(request);
    extension::<PendingUpgrade>(request);
    extension::<OnUpgrade>(request);
}

// Secrets

/// Maps the beginning of each form of a secret to its case.
#[derive(Default)]
struct Secrets(HashMap<String, String>);

impl Secrets {
    const LENGTH: usize = 24;
    /// As many bytes of the secret, and the name of the user before it.
    const PAIR_LENGTH: usize = 36;

    fn add(&mut self, secret: &str, case: &str) {
        let encode = |text: &str| [URL_SAFE_NO_PAD.encode(text), STANDARD_NO_PAD.encode(text)];
        let encoded = encode(secret);
        for form in secret.split('.').chain(encoded.iter().map(|form| &**form)) {
            self.0.insert(form[..Self::LENGTH].to_owned(), case.to_owned());
        }
        // With HTTP Basic it is encoded behind the name of a user.
        for form in encode(&format!("{USER}:{secret}")) {
            self.0.insert(form[..Self::PAIR_LENGTH].to_owned(), case.to_owned());
        }
    }

    /// Returns the cases whose secrets are in the text, including percent-encoded and as a list of bytes, with the
    /// line.
    fn shown_in<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        text.lines().flat_map(move |line| {
            let decoded =
                percent_decode_str(if line.contains('%') { line } else { "" }).decode_utf8_lossy();
            let numbers =
                if line.contains('[') { line } else { "" }.split(|it: char| !it.is_ascii_digit());
            let bytes = numbers.filter_map(|number| number.parse().ok()).collect::<Vec<u8>>();
            let is_in_word = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '_';
            let texts = [line, &decoded, &String::from_utf8_lossy(&bytes)];
            let words = texts.iter().flat_map(|text| text.split(|it| !is_in_word(it)));
            let cases = words.flat_map(|word| {
                let beginnings = [Self::LENGTH, Self::PAIR_LENGTH];
                beginnings.into_iter().filter_map(|length| self.0.get(word.get(..length)?))
            });
            cases.map(|case| (&**case, line)).collect::<BTreeSet<_>>()
        })
    }

    fn assert_hidden_in(&self, text: &str) {
        let shown = self.shown_in(text).take(20).collect::<Vec<_>>();
        assert!(shown.is_empty(), "{shown:#?}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Closure,
    Static,
    Jwt,
    Ticket,
}

const KINDS: [Kind; 4] = [Kind::Closure, Kind::Static, Kind::Jwt, Kind::Ticket];

/// The outcome of a handshake; the token stands for its name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Accepted,
    /// Declined by the handler.
    Declined,
    /// The handler responds as if it had accepted.
    Claimed,
    /// Another layer removed the upgrade.
    Stuck,
    OldVersion,
    OfferedTwice,
    Foreign,
    Unsupported,
    Ambiguous,
    TooLong,
    Unknown,
    Forbidden,
    Failed,
    /// No guard is in front.
    Unguarded,
}

impl Outcome {
    const GUARDED: [Self; 13] = [
        Self::Accepted,
        Self::Declined,
        Self::Claimed,
        Self::Stuck,
        Self::OldVersion,
        Self::OfferedTwice,
        Self::Foreign,
        Self::Unsupported,
        Self::Ambiguous,
        Self::TooLong,
        Self::Unknown,
        Self::Forbidden,
        Self::Failed,
    ];

    fn is(self, claims: &str) -> bool {
        claims == format!("{self:?}")
    }
}

#[derive(Serialize, Deserialize, Clone)]
struct User {
    n: u32,
    sub: String,
    exp: u64,
}

/// Creates unique secrets.
struct Mint {
    number: u32,
    issuer: TicketIssuer<MemoryTicketStore>,
    statics: Vec<(String, String)>,
}

impl Mint {
    fn new(tickets: MemoryTicketStore) -> Self {
        let issuer = TicketIssuer::new(tickets).lifetime(Duration::from_secs(3600)).unwrap();
        Self { number: 10_000, issuer, statics: Vec::new() }
    }

    async fn secret(&mut self, kind: Kind, outcome: Outcome) -> String {
        self.number += 1;
        let (number, claims, known) =
            (self.number, format!("{outcome:?}"), outcome != Outcome::Unknown);
        let text = format!("s3cr3t-{number}-{kind:?}-{claims}");
        match kind {
            Kind::Closure => text,
            Kind::Static => {
                self.statics.extend(known.then(|| (text.clone(), claims)));
                text
            }
            Kind::Jwt => {
                let secret = if known { HMAC } else { "another-s3cr3t-of-thirty-two-bytes" };
                // Each part of the token is unique.
                let header = Header { typ: Some(format!("{number}+jwt")), ..Header::default() };
                let user = User { n: number, sub: claims, exp: EXPIRY };
                encode(&header, &user, &EncodingKey::from_secret(secret.as_bytes()).unwrap())
                    .unwrap()
            }
            Kind::Ticket => {
                let issuer = if known {
                    &self.issuer
                } else {
                    &TicketIssuer::new(MemoryTicketStore::default())
                };
                issuer.issue(&claims).await.unwrap().expose().to_owned()
            }
        }
    }
}

// Carriers

/// The position of a secret in a handshake.
enum Position {
    Header(&'static str, String),
    Query(String),
    Offer(String),
}

type Carrier = (&'static str, fn(&str) -> Position);

/// What the server knows of the connection. A layer outside of everything makes it of a header.
#[derive(Clone)]
struct Certificate(String);

const CERTIFICATE: HeaderName = HeaderName::from_static("x-certificate");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const USER: &str = "ab";

fn certify<B>(mut request: http::Request<B>) -> http::Request<B> {
    if let Some(value) = request.headers_mut().remove(CERTIFICATE) {
        let certificate = Certificate(value.to_str().unwrap().to_owned());
        request.extensions_mut().insert(certificate);
    }
    request
}

const CARRIERS: [Carrier; 13] = [
    ("Authorization", |secret| Position::Header("Authorization", format!("Bearer {secret}"))),
    ("cookie", |secret| Position::Header("Cookie", format!("a=b; session={secret}; c=d"))),
    ("query", |secret| Position::Query(format!("a=b&token={secret}&c=d"))),
    ("encoded query", |secret| Position::Query(format!("%74oken={}", percent_encode(secret)))),
    ("subprotocol", |secret| Position::Offer(format!("auth.{secret}"))),
    ("Kubernetes", |secret| {
        Position::Offer(format!(
            "base64url.bearer.authorization.k8s.io.{}",
            URL_SAFE_NO_PAD.encode(secret)
        ))
    }),
    ("Phoenix", |secret| {
        Position::Offer(format!("base64url.bearer.phx.{}", STANDARD_NO_PAD.encode(secret)))
    }),
    ("pair", |secret| Position::Offer(format!("bearer, {secret}"))),
    ("Basic", |secret| {
        let pair = STANDARD_NO_PAD.encode(format!("{USER}:{secret}"));
        Position::Header("Authorization", format!("Basic {pair}"))
    }),
    ("header", |secret| Position::Header("X-API-Key", secret.to_owned())),
    ("scheme", |secret| Position::Header("Authorization", format!("Token {secret}"))),
    ("base64", |secret| Position::Offer(format!("own.b64.{}", URL_SAFE_NO_PAD.encode(secret)))),
    ("extensions", |secret| Position::Header("X-Certificate", secret.to_owned())),
];

fn sources() -> [TokenSource; 12] {
    [
        TokenSource::authorization(),
        TokenSource::cookie("session").unwrap(),
        TokenSource::query("token").unwrap(),
        TokenSource::subprotocol("auth.").unwrap(),
        TokenSource::kubernetes(),
        TokenSource::phoenix(),
        TokenSource::pair("bearer").unwrap(),
        TokenSource::basic(),
        TokenSource::header(API_KEY.as_str()).unwrap(),
        TokenSource::header_scheme("authorization", "Token").unwrap(),
        TokenSource::subprotocol_base64("own.b64.").unwrap(),
        TokenSource::request_extensions(|extensions| {
            extensions.get::<Certificate>().map(|Certificate(secret)| secret.clone())
        }),
    ]
}

/// Encodes every byte, except the padding of an oversized token.
fn percent_encode(text: &str) -> String {
    let (text, padding) = text.split_at(text.len().min(1000));
    text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>() + padding
}

fn raw(path: &str, (_, position): Carrier, secret: &str, outcome: Outcome) -> Raw {
    let secret = if outcome == Outcome::TooLong {
        format!("{secret}{}", "a".repeat(8193))
    } else {
        secret.to_owned()
    };
    let (raw, carrier) = match position(&secret) {
        Position::Header(name, value) => (handshake().target(path).and(name, value), None),
        Position::Query(query) => (handshake().target(&format!("{path}?{query}")), None),
        Position::Offer(offer) => (handshake().target(path), Some(offer)),
    };
    let offers = match (outcome, &carrier) {
        // Without its marker the token is a subprotocol like any other.
        (Outcome::Unsupported, Some(carrier)) => carrier.rsplit(' ').next().unwrap().to_owned(),
        (Outcome::Unsupported, None) => "theirs".into(),
        (Outcome::OfferedTwice, Some(carrier)) => format!("{carrier}, chat, {carrier}"),
        (Outcome::OfferedTwice, None) => "chat, chat".into(),
        (_, Some(carrier)) => format!("chat, {carrier}"),
        (_, None) => "chat".into(),
    };
    let raw = raw.and("Sec-WebSocket-Protocol", offers);
    match outcome {
        Outcome::OldVersion => raw.with("Sec-WebSocket-Version", "8"),
        Outcome::Foreign => raw.with("Origin", "https://evil.example"),
        // The same one twice in a source would be one.
        Outcome::Ambiguous => raw.and("Cookie", format!("session={secret}-2")),
        _ => raw,
    }
}

// Servers

/// Logs the input and output of a verifier, and rejects some known tokens.
struct Observed<V>(V);

impl<V: VerifyToken<Claims = String>> VerifyToken for Observed<V> {
    type Claims = String;

    async fn verify(&self, token: Token, request: &Parts) -> Result<Verified<String>, Rejection> {
        trace!("{token:?} {:?}", token.source());
        look_at_request(request);
        let token = match token.expose().split_once(':') {
            Some((USER, password)) => Token::new(password),
            _ => token,
        };
        let verdict = match self.0.verify(token, request).await {
            Ok(user) if Outcome::Forbidden.is(user.claims()) => {
                Err(RejectionKind::TokenForbidden.into())
            }
            Ok(user) if Outcome::Failed.is(user.claims()) => {
                Err(Rejection::verifier_failed(io::Error::other("no connection to the database")))
            }
            verdict => verdict,
        };
        trace!("{verdict:?}");
        verdict
    }
}

fn verifier(
    statics: Vec<(String, String)>,
    tickets: MemoryTicketStore,
) -> impl VerifyToken<Claims = String> {
    let closure = |token: Token| async move {
        let claims = token.expose().split_once("-Closure-").map(|(_, claims)| claims.to_owned());
        let known = claims.filter(|claims| !Outcome::Unknown.is(claims));
        known.map(Verified::new).ok_or_else(|| RejectionKind::TokenInvalid.into())
    };
    let keys = JwtKeys::new([JwtKey::hmac(JwtAlgorithm::HS256, HMAC.as_bytes()).unwrap()]);
    let jwt = JwtVerifier::<User>::new(keys).map_claims(|user| user.sub);
    Observed(
        closure.or(StaticTokens::new(statics).unwrap()).or(jwt).or(TicketVerifier::new(tickets)),
    )
}

const RESPONDERS: [&str; 4] = ["empty", "text", "json", "own"];
const MODES: [&str; 5] = ["axum", "traced", "outside", "pending", "callback"];

fn trace_layer()
-> TraceLayer<HttpMakeClassifier, DefaultMakeSpan, DefaultOnRequest, DefaultOnResponse> {
    TraceLayer::new_for_http()
        .make_span_with(DefaultMakeSpan::new().level(Level::TRACE).include_headers(true))
        .on_request(DefaultOnRequest::new().level(Level::TRACE))
        .on_response(DefaultOnResponse::new().level(Level::TRACE).include_headers(true))
}

/// The same endpoint in each mode.
fn endpoints<C, R>(policy: &TokenPolicy<C>, responder: R) -> Router
where
    C: Clone + Send + Sync + 'static,
    R: RejectionResponse<Body> + Clone + Send + Sync + 'static,
{
    let stuck = map_request(async |mut request: Request| {
        if matches!(request.extensions().get::<Claims<String>>(), Some(Claims(claims)) if Outcome::Stuck.is(claims))
        {
            request.extensions_mut().remove::<OnUpgrade>();
        }
        request
    });
    let guard = GuardLayer::new(AllowOrigin::same_origin())
        .subprotocols(Subprotocols::list(["chat"]).unwrap())
        .token(policy.clone())
        .unwrap()
        .reject_with(responder.clone());
    let guard = ServiceBuilder::new().layer(guard).layer(stuck);
    // A layer outside sees the secret, and must hide it itself.
    let span = |request: &Request| trace_span!("outside", path = request.uri().path(), headers = ?request.headers());
    let careful = ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new([
            AUTHORIZATION,
            API_KEY,
            COOKIE,
            SEC_WEBSOCKET_PROTOCOL,
        ]))
        .layer(trace_layer().make_span_with(span))
        .layer(guard.clone());
    let pending = ResponderLayer::new().reject_with(responder.clone());
    let callback = ResponderLayer::on_upgraded_with(look_at_request, async |upgraded, ()| {
        trace!("{upgraded:?} {:?}", upgraded.validity());
    });
    let handler = || any(handle).layer(trace_layer());
    let outside = Router::new().nest("/outside", Router::new().route("/ws", handler()));
    Router::new()
        .route("/axum/ws", handler().layer(guard.clone()))
        .route("/traced/ws", handler().layer(careful))
        .route("/pending/ws", handler().layer(pending).layer(guard.clone()))
        .route(
            "/callback/ws",
            handler().layer(callback.reject_with(responder)).layer(guard.clone()),
        )
        .merge(outside.layer(guard))
}

fn app<V: VerifyToken>(verifier: V) -> Router {
    let policy = TokenPolicy::from_sources(sources(), Arc::new(verifier)).unwrap();
    let own = response_fn(|rejection: &Rejection, request: &Parts, prepared| {
        trace!("{}", chain(rejection));
        // Rejected after the token was removed.
        if matches!(rejection.kind(), RejectionKind::TokenForbidden | RejectionKind::VerifierFailed)
        {
            look_at_request(request);
        }
        prepared.map(|()| Body::from(format!("{rejection:?} {:?}", request.headers)))
    });
    let guarded = Router::new()
        .nest("/empty", endpoints(&policy, EmptyBody))
        .nest("/text", endpoints(&policy, PlainText))
        .nest("/json", endpoints(&policy, ProblemJson::new()))
        .nest("/own", endpoints(&policy, own))
        .layer(from_fn(async |request: Request, next: Next| {
            look_at_response(next.run(request).await)
        }))
        .layer(map_request(async |request: Request| certify(request)));
    Router::new().route("/unguarded", any(handle).layer(trace_layer())).merge(guarded)
}

/// Names the outcome in a header: the code of the rejection, or else the status.
fn look_at_response(mut response: Response) -> Response {
    trace!("{response:?}");
    look_at_headers(response.headers(), &[]);
    let outcome = match response.extensions().get::<Rejection>() {
        Some(rejection) => {
            trace!("{}", chain(rejection));
            rejection.kind().code().to_owned()
        }
        None => response.status().as_u16().to_string(),
    };
    response.headers_mut().insert("x-outcome", outcome.parse().unwrap());
    response
}

async fn handle(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    look_at_request(&parts);
    let claims = parts.extensions.get::<Claims<String>>().map(|Claims(claims)| claims.clone());
    let is = |outcome: Outcome| claims.as_ref().is_some_and(|claims| outcome.is(claims));
    if is(Outcome::Declined) {
        return StatusCode::FORBIDDEN.into_response();
    }
    if let Some(pending) = parts.extensions.get::<PendingUpgrade>() {
        if is(Outcome::Claimed) {
            return if parts.version == Version::HTTP_2 {
                StatusCode::OK
            } else {
                StatusCode::SWITCHING_PROTOCOLS
            }
            .into_response();
        }
        pending.on_upgrade(async |upgraded| trace!("{upgraded:?} {:?}", upgraded.validity()));
        return StatusCode::NO_CONTENT.into_response();
    }
    match WebSocketUpgrade::from_request(Request::from_parts(parts, body), &()).await {
        Ok(upgrade) => {
            trace!("{upgrade:?}");
            upgrade.on_upgrade(async |socket| trace!("{socket:?}"))
        }
        Err(rejection) => {
            trace!("{}", chain(&rejection));
            rejection.into_response()
        }
    }
}

// Clients

/// Returns all bytes that the server sends until it closes, and the outcome.
async fn http1(address: SocketAddr, raw: &Raw) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&raw.bytes()).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let response = String::from_utf8_lossy(&response).into_owned();
    let outcome = response
        .lines()
        .find_map(|line| line.strip_prefix("x-outcome: "))
        .unwrap_or_default()
        .to_owned();
    (response, outcome)
}

/// The same for an HTTP/2 stream.
async fn http2(client: &mut SendRequest<Empty<Bytes>>, raw: &Raw) -> (String, String) {
    client.ready().await.unwrap();
    let response = client.send_request(raw.extended_connect()).await.unwrap();
    let outcome = response
        .headers()
        .get("x-outcome")
        .map_or("", |outcome| outcome.to_str().unwrap())
        .to_owned();
    let mut received = format!("{:?}", response.status()).into_bytes();
    for (name, value) in response.headers() {
        received.extend([b"\n", name.as_str().as_bytes(), b": ", value.as_bytes()].concat());
    }
    if response.status() == StatusCode::OK {
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        // The server may end it in any way.
        stream.read_to_end(&mut received).await.ok();
    } else {
        received.extend(response.into_body().collect().await.unwrap().to_bytes());
    }
    (String::from_utf8_lossy(&received).into_owned(), outcome)
}

async fn connect(address: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    // The client may use `:protocol` only after it received the settings of the server.
    let warm_up = Request::get("https://chat.example.com/").body(Empty::new()).unwrap();
    client.send_request(warm_up).await.unwrap();
    client
}

// Tests

const TIMEOUT: Duration = Duration::from_secs(30);

fn expected(outcome: Outcome, mode: &str, version: Version) -> &'static str {
    match outcome {
        Outcome::Declined if mode != "callback" => "403",
        // Over HTTP/2 it is the response of another handler.
        Outcome::Claimed if mode == "pending" && version == Version::HTTP_2 => "404",
        Outcome::Claimed if mode == "pending" => "not-upgradable",
        Outcome::Stuck if mode == "pending" || mode == "callback" => "not-upgradable",
        Outcome::Stuck => "426",
        Outcome::OldVersion => "version-unsupported",
        Outcome::OfferedTwice => "subprotocol-invalid",
        Outcome::Foreign => "origin-not-allowed",
        Outcome::Unsupported => "subprotocol-unsupported",
        Outcome::Ambiguous => "token-ambiguous",
        Outcome::TooLong | Outcome::Unknown => "token-invalid",
        Outcome::Forbidden => "token-forbidden",
        Outcome::Failed => "verifier-failed",
        _ if version == Version::HTTP_2 => "200",
        _ => "101",
    }
}

struct Case {
    name: String,
    raw: Raw,
    version: Version,
    expected: &'static str,
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_in_no_log_and_no_response() {
    capture();
    let tickets = MemoryTicketStore::default();
    let mut mint = Mint::new(tickets.clone());
    let (mut guarded, mut unguarded, mut cases) =
        (Secrets::default(), Secrets::default(), Vec::new());
    guarded.add(HMAC, "the secret of the JWTs");

    for (i, carrier) in CARRIERS.into_iter().enumerate() {
        for (j, version) in [Version::HTTP_11, Version::HTTP_2].into_iter().enumerate() {
            for (k, outcome) in Outcome::GUARDED.into_iter().enumerate() {
                // Each carrier meets each outcome, and each outcome meets each mode, kind of token and responder.
                let modes = MODES.into_iter().enumerate();
                for (l, mode) in modes.filter(|(l, _)| (i + 2 * j + k + l) % 5 < 2) {
                    let (kind, responder) = (KINDS[(i + l) % 4], RESPONDERS[(j * 2 + k + l) % 4]);
                    let name = format!(
                        "{} {version:?} {outcome:?} {mode} {kind:?} {responder}",
                        carrier.0
                    );
                    let secret = mint.secret(kind, outcome).await;
                    let raw = raw(&format!("/{responder}/{mode}/ws"), carrier, &secret, outcome);
                    guarded.add(&secret, &name);
                    cases.push(Case {
                        name,
                        raw,
                        version,
                        expected: expected(outcome, mode, version),
                    });
                }
            }
            for kind in KINDS {
                let secret = mint.secret(kind, Outcome::Unguarded).await;
                let name = format!("{} {version:?} {kind:?}", carrier.0);
                unguarded.add(&secret, &name);
                let raw = raw("/unguarded", carrier, &secret, Outcome::Unguarded);
                cases.push(Case { name, raw, version, expected: "" });
            }
        }
    }

    let verifier = Arc::new(verifier(mint.statics.clone(), tickets));
    let explained = [
        GuardLayer::new(AllowOrigin::same_origin())
            .token(TokenPolicy::from_sources(sources(), Arc::clone(&verifier)).unwrap())
            .unwrap(),
        // It verifies at once.
        GuardLayer::new(AllowOrigin::same_origin())
            .subprotocols(Subprotocols::list(["chat"]).unwrap())
            .token(
                TokenPolicy::from_sources(sources(), StaticTokens::new(mint.statics).unwrap())
                    .unwrap()
                    .first_source_wins(),
            )
            .unwrap(),
    ];
    let address = serve_axum(app(verifier)).await;
    let mut client = timeout(TIMEOUT, connect(address)).await.expect("a connection in time");
    for Case { name, raw, version, expected } in cases {
        for request in if expected.is_empty() { Vec::new() } else { raw.over_both::<()>().into() } {
            let (head, ()) = certify(request).into_parts();
            for guard in &explained {
                let explanation = guard.explain(&head);
                trace!("explained as {explanation} {explanation:?}");
            }
        }
        let exchange = async {
            match version {
                Version::HTTP_2 => http2(&mut client, &raw).await,
                _ => http1(address, &raw).await,
            }
        };
        let (response, outcome) =
            timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| panic!("no end: {name}"));
        assert_eq!(outcome, expected, "{name}: {response}");
        trace!("{response}");
    }

    let log = log();
    guarded.assert_hidden_in(&log);
    // Proves that the log was captured.
    let shown = unguarded.shown_in(&log).map(|(case, _)| case).collect::<BTreeSet<_>>();
    assert_eq!(shown, unguarded.0.values().map(|case| &**case).collect());
    for there in [
        " h2::hpack::decoder: ",
        " tower_http::trace::on_response: ",
        // Logged by `log`.
        " tokio_tungstenite::handshake: ",
        "\"cookie\": Sensitive",
        "no connection to the database",
        "no configured key matches the signature",
        "OriginalUri(/own/axum/ws",
        "explained as syntax: accepted",
        "TokenSource(basic)",
        "TokenSource(request extensions)",
    ] {
        assert!(log.contains(there), "{there}");
    }
}

#[tokio::test]
async fn debug_output_hides_secrets() {
    let mut mint = Mint::new(MemoryTicketStore::default());
    let mut secrets = Secrets::default();
    secrets.add(HMAC, "HMAC");
    let secret = mint.secret(Kind::Static, Outcome::Accepted).await;
    secrets.add(&secret, "token");
    let ticket = mint.issuer.issue(&"alice").await.unwrap();
    secrets.add(ticket.expose(), "ticket");

    let key = || JwtKey::hmac(JwtAlgorithm::HS256, HMAC.as_bytes()).unwrap();
    let keys = JwtKeys::new([key()]);
    let jwt = JwtVerifier::<User>::new(keys.clone()).issuer("https://id.example.com");
    let statics = StaticTokens::new([(&secret, "alice")]).unwrap();
    let store = MemoryTicketStore::default();
    TicketIssuer::new(store.clone()).issue(&secret).await.unwrap();
    let tickets = TicketVerifier::<String, _>::new(store.clone());
    let either = statics.clone().or(statics.clone());
    let policy = TokenPolicy::from_sources(sources(), statics.clone()).unwrap();
    let layer = GuardLayer::new(AllowOrigin::same_origin()).token(policy.clone()).unwrap();
    let jwks = format!(r#"{{"keys":[{{"kty":"oct","k":"{}"}}]}}"#, URL_SAFE_NO_PAD.encode(HMAC));
    let errors = [
        JwtKey::hmac(JwtAlgorithm::HS512, HMAC.as_bytes()).unwrap_err(),
        JwtKey::from_jwks(&jwks, &[JwtAlgorithm::EdDSA]).unwrap_err(),
        JwtKey::from_jwks(&jwks[1..], &[JwtAlgorithm::HS256]).unwrap_err(),
        JwtKey::public_pem(JwtAlgorithm::RS256, HMAC).unwrap_err(),
    ];
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let request = handshake().and("Authorization", format!("Bearer {secret}")).request();
    let shown: [&dyn fmt::Debug; 18] = [
        &Token::new(&*secret),
        &statics,
        &either,
        &policy,
        &layer,
        &layer.layer(()),
        &layer.layer(inner).call(request),
        &TokenCheckLayer::new(policy.clone()),
        &key(),
        &keys,
        &jwt,
        &TokenPolicy::bearer(jwt.clone()),
        &ticket,
        &mint.issuer,
        &tickets,
        &store,
        &errors,
        &errors.each_ref().map(ToString::to_string),
    ];
    assert!(shown.iter().all(|it| !format!("{it:?}").is_empty()));
    secrets.assert_hidden_in(&format!("{shown:?}"));
}

/// A reason may repeat parts of a token such as its `kid`, but nothing that grants access.
#[tokio::test]
async fn rejection_reason_does_not_repeat_the_token() {
    let mut mint = Mint::new(MemoryTicketStore::default());
    let (request, ()) = handshake().request::<()>().into_parts();
    let jwt = mint.secret(Kind::Jwt, Outcome::Accepted).await;
    let [header, claims, signature] = jwt.split('.').collect::<Vec<_>>().try_into().unwrap();
    let text = mint.secret(Kind::Static, Outcome::Accepted).await;
    let ticket = mint.secret(Kind::Ticket, Outcome::Unknown).await;
    let encoded = URL_SAFE_NO_PAD.encode(&text);
    let tokens = [
        &*text,
        &ticket,
        &format!("{text}.{text}.{text}"),
        &format!("{encoded}.{encoded}.{encoded}"),
        &format!("{header}.{claims}"),
        &format!("{header}.{encoded}.{signature}"),
        &format!("{header}.{claims}.{encoded}"),
        &format!("{header}.{claims}.{text}!"),
        // Well-formed, but for another audience.
        &jwt,
    ];
    let keys = JwtKeys::new([JwtKey::hmac(JwtAlgorithm::HS256, HMAC.as_bytes()).unwrap()]);
    let jwt = JwtVerifier::<User>::new(keys.clone()).audience("chat");
    let misread = JwtVerifier::<Vec<String>>::new(keys);
    let tickets = TicketVerifier::<User, _>::new(MemoryTicketStore::default());
    for token in tokens {
        let mut secrets = Secrets::default();
        secrets.add(token, token);
        for verdict in [
            jwt.verify(Token::new(token), &request).await.map(drop),
            misread.verify(Token::new(token), &request).await.map(drop),
            tickets.verify(Token::new(token), &request).await.map(drop),
        ] {
            secrets.assert_hidden_in(&chain(&verdict.unwrap_err()));
        }
    }
}

#[tokio::test]
async fn kept_credential_is_not_shown() {
    const SECRET: &str = "s3cr3t-that-is-kept-for-the-handler";

    let mut secrets = Secrets::default();
    secrets.add(SECRET, "kept");
    let policy = TokenPolicy::bearer(StaticTokens::new([(SECRET, ())]).unwrap()).keep_credential();
    let inner = service_fn(async |request: http::Request<()>| {
        assert!(request.headers()[AUTHORIZATION].to_str().unwrap().ends_with(SECRET));
        Ok::<_, Infallible>(http::Response::new(format!("{request:?}")))
    });
    for request in handshake().and("Authorization", format!("Bearer {SECRET}")).over_both() {
        let layer = GuardLayer::new(AllowOrigin::same_origin()).token(policy.clone()).unwrap();
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        secrets.assert_hidden_in(response.body());
    }
}

#[test]
fn secret_is_found_in_every_form() {
    const SECRET: &str = "s3cr3t-in-all-of-its-forms";

    let mut secrets = Secrets::default();
    secrets.add(SECRET, "found");
    for form in [
        format!("Bearer {SECRET}"),
        format!("/ws?a=b&token={SECRET}more"),
        format!("/ws?token={}", percent_encode(SECRET)),
        format!("base64url.bearer.phx.{}", STANDARD_NO_PAD.encode(format!("{SECRET}more"))),
        format!("Basic {}", STANDARD_NO_PAD.encode(format!("{USER}:{SECRET}more"))),
        format!("Some(17) {:?}", SECRET.as_bytes()),
        format!("{:?}", Bytes::from(SECRET)),
    ] {
        let shown = secrets.shown_in(&form).collect::<Vec<_>>();
        assert_eq!(shown, [("found", &*form)]);
    }
}
