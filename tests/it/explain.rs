//! `GuardLayer::explain` says what a guard would do, and `GuardLayer::lint` what is dangerous about it.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use http::{Request, Response, StatusCode, request::Parts};
use tower::{Layer, ServiceExt, service_fn};
use tower_ws_guard::{
    AllowHost, AllowOrigin, ConnectionLimit, Drain, Explanation, GuardLayer, Permit, Rejection,
    RejectionKind, Replaceable, Sessions, StaticTokens, Subprotocols, Token, TokenPolicy,
    TokenSource, Verified, VerifyToken, check_fn,
    guard::{Step, Verdict},
    token::ticket::{MemoryTicketStore, TicketIssuer, TicketVerifier},
};

use crate::{
    common::{HOST, ORIGIN, Raw, handshake, plain},
    decisions::bearer,
    limit::code,
};

const TOKEN: &str = "s3cr3t-alpha-01";

fn explain(guard: &GuardLayer, raw: &Raw) -> Explanation {
    let [http1, http2] = raw.over_both::<()>().map(|request| {
        let (head, ()) = request.into_parts();
        guard.explain(&head)
    });
    assert_eq!(http1.to_string(), http2.to_string(), "{raw:?}");
    http1
}

fn same_origin() -> GuardLayer {
    GuardLayer::new(AllowOrigin::same_origin())
}

fn list(origins: &[&str]) -> AllowOrigin {
    AllowOrigin::list(origins).unwrap()
}

fn tokens() -> StaticTokens<&'static str> {
    StaticTokens::new([(TOKEN, "alice"), ("t0ken-of-bob-02", "bob")]).unwrap()
}

async fn switch(mut request: Request<()>) -> Result<Response<()>, Infallible> {
    let permit = Permit::claim(request.extensions_mut());
    let status = if request.version() == http::Version::HTTP_2 { 200 } else { 101 };
    Ok(Response::builder().status(status).extension(permit).body(()).unwrap())
}

/// The first rejection is the response.
#[tokio::test]
async fn explanation_agrees_with_the_response() {
    let started = Drain::new();
    started.start();
    let running = Drain::new();
    let full = ConnectionLimit::total(1).unwrap();
    let taken = same_origin().limit(full.clone()).layer(service_fn(switch));
    let _open = taken.oneshot(handshake().request()).await.unwrap();
    assert_eq!(full.connections(), 1);

    let sources = || {
        [
            TokenSource::authorization(),
            TokenSource::cookie("session").unwrap(),
            TokenSource::pair("bearer").unwrap(),
        ]
    };
    let policy = || TokenPolicy::from_sources(sources(), tokens()).unwrap();
    let blocked = || {
        check_fn(|handshake| match handshake.uri().path() {
            "/blocked" => Err(Rejection::custom("blocked", StatusCode::FORBIDDEN)),
            _ => Ok(()),
        })
    };
    let per_user = Sessions::per_claims(1, |user: &&'static str| *user);
    let chat = || Subprotocols::list(["chat", "SPDY/3.1+own"]).unwrap();
    let guards = [
        ("plain", same_origin()),
        ("list", GuardLayer::new(list(&["https://*.example.com"]).allow_null())),
        ("no browsers", GuardLayer::new(AllowOrigin::no_browsers())),
        (
            "all",
            same_origin()
                .allow_host(AllowHost::list([HOST]).unwrap())
                .check(blocked())
                .subprotocols(chat())
                .token(policy())
                .unwrap()
                .drain(&running)
                .sessions(&per_user.unwrap()),
        ),
        (
            "first",
            same_origin().token(policy().first_source_wins().max_length(15).unwrap()).unwrap(),
        ),
        ("unmatched", same_origin().subprotocols(chat()).accept_unmatched_subprotocols()),
        ("drain", same_origin().drain(&started)),
        ("full", same_origin().token(policy()).unwrap().limit(full.clone())),
        ("websocket", same_origin().require_websocket()),
    ];
    let offer = |offer: &str| handshake().and("Sec-WebSocket-Protocol", offer);
    let requests = [
        handshake(),
        plain(),
        bearer(TOKEN),
        bearer("guess"),
        bearer("too-long-for-15-bytes"),
        bearer(TOKEN).and("Authorization", "Bearer guess"),
        bearer(TOKEN).and("Authorization", format!("Bearer {TOKEN}")),
        bearer(TOKEN).and("Cookie", format!("session={TOKEN}")),
        bearer(TOKEN).and("Cookie", "session="),
        bearer("guess").and("Cookie", format!("session={TOKEN}")),
        bearer(TOKEN).target("/blocked"),
        bearer(TOKEN).with("Host", "other.example").with("Origin", "https://other.example"),
        bearer(TOKEN)
            .with("Host", "CHAT.example.com.:443")
            .with("Origin", "wss://chat.example.com."),
        bearer(TOKEN).with("Host", "user@chat.example.com"),
        bearer(TOKEN).with("Origin", "https://evil.example"),
        bearer(TOKEN).with("Origin", "https://app.example.com"),
        bearer(TOKEN).and("Sec-Fetch-Site", "cross-site"),
        handshake().with("Origin", "null"),
        handshake().with("Origin", ""),
        handshake().with("Origin", "x"),
        handshake().and("Origin", ORIGIN),
        handshake().without("Origin"),
        offer(""),
        offer(","),
        offer("chat"),
        offer("theirs"),
        offer("SPDY/3.1+own"),
        offer(&format!("bearer, {TOKEN}")),
        offer(&format!("chat, Bearer, {TOKEN}")),
        offer("chat, chat"),
        handshake().with("Sec-WebSocket-Version", "8"),
        handshake().and("Content-Length", "1"),
    ];
    let (mut accepted, mut rejected) = (0, 0);
    for (name, guard) in guards {
        for raw in &requests {
            for request in raw.over_both() {
                // Over HTTP/2 a request without these is an ordinary CONNECT, and so on.
                let (head, ()) = request.clone().into_parts();
                let explained = guard.explain(&head);
                let explained = explained.rejection().map(|rejection| rejection.kind().code());
                let app = guard.clone().layer(service_fn(switch));
                let response = app.oneshot(request).await.unwrap();
                assert_eq!(explained, code(&response), "{name} {raw:?} {head:?}");
                *(if explained.is_none() { &mut accepted } else { &mut rejected }) += 1;
            }
        }
    }
    assert!(accepted > 50 && rejected > 100, "{accepted} {rejected}");
}

#[test]
fn explanation_names_the_rule_that_decides() {
    let replaceable = Replaceable::new(list(&["https://r.example"]));
    let policy = list(&["https://*.example.com", "https://exact.example", "moz-extension://*"])
        .or(AllowOrigin::same_origin())
        .or(AllowOrigin::public_origin("https://public.example").unwrap())
        .or(AllowOrigin::predicate(|origin, _| origin.host() == "predicate.example"))
        .or(AllowOrigin::replaceable(&replaceable))
        .or(AllowOrigin::per_request(|_| Some(list(&["https://tenant.example"]))))
        .allow_missing()
        .allow_null();
    let hosts = AllowHost::list([HOST, "*.example.org:*"])
        .unwrap()
        .or(AllowHost::loopback())
        .or(AllowHost::predicate(|host| host.name() == "predicate.example"));
    let guard = GuardLayer::new(policy)
        .allow_host(hosts)
        .subprotocols(Subprotocols::list(["chat"]).unwrap());
    let from = |origin: &str| handshake().with("Origin", origin);
    let to = |host: &str| handshake().with("Host", host);
    for (raw, line) in [
        (
            from("https://App.example.com"),
            "origin: accepted: `https://app.example.com` is listed as `https://*.example.com`",
        ),
        (
            from("wss://exact.example:443"),
            "origin: accepted: `https://exact.example` is listed as `https://exact.example`",
        ),
        (
            from("moz-extension://abc"),
            "origin: accepted: `moz-extension://abc` is listed as `moz-extension://*`",
        ),
        (
            from("http://chat.example.com:80"),
            "origin: accepted: `http://chat.example.com` is the origin of `chat.example.com`",
        ),
        (
            from("https://public.example"),
            "origin: accepted: `https://public.example` is the server's public origin",
        ),
        (
            from("https://predicate.example"),
            "origin: accepted: a predicate allows `https://predicate.example`",
        ),
        (
            from("https://r.example"),
            "origin: accepted: `https://r.example` is listed as `https://r.example`",
        ),
        (
            from("https://tenant.example"),
            "origin: accepted: `https://tenant.example` is listed as `https://tenant.example`",
        ),
        (from("null"), "origin: accepted: `allow_null` allows `null`"),
        (from(""), "origin: accepted: `allow_missing` allows a missing `Origin`"),
        (
            from("https://evil.example"),
            "origin: rejected: origin-not-allowed: the origin is not allowed: `https://evil.example`; add it with `AllowOrigin::list`",
        ),
        (
            from("https://a/"),
            "origin: rejected: origin-invalid: `Origin` is malformed: `https://a/`",
        ),
        (
            from("https://public.example").and("Sec-Fetch-Site", "cross-site"),
            "; because: `Sec-Fetch-Site` is `cross-site`",
        ),
        (
            to("Chat.Example.com.:443"),
            "host: accepted: `Chat.Example.com.:443` is listed as `chat.example.com`",
        ),
        (
            to("a.b.example.org:8080"),
            "host: accepted: `a.b.example.org:8080` is listed as `*.example.org:*`",
        ),
        (to("127.0.0.2:1"), "host: accepted: `127.0.0.2:1` is this machine"),
        (to("predicate.example"), "host: accepted: a predicate allows `predicate.example`"),
        (
            to("evil.example"),
            "host: rejected: host-not-allowed: this server does not serve that host: `evil.example`; add the host",
        ),
        (handshake(), "syntax: accepted: the handshake is well-formed"),
        (handshake(), "subprotocol: accepted: none is offered"),
        (
            handshake().and("Sec-WebSocket-Protocol", "x, chat"),
            "subprotocol: accepted: `chat` is selected",
        ),
        (
            handshake().and("Sec-WebSocket-Protocol", "x"),
            "subprotocol: rejected: subprotocol-unsupported: none of the offered subprotocols is supported: `x`",
        ),
        (handshake().and("Sec-WebSocket-Protocol", "x x"), "syntax: rejected: subprotocol-invalid"),
    ] {
        let explanation = explain(&guard, &raw).to_string();
        assert!(explanation.contains(line), "{line}: {explanation}");
    }
    let any = explain(&GuardLayer::new(AllowOrigin::dangerous_any()), &handshake()).to_string();
    assert!(any.contains("origin: accepted: `dangerous_any` allows any origin"), "{any}");
    let handler = explain(&same_origin(), &handshake().and("Sec-WebSocket-Protocol", "x"));
    assert!(handler.to_string().contains("subprotocol: accepted: the handler selects one"));
}

#[test]
fn steps_are_in_the_order_of_the_guard() {
    let guard = same_origin()
        .allow_host(AllowHost::list([HOST]).unwrap())
        .check(check_fn(|_| Ok(())))
        .token(TokenPolicy::bearer(tokens()))
        .unwrap()
        .authorize(async |_: &Parts| -> Result<(), Rejection> { panic!("it is not called") })
        .drain(&Drain::new())
        .limit(ConnectionLimit::total(1).unwrap());
    let explanation = explain(&guard, &bearer(TOKEN));
    let names = explanation.steps().iter().map(Step::name).collect::<Vec<_>>();
    assert_eq!(
        names,
        [
            "drain",
            "syntax",
            "host",
            "origin",
            "check",
            "subprotocol",
            "token",
            "authorization",
            "limit"
        ]
    );
    for step in explanation.steps() {
        match (step.name(), step.verdict()) {
            ("authorization", Verdict::Unknown(_)) => {}
            (_, Verdict::Accepted(because)) => assert!(!because.is_empty()),
            (name, verdict) => panic!("{name}: {verdict:?}"),
        }
    }
    assert!(explanation.rejection().is_none());

    // Every step says what is wrong with it, also behind one that rejects.
    let raw = bearer("guess").with("Origin", "https://a.example").with("Host", "b.example");
    let codes = explain(&guard, &raw);
    let codes = codes.steps().iter().filter_map(|step| match step.verdict() {
        Verdict::Rejected(rejection) => Some(rejection.kind().code()),
        _ => None,
    });
    assert_eq!(
        codes.collect::<Vec<_>>(),
        ["host-not-allowed", "origin-not-allowed", "token-invalid"]
    );

    let (head, ()) = plain().request::<()>().into_parts();
    assert_eq!(
        guard.explain(&head).to_string(),
        "syntax: accepted: it is not an upgrade request, and passes\n"
    );
}

#[tokio::test]
async fn explanation_takes_nothing() {
    let store = MemoryTicketStore::default();
    let ticket = TicketIssuer::new(store.clone()).issue(&"alice".to_owned()).await.unwrap();
    let policy = TokenPolicy::from_sources(
        [TokenSource::query("ticket").unwrap()],
        TicketVerifier::<String, _>::new(store),
    );
    let limit = ConnectionLimit::total(1).unwrap();
    let drain = Drain::new();
    let sessions = Sessions::per_claims(1, |user: &String| user.clone()).unwrap();
    let guard = same_origin().token(policy.unwrap()).unwrap().limit(limit.clone()).drain(&drain);
    let guard = guard.sessions(&sessions);
    let raw = handshake().target(&format!("/ws?ticket={}", ticket.expose()));
    for _ in 0..3 {
        let explanation = explain(&guard, &raw);
        assert!(explanation.rejection().is_none(), "{explanation}");
        let explanation = explanation.to_string();
        assert!(explanation.contains("token: unknown: "), "{explanation}");
        assert!(explanation.contains("sessions: unknown: "), "{explanation}");
        assert!(!explanation.contains(ticket.expose()), "{explanation}");
        assert_eq!((limit.connections(), sessions.keys(), drain.connections()), (0, 0, 0));
    }
    let app = guard.layer(service_fn(switch));
    let response = app.clone().oneshot(raw.request()).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!((limit.connections(), sessions.keys(), drain.connections()), (1, 1, 1));
    assert_eq!(code(&app.oneshot(raw.request()).await.unwrap()), Some("token-invalid"));
}

#[test]
fn explanation_calls_no_verifier_that_waits() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let slow = move |_: Token| {
        counted.fetch_add(1, SeqCst);
        std::future::ready(Ok(Verified::new(())))
    };
    let guard = same_origin().token(TokenPolicy::bearer(slow)).unwrap();
    let explanation = explain(&guard, &bearer("any")).to_string();
    assert!(explanation.contains("token: unknown: there is one, and its verifier has to wait"));
    let explanation = explain(&guard, &handshake());
    assert_eq!(explanation.rejection().unwrap().kind(), RejectionKind::TokenMissing);
    assert_eq!(calls.load(SeqCst), 0);

    // A check of one's own gets a copy of the extensions.
    let guard = same_origin().check(|handshake: &mut tower_ws_guard::Handshake<'_>| {
        handshake.extensions_mut().insert(7_u8);
        Ok(())
    });
    let (head, ()) = handshake().request::<()>().into_parts();
    assert!(guard.explain(&head).rejection().is_none());
    assert!(head.extensions.get::<u8>().is_none());
}

// Lint

/// The codes of a lint.
fn lint(guard: &GuardLayer, listens_on: Option<&str>) -> Vec<&'static str> {
    let address = listens_on.map(|address| address.parse::<SocketAddr>().unwrap());
    let lints = guard.lint(address);
    for lint in &lints {
        let text = lint.to_string();
        assert!(text.starts_with(&format!("{}: ", lint.code())) && text.contains("; "), "{text}");
    }
    lints.iter().map(tower_ws_guard::Lint::code).collect()
}

struct Once;

impl VerifyToken for Once {
    type Claims = ();

    async fn verify(&self, _: Token, _: &Parts) -> Result<Verified<()>, Rejection> {
        Ok(Verified::new(()))
    }

    fn is_one_time(&self) -> bool {
        true
    }
}

#[test]
fn lint_names_dangerous_combinations() {
    let with = |origins: AllowOrigin, source: &str| {
        let policy = TokenPolicy::from_sources([source.parse().unwrap()], tokens());
        GuardLayer::new(origins).token(policy.unwrap()).unwrap()
    };
    let once = |verifier| TokenPolicy::from_sources([TokenSource::query("t").unwrap()], verifier);
    let missing = || AllowOrigin::same_origin().allow_missing();
    let loopback = "127.0.0.1:3000";
    let hosts = AllowHost::loopback;
    let any = AllowOrigin::dangerous_any;
    for (name, guard, listens_on, expected) in [
        ("cookie", with(missing(), "cookie:session"), None, &["ambient-credential"][..]),
        ("basic", with(missing(), "basic"), None, &["ambient-credential"]),
        ("any origin", with(any(), "cookie:session"), None, &["ambient-credential"]),
        (
            "no browsers",
            with(AllowOrigin::no_browsers(), "cookie:session"),
            None,
            &["ambient-credential"],
        ),
        (
            "in a list",
            with(AllowOrigin::replaceable(&Replaceable::new(missing())), "basic"),
            None,
            &["ambient-credential"],
        ),
        ("cookie with an origin", with(AllowOrigin::same_origin(), "cookie:session"), None, &[]),
        (
            "null",
            with(AllowOrigin::same_origin().allow_null(), "cookie:session"),
            None,
            &["ambient-credential"],
        ),
        // A charge point is not a browser, and no page is allowed.
        ("basic, no browsers", with(AllowOrigin::no_browsers(), "basic"), None, &[]),
        ("bearer", with(missing(), "authorization"), None, &[]),
        ("header", with(missing(), "header:x-api-key"), None, &[]),
        ("query", with(AllowOrigin::same_origin(), "query:token"), None, &["token-in-url"]),
        ("ticket in the query", same_origin().token(once(Once).unwrap()).unwrap(), None, &[]),
        (
            "replaceable ticket",
            same_origin()
                .token(
                    TokenPolicy::from_sources(
                        [TokenSource::query("t").unwrap()],
                        Replaceable::new(Once),
                    )
                    .unwrap(),
                )
                .unwrap(),
            None,
            &[],
        ),
        (
            "both in the query",
            same_origin()
                .token(
                    TokenPolicy::from_sources(
                        [TokenSource::query("t").unwrap()],
                        Once.or(tokens_of_nobody()),
                    )
                    .unwrap(),
                )
                .unwrap(),
            None,
            &["token-in-url"],
        ),
        ("loopback", same_origin(), Some(loopback), &["dns-rebinding"]),
        ("loopback, IPv6", same_origin(), Some("[::1]:3000"), &["dns-rebinding"]),
        ("mapped", same_origin(), Some("[::ffff:10.0.0.1]:3000"), &["dns-rebinding"]),
        ("private", same_origin(), Some("192.168.1.2:80"), &["dns-rebinding"]),
        ("link-local", same_origin(), Some("169.254.1.2:80"), &["dns-rebinding"]),
        ("unique local", same_origin(), Some("[fd00::1]:80"), &["dns-rebinding"]),
        ("loopback with hosts", same_origin().allow_host(hosts()), Some(loopback), &[]),
        (
            "loopback with a list",
            GuardLayer::new(list(&["http://localhost:3000"])),
            Some(loopback),
            &[],
        ),
        ("all addresses", same_origin(), Some("0.0.0.0:80"), &["dns-rebinding"]),
        ("all addresses, IPv6", same_origin(), Some("[::]:80"), &["dns-rebinding"]),
        ("public address", same_origin(), Some("203.0.113.1:80"), &[]),
        ("unknown address", same_origin(), None, &[]),
        ("suffix", GuardLayer::new(list(&["https://*.co.uk"])), None, &["public-suffix"]),
        (
            "private suffix",
            GuardLayer::new(list(&["https://*.github.io:*"])),
            None,
            &["public-suffix"],
        ),
        (
            "suffix with a dot",
            GuardLayer::new(list(&["https://*.co.uk."])),
            None,
            &["public-suffix"],
        ),
        (
            "top",
            GuardLayer::new(list(&["https://*.com", "https://a.com"])),
            None,
            &["public-suffix"],
        ),
        (
            "replaced",
            GuardLayer::new(AllowOrigin::replaceable(&Replaceable::new(list(&["https://*.uk"])))),
            None,
            &["public-suffix"],
        ),
        (
            "suffix as a host",
            same_origin().allow_host(AllowHost::list(["*.co.uk"]).unwrap()),
            None,
            &["public-suffix"],
        ),
        (
            "own name",
            GuardLayer::new(list(&[
                "https://*.example.co.uk",
                "https://co.uk",
                "moz-extension://*",
            ])),
            None,
            &[],
        ),
        ("localhost", GuardLayer::new(list(&["http://*.localhost:*"])), None, &[]),
        ("report-only", same_origin().dangerous_report_only(), None, &["report-only"]),
        (
            "several",
            with(missing(), "cookie:session").dangerous_report_only(),
            Some(loopback),
            &["ambient-credential", "dns-rebinding", "report-only"],
        ),
    ] {
        assert_eq!(lint(&guard, listens_on), expected, "{name}");
    }
    let sane = with(list(&["https://app.example.com"]), "cookie:session")
        .allow_host(AllowHost::list([HOST]).unwrap())
        .subprotocols(Subprotocols::list(["chat"]).unwrap())
        .limit(ConnectionLimit::total(9).unwrap())
        .respond();
    assert!(sane.lint(Some("127.0.0.1:3000".parse().unwrap())).is_empty());
}

fn tokens_of_nobody() -> StaticTokens<()> {
    StaticTokens::new([("x", ())]).unwrap()
}

#[test]
fn explanation_asks_a_check_only_about_what_is_accepted_and_shows_it_no_credential() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let verify = |_: &Token, head: &Parts| {
        assert!(!head.headers.contains_key("authorization"));
        Ok(Verified::new(()))
    };
    let guard = same_origin()
        .check(check_fn(move |_| {
            counted.fetch_add(1, SeqCst);
            Ok(())
        }))
        .token(TokenPolicy::bearer(Now(verify)))
        .unwrap();
    let foreign = bearer(TOKEN).with("Origin", "https://evil.example");
    let (head, ()) = foreign.request::<()>().into_parts();
    let explanation = guard.explain(&head);
    let unknown = |step: &&Step| matches!(step.verdict(), Verdict::Unknown(_));
    assert_eq!(explanation.steps().iter().find(unknown).map(Step::name), Some("check"));
    assert_eq!(asked.load(SeqCst), 0);
    let (head, ()) = bearer(TOKEN).request::<()>().into_parts();
    assert!(guard.explain(&head).rejection().is_none());
    assert_eq!(asked.load(SeqCst), 1);
    // It says what would be rejected, also if nothing is.
    let (head, ()) = foreign.request::<()>().into_parts();
    let rejection = guard.dangerous_report_only().explain(&head);
    assert_eq!(rejection.rejection().unwrap().kind(), RejectionKind::OriginNotAllowed);
}

/// Verifies at once.
struct Now(fn(&Token, &Parts) -> Result<Verified<()>, Rejection>);

impl VerifyToken for Now {
    type Claims = ();

    async fn verify(&self, token: Token, head: &Parts) -> Result<Verified<()>, Rejection> {
        (self.0)(&token, head)
    }

    fn verify_now(&self, token: &Token, head: &Parts) -> Option<Result<Verified<()>, Rejection>> {
        Some((self.0)(token, head))
    }
}
