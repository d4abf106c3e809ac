//! The check of the extensions in a response (RFC 6455 9.1).

use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_EXTENSIONS};

use super::{
    deflate,
    grammar::{Extension, InvalidExtensionOffer, parse_lines},
};
use crate::{
    http::field::Escaped,
    rejection::{Rejection, RejectionKind},
};

/// Checks that a response names only extensions that the client offered, each once and in a form
/// that the client accepts.
pub(crate) fn check_response(
    offered: Option<&HeaderValue>,
    response: &HeaderMap,
) -> Result<(), Rejection> {
    if !response.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Ok(());
    }
    let lines = response.get_all(SEC_WEBSOCKET_EXTENSIONS);
    let fault = |problem: String| {
        Err(Rejection::new(RejectionKind::ExtensionNotOffered)
            .with_header_value(lines.iter().next())
            .with_source(problem))
    };
    let accepted = match list(lines.iter()) {
        Ok(accepted) => accepted,
        Err(invalid) => return fault(format!("the response is malformed: {invalid}")),
    };
    // A malformed offer offers nothing.
    let offered = list(offered).unwrap_or_default();
    for (i, extension) in accepted.iter().enumerate() {
        let is_same = |other: &&Extension<'_>| other.name() == extension.name();
        let name = Escaped(extension.name().as_bytes());
        if accepted[..i].iter().any(|other| is_same(&other)) {
            return fault(format!("the response names `{name}` twice"));
        }
        let mut offers = offered.iter().filter(is_same).peekable();
        if offers.peek().is_none() {
            return fault(format!("the client did not offer `{name}`"));
        }
        if !offers.any(|offer| deflate::is_accepted(*offer, *extension)) {
            return fault(format!("the parameters of `{name}` fit no offer of the client"));
        }
    }
    Ok(())
}

fn list<'a>(
    lines: impl IntoIterator<Item = &'a HeaderValue>,
) -> Result<Vec<Extension<'a>>, InvalidExtensionOffer> {
    let mut extensions = Vec::new();
    parse_lines(lines.into_iter().map(HeaderValue::as_bytes), |extension| {
        extensions.push(extension);
        Ok(())
    })?;
    Ok(extensions)
}
