//! The check of the extensions in a response (RFC 6455 9.1).

use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_EXTENSIONS};

use super::{
    AgreedExtensions, deflate,
    grammar::{Extension, InvalidExtensionOffer, MAX_EXTENSIONS, parse_lines},
};
use crate::{
    http::field::{Escaped, one_line, set_header},
    rejection::{Rejection, RejectionKind as Kind},
};

/// An extension in a response.
struct Named<'a> {
    extension: Extension<'a>,
    is_offered: bool,
    fits_an_offer: bool,
}

/// Checks that a response names only extensions that the client offered, each once and in a form
/// that the client accepts, and adds the limits of the client's part that the layer agreed to.
pub(crate) fn check_response(
    offered: Option<&HeaderValue>,
    agreed: AgreedExtensions,
    response: &mut HeaderMap,
) -> Result<(), Rejection> {
    let lines = response.get_all(SEC_WEBSOCKET_EXTENSIONS);
    let Some(first) = lines.iter().next() else { return Ok(()) };
    let fault = |problem: String| {
        Err(Rejection::new(Kind::ExtensionNotOffered).with_header_value(first).with_source(problem))
    };
    let mut named = Vec::new();
    let list = parse_lines(lines.iter().map(HeaderValue::as_bytes), |extension| {
        if named.len() == MAX_EXTENSIONS {
            return Err(InvalidExtensionOffer::EXTENSIONS);
        }
        named.push(Named { extension, is_offered: false, fits_an_offer: false });
        Ok(())
    });
    if let Err(invalid) = list {
        return fault(format!("the response is malformed: {invalid}"));
    }
    let list = parse_lines(offered.map(HeaderValue::as_bytes), |offer| {
        for named in named.iter_mut().filter(|named| named.extension.name() == offer.name()) {
            named.is_offered = true;
            named.fits_an_offer |= deflate::is_accepted(offer, named.extension);
        }
        Ok(())
    });
    if let Err(invalid) = list {
        // The handler should have failed the connection.
        return Err(Rejection::new(Kind::ExtensionInvalid)
            .with_header_value(offered)
            .with_source(invalid));
    }
    for (i, Named { extension, is_offered, fits_an_offer }) in named.iter().enumerate() {
        let name = Escaped(extension.name().as_bytes());
        if named[..i].iter().any(|other| other.extension.name() == extension.name()) {
            return fault(format!("the response names `{name}` twice"));
        }
        if !is_offered {
            return fault(format!("the client did not offer `{name}`"));
        }
        if !fits_an_offer {
            return fault(format!("the parameters of `{name}` fit no offer of the client"));
        }
    }

    // RFC 6455 11.3.2: one line, and none for an empty list.
    let value = match (&*named, agreed.permessage_deflate()) {
        ([], _) => None,
        ([only], Some(agreed)) => agreed.limit(only.extension),
        _ => one_line(response.get_all(SEC_WEBSOCKET_EXTENSIONS)),
    };
    set_header(response, SEC_WEBSOCKET_EXTENSIONS, value);
    Ok(())
}
