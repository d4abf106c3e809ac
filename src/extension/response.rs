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
pub(crate) struct Named<'a> {
    extension: Extension<'a>,
    is_repeated: bool,
    is_offered: bool,
    fits_an_offer: bool,
}

/// Why a client does not accept an extension in a response.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    Repeated,
    NotOffered,
    Parameters,
}

/// A list that cannot be read.
pub(crate) enum Malformed {
    Offer(InvalidExtensionOffer),
    Response(InvalidExtensionOffer),
}

impl<'a> Named<'a> {
    pub(crate) const fn name(&self) -> &'a str {
        self.extension.name()
    }

    /// A client accepts extensions that it offered, each once and in a form that fits its offer.
    pub(crate) const fn fault(&self) -> Option<Fault> {
        match self {
            Self { is_repeated: true, .. } => Some(Fault::Repeated),
            Self { is_offered: false, .. } => Some(Fault::NotOffered),
            Self { fits_an_offer: false, .. } => Some(Fault::Parameters),
            _ => None,
        }
    }
}

/// Reads the extensions of a response, and compares them with the offer.
pub(crate) fn read_response<'a, 'b>(
    offered: impl IntoIterator<Item = &'b HeaderValue>,
    response: impl IntoIterator<Item = &'a HeaderValue>,
) -> Result<Vec<Named<'a>>, Malformed> {
    let mut named: Vec<Named<'_>> = Vec::new();
    let lines = response.into_iter().map(HeaderValue::as_bytes);
    let list = parse_lines(lines, |extension| {
        if named.len() == MAX_EXTENSIONS {
            return Err(InvalidExtensionOffer::EXTENSIONS);
        }
        let is_repeated = named.iter().any(|other| other.name() == extension.name());
        named.push(Named { extension, is_repeated, is_offered: false, fits_an_offer: false });
        Ok(())
    });
    list.map_err(Malformed::Response)?;
    if named.is_empty() {
        return Ok(named);
    }
    let list = parse_lines(offered.into_iter().map(HeaderValue::as_bytes), |offer| {
        for named in named.iter_mut().filter(|named| named.name() == offer.name()) {
            named.is_offered = true;
            named.fits_an_offer |= deflate::is_accepted(offer, named.extension);
        }
        Ok(())
    });
    list.map_err(Malformed::Offer)?;
    Ok(named)
}

/// Checks that a client accepts the extensions of a response, and adds the limits of the client's
/// part that the layer agreed to.
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
    let named = match read_response(offered, lines) {
        Ok(named) => named,
        Err(Malformed::Response(invalid)) => {
            return fault(format!("the response is malformed: {invalid}"));
        }
        // The handler should have failed the connection.
        Err(Malformed::Offer(invalid)) => {
            return Err(Rejection::new(Kind::ExtensionInvalid)
                .with_header_value(offered)
                .with_source(invalid));
        }
    };
    if let Some((named, found)) = named.iter().find_map(|named| Some((named, named.fault()?))) {
        let name = Escaped(named.name().as_bytes());
        return fault(match found {
            Fault::Repeated => format!("the response names `{name}` twice"),
            Fault::NotOffered => format!("the client did not offer `{name}`"),
            Fault::Parameters => format!("the parameters of `{name}` fit no offer of the client"),
        });
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
