use std::cell::{LazyCell, RefCell};

use http::{HeaderValue, Request, Version};
use hyper::ext::Protocol;
use tower::service_fn;
use tower_ws_guard::ExtensionOffer;

use crate::{
    connection::{
        App, Body, CODE, Calls, Inner, answer, compare_stream, guarded, recorded, responder,
        serve_stream,
    },
    oracle::{
        Compression, Head, Policy,
        extensions::{Extension, may_respond, parse},
    },
    policies::{DEFAULT, LIMITED, NO_TAKEOVER, POLICY, ZLIB},
};

const NAME: &str = "sec-websocket-extensions";

const COMPRESSIONS: [Option<Compression>; 6] =
    [None, Some(DEFAULT), Some(ZLIB), Some(LIMITED), Some(NO_TAKEOVER), Some(Compression::WHOLE)];

const OPEN: Policy = Policy { any_origin: true, accept_unmatched: true, ..POLICY };

thread_local! {
    static CALLS: Calls = Calls::default();
    static RESPONSE: RefCell<Vec<HeaderValue>> = RefCell::default();
}

struct Apps {
    policy: Policy,
    /// Names nothing by itself.
    silent: App<Body>,
    /// Names what is in [`RESPONSE`].
    naming: Option<App<Body>>,
}

/// Two for each of [`COMPRESSIONS`].
fn apps() -> Vec<Apps> {
    let policies = COMPRESSIONS.into_iter().flat_map(|extensions| {
        [false, true].map(|completes| Policy { extensions, completes, ..OPEN })
    });
    let calls = || CALLS.with(Calls::clone);
    let apps = policies.map(|policy| Apps {
        policy,
        silent: guarded(&policy, recorded(responder(&policy), calls())),
        naming: (!policy.completes).then(|| guarded(&policy, recorded(naming(), calls()))),
    });
    apps.collect()
}

fn naming() -> Inner {
    Inner::new(service_fn(async |mut request: Request<()>| {
        drop(hyper::upgrade::on(&mut request));
        let mut response = answer(200, "accepted");
        for line in RESPONSE.take() {
            response.headers_mut().append(NAME, line);
        }
        Ok(response)
    }))
}

fn request(lines: &[HeaderValue]) -> Request<()> {
    let request = Request::connect("https://chat.example.com/ws").version(Version::HTTP_2);
    let request = request.header("sec-websocket-version", "13");
    let request = request.header("origin", "https://app.example.com");
    let mut request =
        request.extension(Protocol::from_static("websocket")).body(()).expect("a request");
    for line in lines {
        request.headers_mut().append(NAME, line.clone());
    }
    request
}

/// Lines of `Sec-WebSocket-Extensions` against the oracle: an offer has one form on one line, which is the same offer; guards agree to
/// what the oracle says; and a handler gets through with what the client can take. The first byte selects what a guard can agree to;
/// the lines behind one that is `>` are the handler's.
pub fn extensions(input: &[u8]) -> bool {
    thread_local! {
        static APPS: LazyCell<Vec<Apps>> = LazyCell::new(apps);
    }
    let Some((&first, input)) = input.split_first() else { return false };
    let at = usize::from(first) % COMPRESSIONS.len();
    let mut lines = input.split(|&byte| byte == b'\n');
    let of_client = lines.by_ref().take_while(|line| *line != b">").map(HeaderValue::from_bytes);
    let Ok(of_client) = of_client.collect::<Result<Vec<_>, _>>() else { return false };
    let Ok(of_handler) = lines.map(HeaderValue::from_bytes).collect::<Result<Vec<_>, _>>() else {
        return false;
    };
    let offers = parse(of_client.iter().map(HeaderValue::as_bytes));
    offer(&of_client, offers.as_deref());

    APPS.with(|apps| {
        for Apps { policy, silent, naming } in &apps[at * 2..][..2] {
            let request = request(&of_client);
            let head = Head::from(&request);
            let (calls, response) =
                CALLS.with(|calls| serve_stream(silent, calls, request.clone()));
            if let Err(difference) = compare_stream(&head, policy, &calls, &response) {
                panic!("{difference}");
            }
            // A guard without a policy does not mind a malformed offer, and neither does the oracle.
            let (Some(naming), Some(offers)) = (naming, &offers) else { continue };
            RESPONSE.set(of_handler.clone());
            let (calls, response) = CALLS.with(|calls| serve_stream(naming, calls, request));
            let [call] = &calls[..] else { panic!("no call: {policy:?}") };
            let shown = parse(call.headers().get_all(NAME).iter().map(HeaderValue::as_bytes));
            let of_handler = || of_handler.iter().map(HeaderValue::as_bytes);
            let is_bounded = parse(of_handler()).is_some_and(|named| named.len() <= 32);
            let code = match is_bounded && may_respond(shown.as_deref(), of_handler()) {
                true => "accepted",
                false => "extension-not-offered",
            };
            assert_eq!(response.headers()[CODE], code, "{policy:?} {shown:?}");
            let is_accepted = code == "accepted";
            // On one line, and perhaps with limits of the client.
            let named = || response.headers().get_all(NAME).iter().map(HeaderValue::as_bytes);
            assert!(named().count() <= usize::from(is_accepted), "{policy:?} {shown:?}");
            assert!(may_respond(Some(offers), named()), "{policy:?} {shown:?}");
        }
    });
    offers.is_some()
}

/// The owned value, and its bounds.
fn offer(lines: &[HeaderValue], expected: Option<&[Extension]>) {
    let parsed = ExtensionOffer::parse(lines);
    let is_bounded = |offers: &[Extension]| {
        let bytes = lines.iter().map(|line| line.len() + 2).sum::<usize>();
        bytes <= 4096
            && offers.len() <= 32
            && offers.iter().all(|offer| offer.parameters.len() <= 32)
    };
    if expected.is_some_and(|offers| !offers.is_empty() && is_bounded(offers)) {
        assert!(parsed.is_ok(), "{parsed:?}");
    }
    let Ok(offer) = parsed else { return };
    assert!(offer.len() <= 32);
    let read = offer.iter().map(|extension| Extension {
        name: extension.name().to_owned(),
        parameters: extension
            .parameters()
            .map(|(name, value)| (name.to_owned(), value.map(|value| value.to_owned())))
            .collect(),
    });
    assert_eq!(Some(read.collect::<Vec<_>>().as_slice()), expected);
    // The spaces of the normal form can make it longer than what is read.
    let normal = offer.to_string();
    if normal.len() <= 4096 {
        let again: ExtensionOffer = normal.parse().expect("an offer");
        assert_eq!((&again, again.to_string()), (&offer, normal));
    }
}
