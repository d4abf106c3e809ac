//! What a handler responds to a handshake: a connection is completed only with extensions that the client can take.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use differential::{
    connection::{
        App, Body, CODE, Calls, Inner, answer, coded, guarded, recorded, serve, serve_stream,
    },
    generate::{extension_lines, extensions_in_response},
    oracle::{
        self, Accepted, Compression, Judgement, Policy, Verdict,
        extensions::{may_respond, parse},
    },
    policies::{self, DEFAULT, LIMITED, NO_TAKEOVER, POLICY, ZLIB},
};
use fastrand::Rng;
use http::{HeaderValue, Request, Version};
use hyper::{body::Incoming, ext::Protocol, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Layer, service_fn};
use tower_ws_guard::{GuardLayer, PendingUpgrade, ResponderLayer, VersionCheckLayer};
use tungstenite::handshake::server::create_response;

const NAME: &str = "sec-websocket-extensions";
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What the handler does with the next handshake.
#[derive(Clone, Default)]
struct Next {
    /// Not the one that completes it.
    status: Option<u16>,
    lines: Vec<HeaderValue>,
}

type Shared = Arc<Mutex<Next>>;

/// Completes what is given to it by itself, or takes it from a layer that does, as the policy has it.
fn handler(policy: &Policy, next: &Shared) -> Inner {
    let (completes, next) = (policy.completes, Arc::clone(next));
    Inner::new(service_fn(move |mut request: Request<()>| {
        let next = next.lock().unwrap().clone();
        async move {
            let is_http2 = request.version() == Version::HTTP_2;
            let mut response = match next.status {
                Some(status) => answer(status, "declined"),
                None if completes => {
                    drop(request.extensions().get::<PendingUpgrade>().unwrap().accept());
                    answer(200, "accepted")
                }
                None if is_http2 => {
                    drop(hyper::upgrade::on(&mut request));
                    answer(200, "accepted")
                }
                None => {
                    drop(hyper::upgrade::on(&mut request));
                    let mut response = create_response(&request).unwrap().map(|()| Body::new());
                    response.headers_mut().insert(CODE, HeaderValue::from_static("accepted"));
                    response
                }
            };
            response.headers_mut().remove(NAME);
            for line in next.lines {
                response.headers_mut().append(NAME, line);
            }
            Ok(response)
        }
    }))
}

/// Negotiates for itself, with a codec that can do everything.
fn negotiating(next: &Shared) -> Inner {
    let policy = Policy { extensions: Some(Compression::WHOLE), completes: true, ..POLICY };
    let layer = ResponderLayer::new().accept_unmatched_subprotocols().reject_with(coded());
    let layer = layer.extensions(policies::extensions(&policy).unwrap());
    Inner::new(layer.layer(handler(&policy, next)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The handler responds, or the guard for it.
    Guard,
    /// A layer that knows of no extensions.
    Version,
    /// A layer behind the guard responds.
    Responder,
}

const OPEN: Policy =
    Policy { name: "no extensions", any_origin: true, accept_unmatched: true, ..POLICY };

const APPS: [(Kind, Policy); 17] = [
    (Kind::Guard, OPEN),
    (Kind::Guard, Policy { name: "default", extensions: Some(DEFAULT), ..OPEN }),
    (Kind::Guard, Policy { name: "zlib", extensions: Some(ZLIB), ..OPEN }),
    (Kind::Guard, Policy { name: "limits", extensions: Some(LIMITED), ..OPEN }),
    (Kind::Guard, Policy { name: "no takeover", extensions: Some(NO_TAKEOVER), ..OPEN }),
    (Kind::Guard, Policy { name: "reports", report_only: true, any_origin: false, ..OPEN }),
    (
        Kind::Guard,
        Policy {
            name: "reports, zlib",
            extensions: Some(ZLIB),
            report_only: true,
            any_origin: false,
            ..OPEN
        },
    ),
    (Kind::Guard, Policy { name: "completes", completes: true, ..OPEN }),
    (
        Kind::Guard,
        Policy { name: "completes, default", completes: true, extensions: Some(DEFAULT), ..OPEN },
    ),
    (
        Kind::Guard,
        Policy { name: "completes, limits", completes: true, extensions: Some(LIMITED), ..OPEN },
    ),
    (
        Kind::Guard,
        Policy {
            name: "completes, reports, zlib",
            completes: true,
            extensions: Some(ZLIB),
            report_only: true,
            any_origin: false,
            ..OPEN
        },
    ),
    (Kind::Version, OPEN),
    (Kind::Responder, OPEN),
    (Kind::Responder, Policy { name: "default", extensions: Some(DEFAULT), ..OPEN }),
    (Kind::Responder, Policy { name: "zlib", extensions: Some(ZLIB), ..OPEN }),
    (Kind::Responder, Policy { name: "limits", extensions: Some(LIMITED), ..OPEN }),
    (Kind::Responder, Policy { name: "no takeover", extensions: Some(NO_TAKEOVER), ..OPEN }),
];

fn app<B>(kind: Kind, policy: &Policy, next: &Shared, calls: &Calls) -> App<B>
where
    B: hyper::body::Body<Data: Send> + Send + 'static,
{
    let calls = Arc::clone(calls);
    match kind {
        Kind::Guard => guarded(policy, recorded(handler(policy, next), calls)),
        Kind::Responder => guarded(policy, recorded(negotiating(next), calls)),
        Kind::Version => {
            let layer = VersionCheckLayer::new().reject_with(coded());
            App::new(layer.layer(recorded(handler(policy, next), calls)))
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

/// A status and the lines of the header.
#[derive(Debug)]
struct Seen {
    status: u16,
    code: String,
    lines: Vec<String>,
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_matches([' ', '\t']).to_owned()
}

fn serve_http1(app: &App, calls: &Calls, offers: &[HeaderValue]) -> (Vec<Request<()>>, Seen) {
    let mut input = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nOrigin: https://a\r\n"
    )
    .into_bytes();
    for offer in offers {
        input.extend([b"Sec-WebSocket-Extensions: ", offer.as_bytes(), b"\r\n"].concat());
    }
    input.extend(b"\r\n");
    let outcome = serve(app, calls, input, usize::MAX);
    let [response] = &outcome.responses[..] else { panic!("{outcome:?}") };
    let seen = Seen {
        status: response.status,
        code: response.lines(CODE).next().unwrap_or_default().to_owned(),
        lines: response.lines(NAME).map(str::to_owned).collect(),
    };
    (outcome.calls, seen)
}

fn serve_http2(app: &App<Body>, calls: &Calls, offers: &[HeaderValue]) -> (Vec<Request<()>>, Seen) {
    let mut request = Request::connect("https://a/ws")
        .version(Version::HTTP_2)
        .header("sec-websocket-version", "13")
        .header("origin", "https://a")
        .extension(Protocol::from_static("websocket"))
        .body(())
        .unwrap();
    for offer in offers {
        request.headers_mut().append(NAME, offer.clone());
    }
    let (calls, response) = serve_stream(app, calls, request);
    let headers = response.headers();
    let seen = Seen {
        status: response.status().as_u16(),
        code: headers.get(CODE).map_or("", |code| code.to_str().unwrap()).to_owned(),
        lines: headers.get_all(NAME).iter().map(|line| text(line.as_bytes())).collect(),
    };
    (calls, seen)
}

#[test]
fn a_response_names_only_what_the_client_can_take() {
    let (next, calls) = (Shared::default(), Calls::default());
    let over_http1 = APPS.map(|(kind, policy)| app(kind, &policy, &next, &calls));
    let over_http2 = APPS.map(|(kind, policy)| app(kind, &policy, &next, &calls));
    let (seed, first) = (setting("DIFFERENTIAL_SEED", 1), setting("DIFFERENTIAL_FIRST", 0));
    let count = setting("DIFFERENTIAL_COUNT", 10_000);
    let mut tally = BTreeMap::<_, u64>::new();
    for case in first..first + count {
        let name =
            format!("DIFFERENTIAL_SEED={seed} DIFFERENTIAL_FIRST={case} DIFFERENTIAL_COUNT=1");
        let mut rng = Rng::with_seed(seed << 40 ^ case);
        let at = rng.usize(..APPS.len());
        let (kind, policy) = &APPS[at];
        let is_http2 = rng.bool();
        let values = |lines: Vec<Vec<u8>>| {
            lines.iter().map(|line| HeaderValue::from_bytes(line)).collect::<Result<Vec<_>, _>>()
        };
        let offers = if rng.u8(..16) == 0 { Vec::new() } else { extension_lines(&mut rng) };
        let Ok(offers) = values(offers) else { continue };
        let offered = parse(offers.iter().map(HeaderValue::as_bytes));
        let own = policy.completes || *kind == Kind::Responder;
        let lines = match own && rng.u8(..4) > 0 {
            true => Vec::new(),
            false => extensions_in_response(&mut rng, offered.as_deref().unwrap_or_default()),
        };
        let lines = values(lines).unwrap();
        let status = (rng.u8(..12) == 0).then(|| [400, 403, 404, 503][rng.usize(..4)]);
        *next.lock().unwrap() = Next { status, lines: lines.clone() };
        let (calls, seen) = match is_http2 {
            true => serve_http2(&over_http2[at], &calls, &offers),
            false => serve_http1(&over_http1[at], &calls, &offers),
        };

        let shown =
            calls.first().map(|call| call.headers().get_all(NAME).iter().collect::<Vec<_>>());
        let differ = |what: &str| {
            panic!(
                "{what}\n{name}\n{kind:?} {}\nover HTTP/2: {is_http2}\noffers: {offers:?}\nshown: {shown:?}\n\
                the handler: {status:?} {lines:?}\n{seen:?}",
                policy.name
            )
        };
        let mut head = oracle::Head {
            method: "GET".to_owned(),
            fields: [
                ("host", "a"),
                ("upgrade", "websocket"),
                ("connection", "Upgrade"),
                ("sec-websocket-key", KEY),
                ("sec-websocket-version", "13"),
                ("origin", "https://a"),
            ]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
            .into(),
            ..oracle::Head::default()
        };
        let fields =
            offers.iter().map(|offer| (NAME.to_owned(), offer.as_bytes().trim_ascii().to_vec()));
        head.fields.extend(fields);
        let Judgement { verdict, .. } = head.judge(policy);
        let mut count = |what: &'static str| *tally.entry((at, is_http2, what)).or_default() += 1;
        let Accepted { extensions, .. } = match verdict {
            Verdict::Accepted(accepted) => accepted,
            Verdict::Rejected(code) => {
                if seen.code != code || !calls.is_empty() || !seen.lines.is_empty() {
                    differ("another verdict");
                }
                count(code);
                continue;
            }
            _ => unreachable!("a handshake"),
        };
        let [call] = &calls[..] else { differ("no call") };
        let shown_lines = call.headers().get_all(NAME).iter();
        let shown_lines = shown_lines.map(|line| line.as_bytes().trim_ascii()).collect::<Vec<_>>();
        if let Err(why) =
            extensions.judge_shown(policy.extensions.is_some(), shown_lines.iter().copied())
        {
            differ(why);
        }

        let completed = if is_http2 { 200 } else { 101 };
        let sent = lines.iter().map(HeaderValue::as_bytes);
        // An empty line names no extension.
        let names = || parse(sent.clone()).is_none_or(|named| !named.is_empty());
        let own = policy.completes || *kind == Kind::Responder;
        let shown_offers = parse(shown_lines);
        let agreed = match (kind, policy.extensions, &offered) {
            // The responder reads by itself.
            (Kind::Responder, None, Some(offered)) => Compression::WHOLE.agree(offered),
            (Kind::Responder, None, None) => {
                if seen.status != 400 {
                    differ("a malformed offer was accepted");
                }
                count("malformed");
                continue;
            }
            _ => extensions.agreed,
        };
        let negotiates = policy.extensions.is_some() || *kind == Kind::Responder;
        let (may, expected) = match (own, policy.extensions) {
            // A layer writes it, and what a handler writes in the same place is not for it to say.
            (true, _) if negotiates => {
                let agreed = agreed.map(|agreed| agreed.text());
                (None, status.is_none().then(|| Vec::from_iter(agreed)))
            }
            (true, _) => (Some(lines.is_empty()), Some(Vec::new())),
            (false, negotiates) => {
                // On one line. A layer that negotiates adds the limits of the client.
                let written = sent.clone().map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
                let line = written.map(text).collect::<Vec<_>>().join(", ");
                let expected = names().then_some(line).into_iter().collect();
                let may = may_respond(shown_offers.as_deref(), sent.clone());
                (Some(may), negotiates.is_none().then_some(expected))
            }
        };
        if !own && shown_offers.is_none() && status.is_none() && names() {
            let code = match parse(sent.clone()) {
                Some(_) => "extension-invalid",
                None => "extension-not-offered",
            };
            if seen.code != code {
                differ("a handler may accept a malformed offer");
            }
            count("malformed");
            continue;
        }
        let takeover = "; client_no_context_takeover";
        let forbids = extensions.agreed.is_some_and(|agreed| agreed.text().contains(takeover));
        let is_told = seen.lines.iter().all(|line| line.contains(takeover));
        if seen.status == completed && forbids && !is_told {
            differ("a client does not learn its limits");
        }
        // Whatever else, no client is sent what it cannot take.
        let is_sound =
            may_respond(offered.as_deref(), seen.lines.iter().map(|line| line.as_bytes()));
        if seen.status == completed && !is_sound {
            differ("a client is sent what it cannot take");
        }
        match (status, may, seen.status) {
            (Some(status), _, there) => {
                if there != status || seen.code != "declined" {
                    differ("another response than the handler's");
                }
                count("declined");
            }
            (None, Some(false) | None, 500) => {
                if seen.code != "extension-not-offered" || !seen.lines.is_empty() {
                    differ("another fault");
                }
                if may.is_none() && lines.is_empty() {
                    differ("a fault of nobody");
                }
                count("not offered");
            }
            (None, Some(true) | None, there) if there == completed => {
                if expected.as_ref().is_some_and(|expected| *expected != seen.lines) {
                    differ("another header");
                }
                count(if seen.lines.iter().all(String::is_empty) {
                    "nothing named"
                } else {
                    "named"
                });
            }
            _ => differ("another outcome"),
        }
    }
    for ((at, is_http2, what), count) in &tally {
        let (kind, policy) = &APPS[*at];
        println!("{kind:?}, {}, over HTTP/2: {is_http2}: {what} {count}", policy.name);
    }
    if count >= 10_000 {
        for is_http2 in [false, true] {
            for (at, (kind, policy)) in APPS.iter().enumerate() {
                let seen = |what| tally.contains_key(&(at, is_http2, what));
                assert!(seen("nothing named") && seen("declined"), "{kind:?} {}", policy.name);
                let names = policy.extensions.is_some() || !policy.completes;
                assert_eq!(seen("named"), names, "{kind:?} {}", policy.name);
                if policy.extensions.is_some() {
                    assert!(seen("extension-invalid"), "{kind:?} {}", policy.name);
                }
                if *kind != Kind::Responder && !policy.completes {
                    assert!(seen("not offered"), "{kind:?} {}", policy.name);
                }
            }
        }
    }
}

/// What the response of a guard names is what the codec is told.
#[test]
fn a_codec_is_told_what_the_response_names() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for (at, compression) in
        [DEFAULT, ZLIB, LIMITED, NO_TAKEOVER, Compression::WHOLE].into_iter().enumerate()
    {
        let policy = Policy { extensions: Some(compression), ..OPEN };
        let mut rng = Rng::with_seed(at as u64);
        let mut agreed = 0;
        for _ in 0..40 {
            let lines = extension_lines(&mut rng);
            let Ok(lines) = lines
                .iter()
                .map(|line| HeaderValue::from_bytes(line))
                .collect::<Result<Vec<_>, _>>()
            else {
                continue;
            };
            let Some(offers) = parse(lines.iter().map(HeaderValue::as_bytes)) else { continue };
            let expected = compression.agree(&offers).map(|agreed| agreed.text());
            agreed += usize::from(expected.is_some());

            let (tell, told) = tokio::sync::oneshot::channel();
            let tell = Arc::new(Mutex::new(Some(tell)));
            let guard = GuardLayer::new(policies::allow_origin(&policy))
                .extensions(policies::extensions(&policy).unwrap())
                .on_upgraded(move |upgraded| {
                    let told = upgraded.extensions().permessage_deflate();
                    let tell = tell.lock().unwrap().take().unwrap();
                    tell.send(told.map(|told| told.to_string())).unwrap();
                    async {}
                });
            let app = guard.layer(service_fn(async |_: Request<Incoming>| {
                Ok::<_, Infallible>(answer(500, "called"))
            }));
            let mut input = format!(
                "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nOrigin: https://a\r\n"
            )
            .into_bytes();
            for line in &lines {
                input.extend([b"Sec-WebSocket-Extensions: ", line.as_bytes(), b"\r\n"].concat());
            }
            input.extend(b"\r\n");
            let (told, response) = runtime.block_on(async {
                let (mut client, server) = tokio::io::duplex(64 * 1024);
                let server = http1::Builder::new()
                    .serve_connection(TokioIo::new(server), TowerToHyperService::new(app));
                tokio::spawn(server.with_upgrades());
                client.write_all(&input).await.unwrap();
                let told = told.await.unwrap();
                let mut response = String::new();
                client.read_to_string(&mut response).await.unwrap();
                (told, response.to_ascii_lowercase())
            });
            assert!(response.starts_with("http/1.1 101 "), "{response}");
            let named =
                response.lines().find_map(|line| line.strip_prefix("sec-websocket-extensions: "));
            assert_eq!(told, expected, "{lines:?}");
            assert_eq!(named, expected.as_deref(), "{lines:?}");
        }
        assert!(agreed > 4, "{compression:?}");
    }
}
