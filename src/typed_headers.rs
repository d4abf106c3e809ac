//! `headers::Header` for the values of handshake fields.

use std::{fmt, iter};

use headers_core::{Error, Header};
use http::{
    HeaderName, HeaderValue,
    header::{ORIGIN, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL},
};

use crate::{
    extension::ExtensionOffer,
    http::{Origin, field::trim},
    subprotocol_offer::SubprotocolOffer,
};

/// `Sec-WebSocket-Extensions`, for `headers::HeaderMapExt` and axum-extra's `TypedHeader`.
///
/// [`decode`](Header::decode) accepts what [`ExtensionOffer::parse`] accepts, but at least one
/// line. The error does not name the rule that the value breaks. [`encode`](Header::encode) writes
/// one line, and none for an empty offer.
///
/// ```
/// use headers::HeaderMapExt;
/// use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_EXTENSIONS};
/// use tower_ws_guard::ExtensionOffer;
///
/// let mut headers = HeaderMap::new();
/// assert_eq!(headers.typed_get::<ExtensionOffer>(), None);
/// headers.typed_insert("foo;bar=1".parse::<ExtensionOffer>()?);
/// assert_eq!(headers[SEC_WEBSOCKET_EXTENSIONS], "foo; bar=1");
/// headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static("baz"));
/// let offer = headers.typed_try_get::<ExtensionOffer>().unwrap().unwrap();
/// assert_eq!(offer.to_string(), "foo; bar=1, baz");
/// headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static("b/z"));
/// assert!(headers.typed_try_get::<ExtensionOffer>().is_err());
/// # Ok::<_, tower_ws_guard::InvalidExtensionOffer>(())
/// ```
impl Header for ExtensionOffer {
    fn name() -> &'static HeaderName {
        &SEC_WEBSOCKET_EXTENSIONS
    }

    fn decode<'i, I>(values: &mut I) -> Result<Self, Error>
    where
        I: Iterator<Item = &'i HeaderValue>,
    {
        Self::parse(at_least_one(values)?).map_err(|_| Error::invalid())
    }

    fn encode<E: Extend<HeaderValue>>(&self, values: &mut E) {
        if !self.is_empty() {
            values.extend([line(self)]);
        }
    }
}

/// `Sec-WebSocket-Protocol`, for `headers::HeaderMapExt` and axum-extra's `TypedHeader`.
///
/// [`decode`](Header::decode) accepts what [`SubprotocolOffer::parse`] accepts, but at least one
/// line. The error does not name the rule that the value breaks. [`encode`](Header::encode) writes
/// one line, and none for an empty offer.
///
/// ```
/// use axum::{Router, body::Body, routing::any};
/// use axum_extra::TypedHeader;
/// use http::{Request, StatusCode};
/// use tower::ServiceExt;
/// use tower_ws_guard::SubprotocolOffer;
///
/// async fn handler(offer: Option<TypedHeader<SubprotocolOffer>>) -> String {
///     match offer {
///         Some(TypedHeader(offer)) => offer.iter().collect::<Vec<_>>().join(" or "),
///         None => "none".to_owned(),
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let app: Router = Router::new().route("/", any(handler));
/// let request = Request::get("/").header("sec-websocket-protocol", "v2.chat, v1.chat");
/// let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
/// let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
/// assert_eq!(body, "v2.chat or v1.chat");
///
/// let request = Request::get("/").header("sec-websocket-protocol", "v2 chat");
/// let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
/// assert_eq!(response.status(), StatusCode::BAD_REQUEST);
/// # }
/// ```
impl Header for SubprotocolOffer {
    fn name() -> &'static HeaderName {
        &SEC_WEBSOCKET_PROTOCOL
    }

    fn decode<'i, I>(values: &mut I) -> Result<Self, Error>
    where
        I: Iterator<Item = &'i HeaderValue>,
    {
        Self::parse(at_least_one(values)?).map_err(|_| Error::invalid())
    }

    fn encode<E: Extend<HeaderValue>>(&self, values: &mut E) {
        if !self.is_empty() {
            values.extend([line(self)]);
        }
    }
}

/// `Origin`, for `headers::HeaderMapExt` and axum-extra's `TypedHeader`.
///
/// [`decode`](Header::decode) accepts exactly one line with what [`Origin::parse`] accepts, and
/// white space around it. `null` and an empty value are errors, because they are not tuple origins.
/// The error does not name the rule that the value breaks. [`encode`](Header::encode) writes one
/// line.
///
/// ```
/// use axum::{Router, body::Body, routing::any};
/// use axum_extra::TypedHeader;
/// use http::{Request, StatusCode};
/// use tower::ServiceExt;
/// use tower_ws_guard::Origin;
///
/// async fn handler(TypedHeader(origin): TypedHeader<Origin<'static>>) -> String {
///     origin.host().to_owned()
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let app: Router = Router::new().route("/", any(handler));
/// let request = |origin| Request::get("/").header("origin", origin).body(Body::empty()).unwrap();
/// let response = app.clone().oneshot(request("https://app.example.com:8443")).await.unwrap();
/// let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
/// assert_eq!(body, "app.example.com");
///
/// let response = app.oneshot(request("null")).await.unwrap();
/// assert_eq!(response.status(), StatusCode::BAD_REQUEST);
/// # }
/// ```
impl Header for Origin<'static> {
    fn name() -> &'static HeaderName {
        &ORIGIN
    }

    fn decode<'i, I>(values: &mut I) -> Result<Self, Error>
    where
        I: Iterator<Item = &'i HeaderValue>,
    {
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Error::invalid());
        };
        let origin = Origin::parse(trim(value.as_bytes()));
        origin.map(Origin::into_owned).map_err(|_| Error::invalid())
    }

    fn encode<E: Extend<HeaderValue>>(&self, values: &mut E) {
        values.extend([line(self)]);
    }
}

/// An absent field is an error, by which extractors recognize it.
fn at_least_one<'i>(
    values: &mut impl Iterator<Item = &'i HeaderValue>,
) -> Result<impl Iterator<Item = &'i HeaderValue>, Error> {
    let first = values.next().ok_or_else(Error::invalid)?;
    Ok(iter::once(first).chain(values))
}

fn line(value: &impl fmt::Display) -> HeaderValue {
    value.to_string().try_into().expect("the syntax of these values is ASCII")
}
